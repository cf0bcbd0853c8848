"""Providers of one family by name, and what went wrong while they were collected."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cfs_core.errors import PluginError
from cfs_core.interfaces.provider import Provider
from cfs_core.pluginhost.distributions import install_hint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

P = TypeVar("P", bound=Provider[Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginId:
    """A plugin by its entry point, and the distribution to name when it is at fault."""

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"

    def fault(self, message: str, *, facts: Mapping[str, object] | None = None) -> PluginError:
        """Make the error for a fault of this plugin."""
        named = {"plugin": self.name, "distribution": self.distribution, "version": self.version}
        return PluginError(
            message, hint=f"report it to the authors of {self.distribution}", facts={**(facts or {}), **named}
        )


def describe(cause: BaseException, package: str | None = None) -> str:
    """Return class and message of an exception, and where in *package* (a plugin's) it came from."""
    text = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(cause.__traceback__)
        if package and str(frame.f_globals.get("__name__", "")).partition(".")[0] == package
    ]
    if not frames:
        return text
    path, line = frames[-1]
    return f"{text} ({'/'.join(Path(path).parts[-2:])}:{line})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A fault of one plugin. ``hook`` is None for faults of loading."""

    plugin: PluginId
    hook: str | None
    problem: str
    fatal: bool = True
    """False where the plugin still works: it prints, or is slow."""

    cause: BaseException | None = field(default=None, repr=False)

    def __str__(self) -> str:
        where = f" in {self.hook}" if self.hook else ""
        return f"{self.plugin}{where}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry(Generic[P]):
    """Providers of one family. A name that two plugins offer is withheld from both."""

    family: str
    providers: Mapping[str, tuple[PluginId, P]]
    withheld: Mapping[str, tuple[PluginId, ...]]
    trouble: tuple[Trouble, ...]

    def __iter__(self) -> Iterator[P]:
        return (provider for _, provider in self.providers.values())

    def __contains__(self, name: object) -> bool:
        return name in self.providers

    def owner(self, name: str) -> PluginId:
        """Return whose provider *name* is."""
        return self.providers[name][0]

    def get(self, name: str) -> P:
        """Return the provider called *name*.

        Raises:
            PluginError: unknown, withheld because two plugins offer it, or lost to a fault that the message names.
        """
        if name in self.withheld:
            owners = " and ".join(str(owner) for owner in self.withheld[name])
            msg = f"the {self.family} {name!r} is offered by {owners}; neither is used"
            raise PluginError(msg, hint="uninstall one of them, or switch one off with --disable-plugin NAME")
        found = self.providers.get(name)
        if found is not None:
            return found[1]
        known = ", ".join(self.providers) or "none"
        broken = [str(trouble) for trouble in self.trouble if trouble.fatal]
        if broken:
            msg = f"no {self.family} named {name!r}; known: {known}; not working: {'; '.join(broken)}"
            hint = "see `cfs plugins doctor`"
        else:
            msg = f"no {self.family} named {name!r}; known: {known}"
            hint = install_hint(name)
        raise PluginError(msg, hint=hint, facts={"family": self.family, "name": name})
