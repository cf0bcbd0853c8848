"""Find plugins, call their hooks one implementation at a time, and know whom to name."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from cfs_core import hookspecs
from cfs_core.errors import CfsError, PluginError
from cfs_core.interfaces.provider import Provider
from cfs_core.plugin import API_VERSION
from cfs_core.pluginhost.offers import offer_problem
from cfs_core.pluginhost.registry import PluginId, Registry, Trouble, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cfs_core.interfaces.context import PluginContext
    from cfs_core.model.event import Event
    from cfs_core.pluginhost.families import Family

ENTRY_POINT_GROUP = "cfs.plugins"
# What plugins are asked in passing takes milliseconds. A person who waits for a second should know whose it is.
SLOW_SECONDS = 1.0
OFFERS_LIMIT = 1000
"""Providers or contributions of one hook call; a generator without an end stops here."""

P = TypeVar("P", bound=Provider[Any])
T = TypeVar("T")


class PluginHost:
    """The plugins of one run. Makes no global state: a program may have several."""

    def __init__(self, *, disabled: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.disabled = frozenset(disabled)
        self.unknown: frozenset[str] = frozenset()
        """What was to be disabled, and no installed plugin is called; known once plugins are loaded."""

        self._clock = clock
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._owners: dict[str, PluginId] = {}
        self._trouble: list[Trouble] = []
        self._registries: dict[str, Registry[Any]] = {}
        self._muted: set[str] = set()

    @property
    def trouble(self) -> tuple[Trouble, ...]:
        """Faults so far: of loading, of registering, and of whatever else plugins were asked."""
        return tuple(self._trouble)

    @property
    def plugins(self) -> tuple[PluginId, ...]:
        """Plugins that were loaded, by name."""
        return tuple(sorted(self._owners.values(), key=lambda owner: owner.name))

    def load_installed(self) -> None:
        """Load every installed plugin. A fault costs its own plugin only."""
        offers: dict[str, dict[str, tuple[PluginId, metadata.EntryPoint]]] = {}
        self.unknown = self.disabled
        for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
            owner = _identify(entry)
            self.unknown -= {owner.name, owner.distribution}
            if not self.disabled & {owner.name, owner.distribution}:
                # setdefault: the same distribution may be on the path twice (an editable install)
                offers.setdefault(entry.name, {}).setdefault(entry.value, (owner, entry))
        for _, entries in sorted(offers.items()):
            found = list(entries.values())
            for owner, entry in found:
                if len(found) > 1:
                    others = " and ".join(sorted(str(other) for other, _ in found if other is not owner))
                    problem = f"has the same entry point name as {others}; neither is loaded"
                    self._trouble.append(Trouble(plugin=owner, hook=None, problem=problem))
                    continue
                with self._guard(owner, None, self._trouble) as outcome:
                    outcome.value = entry.load()
                if outcome.value is not None:
                    self.add(outcome.value, owner)

    def add(self, module: object, owner: PluginId) -> None:
        """Register one plugin; what is wrong with it goes to `trouble`."""
        problem = _api_problem(module) or self._clash(owner) or _option_problem(module)
        if problem:
            self._trouble.append(Trouble(plugin=owner, hook=None, problem=problem))
            return
        try:
            with warnings.catch_warnings(record=True) as deprecations:
                warnings.simplefilter("always")  # whatever Python was told about warnings
                self._manager.register(module, name=owner.name)
                self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as cause:
            if self._manager.get_plugin(owner.name) is module:
                self._manager.unregister(name=owner.name)
            problem = " ".join(str(cause).split())
            self._trouble.append(Trouble(plugin=owner, hook=None, problem=problem, cause=cause))
            return
        self._owners[owner.name] = owner
        problems = [_deprecation(warning) for warning in deprecations]
        if not self._manager.get_hookcallers(module):
            problems.append("implements no hook; functions need @hookimpl")
        self._trouble += [
            Trouble(plugin=owner, hook=None, problem=problem, fatal=False) for problem in dict.fromkeys(problems)
        ]
        hooks = set(self._registries)
        self._registries.clear()  # and with them what was wrong with their providers
        self._trouble = [trouble for trouble in self._trouble if trouble.hook not in hooks]

    def _clash(self, owner: PluginId) -> str | None:
        other = self._owners.get(owner.name)
        return f"has the same entry point name as {other}, which was loaded first" if other else None

    def blame(self, error: BaseException) -> PluginId | None:
        """Return the plugin whose code *error* came out of, None if it was core's own."""
        packages = {self._manager.get_plugin(name): owner for name, owner in self._owners.items()}
        names = {str(getattr(module, "__name__", "")).partition(".")[0]: owner for module, owner in packages.items()}
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            owner = names.get(str(frame.f_globals.get("__name__", "")).partition(".")[0])
            if owner is not None:
                return owner
        return None

    def make(self, family: Family[Any], name: str, context: PluginContext) -> Any:  # noqa: ANN401 - the family's interface
        """Run the factory of the chosen provider.

        Raises:
            PluginError: unknown, withheld, its factory failed or made something else; the message names whom to ask.
            CfsError: what the factory itself says, for example a setting it refuses.
        """
        from cfs_core.pluginhost.contracts import hold  # with all the types that providers return

        registry = self.collect(family)
        provider, owner = registry.get(name), registry.owner(name)
        what = f"the {family.name} {name!r}"
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                made = provider.factory(context)
        except CfsError:
            raise
        except (Exception, SystemExit) as cause:
            msg = f"{what} of {owner} failed: {describe(cause, self._package(owner))}"
            raise owner.fault(msg) from cause
        interface = family.interface()
        if not isinstance(made, interface):
            msg = f"{what} of {owner} made {type(made).__name__}, not {interface.__name__}"
            raise owner.fault(msg)
        return hold(made, interface, owner, what)

    def collect(self, family: Family[P]) -> Registry[P]:
        """Return the providers of *family*; asked once per family, then remembered."""
        registry = self._registries.get(family.hook)
        if registry is None:
            registry = self._registries[family.hook] = self._collect(family)
        return registry

    def _collect(self, family: Family[P]) -> Registry[P]:
        offers: dict[str, list[tuple[PluginId, P]]] = {}
        trouble: list[Trouble] = []
        for owner, offer in self._call(family.hook, {}, trouble):
            problem = offer_problem(offer, family.kind)
            if problem:
                trouble.append(Trouble(plugin=owner, hook=family.hook, problem=problem))
            else:
                provider: P = offer  # type: ignore[assignment]  # offer_problem has looked
                offers.setdefault(provider.name, []).append((owner, provider))
        withheld = {name: tuple(owner for owner, _ in found) for name, found in offers.items() if len(found) > 1}
        trouble += [
            Trouble(plugin=owner, hook=family.hook, problem=_withheld_problem(family.name, name, owner, owners))
            for name, owners in withheld.items()
            for owner in dict.fromkeys(owners)
        ]
        lost = [trouble for trouble in self._trouble if trouble.hook is None]
        self._trouble += trouble
        return Registry(
            family=family.name,
            providers={name: found[0] for name, found in sorted(offers.items()) if name not in withheld},
            withheld=withheld,
            trouble=(*lost, *trouble),
        )

    def _package(self, owner: PluginId) -> str | None:
        """Return the package that *owner*'s code is in; None before it is loaded."""
        name = getattr(self._manager.get_plugin(owner.name), "__name__", None)
        return name.partition(".")[0] if isinstance(name, str) else None

    def describe(self, owner: PluginId, cause: BaseException) -> str:
        """Return what *cause* says, and the file and line of the last frame of *owner*'s code."""
        return describe(cause, self._package(owner))

    def collect_again(self, family: Family[Any]) -> list[tuple[PluginId, object]]:
        """Ask once more, whatever is remembered; for tests of what plugins return."""
        return list(self._call(family.hook, {}, []))

    def module_of(self, owner: PluginId) -> Any:  # noqa: ANN401 - modules, and objects in tests
        """Return what was registered for *owner*."""
        return self._manager.get_plugin(owner.name)

    def contribute(self, hook: str, kind: type[T], **arguments: object) -> list[tuple[PluginId, T]]:
        """Call a contributing hook and return every contribution with its owner.

        A fault here is not harmless (a lost kernel argument, a check that did not run), so callers look at `trouble`.
        """
        contributions: list[tuple[PluginId, T]] = []
        for owner, offer in self._call(hook, arguments, self._trouble):
            if isinstance(offer, kind):
                contributions.append((owner, offer))
            else:
                problem = f"returned {type(offer).__name__}, not {kind.__name__}"
                self._trouble.append(Trouble(plugin=owner, hook=hook, problem=problem))
        return contributions

    def attempt(self, owner: PluginId, where: str, action: Callable[..., T], *arguments: object) -> T | None:
        """Call a plugin's code that this run may be able to do without: a fault becomes a trouble, and None.

        Raises:
            CfsError: what the plugin says on purpose.
        """
        error: CfsError | None = None
        with self._guard(owner, where, self._trouble) as outcome:
            try:
                outcome.value = action(*arguments)
            except PluginError:
                raise
            except CfsError as said:
                error = said
        if error is not None:
            raise error
        value: T | None = outcome.value
        return value

    def notify(self, event: Event) -> None:
        """Show *event* to observers. Nothing they do reaches the run; one that failed is not asked again."""
        for implementation in self._manager.hook.cfs_on_event.get_hookimpls():
            owner = self._owners[implementation.plugin_name]
            if owner.name in self._muted:
                continue
            available = {"event": event}
            before = len(self._trouble)
            with self._guard(owner, "cfs_on_event", self._trouble):
                implementation.function(*(available[name] for name in implementation.argnames))
            if len(self._trouble) > before:
                self._muted.add(owner.name)

    def _call(
        self, hook: str, arguments: Mapping[str, object], trouble: list[Trouble]
    ) -> Iterator[tuple[PluginId, object]]:
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        for implementation in sorted(caller.get_hookimpls(), key=lambda each: (not each.tryfirst, each.trylast)):
            owner = self._owners[implementation.plugin_name]
            function: Any = implementation.function
            with self._guard(owner, hook, trouble) as outcome:
                outcome.value = _listed(function(*(arguments[name] for name in implementation.argnames)))
            for offer in outcome.value or ():
                yield owner, offer

    @contextlib.contextmanager
    def _guard(self, owner: PluginId, hook: str | None, trouble: list[Trouble]) -> Iterator[_Outcome]:
        """Run a plugin's code: exceptions (SystemExit too), prints and slowness become troubles."""
        outcome = _Outcome()
        printed = io.StringIO()
        started = self._clock()
        try:
            with contextlib.redirect_stdout(printed):
                yield outcome
        except KeyboardInterrupt:
            raise
        except BaseException as cause:  # noqa: BLE001 - a plugin may raise anything, sys.exit included
            told = describe(cause, self._package(owner))
            problem = f"cannot be imported: {told}" if hook is None else f"raised {told}"
            trouble.append(Trouble(plugin=owner, hook=hook, problem=problem, cause=cause))
            outcome.value = None
        took = self._clock() - started
        text = printed.getvalue()
        if text:
            problem = f"prints to standard output: {text.strip()[:80]!r}"
            trouble.append(Trouble(plugin=owner, hook=hook, problem=problem, fatal=False))
        if took > SLOW_SECONDS:
            trouble.append(Trouble(plugin=owner, hook=hook, problem=f"took {took:.1f} seconds", fatal=False))


class _Outcome:
    value: Any = None


def _identify(entry: metadata.EntryPoint) -> PluginId:
    """Read name and version from the head of the distribution's metadata; parsing all of it costs milliseconds each."""
    facts = {"Name": "unknown", "Version": "unknown"}
    text = (entry.dist.read_text("METADATA") or entry.dist.read_text("PKG-INFO")) if entry.dist is not None else None
    for line in (text or "").splitlines():
        if not line:  # the description follows
            break
        field, _, value = line.partition(": ")
        if field in facts and value:
            facts[field] = value
    return PluginId(name=entry.name, distribution=facts["Name"], version=facts["Version"])


def _listed(returned: object) -> list[object]:
    """Take what a hook returned apart; a single object counts as one offer, and its type is judged as such."""
    if returned is None:
        return []
    if isinstance(returned, str | bytes) or not isinstance(returned, Iterable):
        return [returned]
    return list(itertools.islice(returned, OFFERS_LIMIT))


def _deprecation(warning: warnings.WarningMessage) -> str:
    where = f"{os.path.basename(warning.filename)}:{warning.lineno}"  # noqa: PTH119 - a name to show
    return f"implements what is deprecated: {' '.join(str(warning.message).split())} ({where})"


def _withheld_problem(family: str, name: str, owner: PluginId, owners: tuple[PluginId, ...]) -> str:
    others = ", ".join(str(other) for other in owners if other != owner) or "itself"
    return f"offers the {family} {name!r}, and so does {others}; neither is used"


def _api_problem(module: object) -> str | None:
    wanted = getattr(module, "CFS_PLUGIN_API", None)
    if not (isinstance(wanted, tuple) and len(wanted) == len(API_VERSION) and all(isinstance(n, int) for n in wanted)):
        return f"states no usable CFS_PLUGIN_API (found {wanted!r}); this cfs has {API_VERSION}"
    if wanted[0] != API_VERSION[0] or wanted[1] > API_VERSION[1]:
        return f"needs plugin API {wanted[0]}.{wanted[1]}, this cfs has {API_VERSION[0]}.{API_VERSION[1]}"
    return None


def _option_problem(module: object) -> str | None:
    """Registration is a set, not a race: tryfirst and trylast have no meaning there. Nobody wraps anybody."""
    for name in dir(module):
        options = getattr(getattr(module, name, None), f"{hookspecs.PROJECT}_impl", None)
        if not isinstance(options, dict):
            continue
        hook = options.get("specname") or name
        refused = ["wrapper", "hookwrapper"]
        refused += ["tryfirst", "trylast"] if hook.startswith("cfs_register_") else []
        used = [key for key in refused if options.get(key)]
        if used:
            return f"uses {', '.join(used)} on {hook}, which cfs does not allow there"
    return None
