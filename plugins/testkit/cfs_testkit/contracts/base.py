"""What every contract checks: how a provider is offered, named and made."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest

from cfs_core.plugin import PluginContext
from cfs_core.testing import HostCommands, PluginHost, PluginId
from cfs_testkit.context import CountedProgress, RecordedLog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import ModuleType

    from cfs_core.plugin import Event, Provider
    from cfs_core.testing import Family

F = TypeVar("F", bound="Callable[..., Any]")

SUMMARY_LIMIT = 100
SLOW_SECONDS = 1.0
HOOK_SECONDS = 20
"""For a fresh interpreter that imports and registers; generous, since machines that run tests are busy."""

_LOADED = """
import importlib, sys
module = importlib.import_module(sys.argv[1])
list(getattr(module, sys.argv[2])())
package = sys.argv[1].partition(".")[0]
allowed = {package, sys.argv[1]}
print("\\n".join(sorted(name for name in sys.modules if name.partition(".")[0] == package and name not in allowed)))
"""


def optional(when: Callable[[Any], bool], declares: str) -> Callable[[F], F]:
    """Make a check apply only to providers that declare a capability; *declares* says which."""

    def mark(check: F) -> F:
        check.cfs_when = (when, declares)  # type: ignore[attr-defined]
        return check

    return mark


class Contract:
    """Subclass one of the family contracts, name the provider, and give the fixtures it asks for."""

    provider: ClassVar[str]
    """Name of the provider as plugins register it."""

    plugin: ClassVar[ModuleType | None] = None
    """The plugin's module where it is not installed; None looks among the installed plugins, as cfs does."""

    settings: ClassVar[Mapping[str, object]] = {}
    """The provider's section of the settings."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks that are known to fail, with the reason. One that passes after all is an error."""

    family: ClassVar[Family[Any]]

    @pytest.fixture
    def plugin_host(self) -> PluginHost:
        """Plugins as cfs finds them."""
        host = PluginHost()
        if self.plugin is None:
            host.load_installed()
        else:
            host.add(self.plugin, PluginId(name="under-test", distribution="not-installed", version="0"))
        return host

    @pytest.fixture
    def offered(self, plugin_host: PluginHost) -> Any:
        """The provider as it was registered."""
        return plugin_host.collect(self.family).get(self.provider)

    @pytest.fixture
    def events(self) -> list[Event]:
        """Whatever the provider emits."""
        return []

    @pytest.fixture
    def plugin_settings(self) -> Mapping[str, object]:
        """The provider's settings; override this where they depend on other fixtures."""
        return self.settings

    @pytest.fixture
    def context(self, tmp_path: Path, events: list[Event], plugin_settings: Mapping[str, object]) -> PluginContext:
        """What the factory is given: real commands, a fixed time, a fixed seed."""
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        return PluginContext(
            provider=self.provider,
            commands=HostCommands(os.environ),
            progress=CountedProgress(),
            log=RecordedLog(),
            scratch=scratch,
            settings=plugin_settings,
            emit=events.append,
            source_date_epoch=1_000_000_000,
            seed="testkit",
            environ=os.environ,
        )

    @pytest.fixture
    def made(self, offered: Provider[Any], context: PluginContext) -> Any:
        """What the factory makes."""
        return offered.factory(context)

    @pytest.fixture(autouse=True)
    def _applies(self, request: pytest.FixtureRequest, plugin_host: PluginHost) -> None:
        registry = plugin_host.collect(self.family)
        if self.provider in registry:
            request.node.user_properties.append(("cfs_plugin", dataclasses.asdict(registry.owner(self.provider))))
        chosen = getattr(request.function, "cfs_when", None)
        if chosen is not None and not chosen[0](request.getfixturevalue("offered")):
            pytest.skip(f"not declared: {chosen[1]}")

    # --- registration -------------------------------------------------------------------------

    def test_registers_without_trouble(self, plugin_host: PluginHost) -> None:
        """Import and registration succeed, quickly, and print nothing."""
        registry = plugin_host.collect(self.family)
        assert self.provider in registry, registry.withheld.get(self.provider) or [str(t) for t in registry.trouble]
        declared = {setting.name for setting in registry.get(self.provider).settings}
        assert set(self.settings) <= declared, "the contract gives settings that the provider does not declare"
        owner = registry.owner(self.provider)
        troubles = [trouble.problem for trouble in registry.trouble if trouble.plugin == owner]
        if any(problem.startswith("took ") for problem in troubles):  # a busy machine is slow once
            troubles = [problem for problem in troubles if not problem.startswith("took ")]
            started = time.monotonic()
            plugin_host.collect_again(self.family)
            assert time.monotonic() - started < SLOW_SECONDS, "registering takes long"
        assert troubles == []

    def test_registers_the_same_every_time(self, plugin_host: PluginHost, offered: Provider[Any]) -> None:
        """Registration is pure: a second time offers equal providers."""
        again: list[Any] = [offer for _, offer in plugin_host.collect_again(self.family)]
        assert [_declared(offer) for offer in again if offer.name == self.provider] == [_declared(offered)]

    def test_has_a_summary_of_one_line(self, offered: Provider[Any]) -> None:
        """``cfs plugins list`` shows the summary in one line."""
        assert offered.summary.strip() == offered.summary
        assert offered.summary
        assert "\n" not in offered.summary
        assert len(offered.summary) <= SUMMARY_LIMIT

    def test_registration_loads_no_implementation(self, plugin_host: PluginHost) -> None:
        """Registering imports the plugin's own module and nothing else of the plugin."""
        module = plugin_host.module_of(plugin_host.collect(self.family).owner(self.provider))
        done = subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-c", _LOADED, module.__name__, self.family.hook],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=HOOK_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        loaded = done.stdout.split()
        assert loaded == [], f"registering imports {loaded}; import them in the factory"

    def test_factory_makes_the_interface(self, made: object) -> None:
        """The factory returns an instance of the family's interface."""
        assert isinstance(made, self.family.interface())

    def test_making_it_prints_nothing(
        self, offered: Provider[Any], context: PluginContext, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Standard output is for results of cfs."""
        capfd.readouterr()
        offered.factory(context)
        assert capfd.readouterr().out == ""


def _declared(provider: Provider[Any]) -> dict[str, object]:
    fields = type(provider).__dataclass_fields__
    return {name: getattr(provider, name) for name in fields if name != "factory"}
