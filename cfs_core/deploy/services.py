"""What verbs need of the run they are in: `cfs_core.app` has it all; a program or a test can provide less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.config.settings import Settings
    from cfs_core.interfaces.context import CommandRunner, Progress
    from cfs_core.interfaces.fetcher import ImageLocation
    from cfs_core.interfaces.storage import StorageFormat
    from cfs_core.model.event import Event
    from cfs_core.pluginhost.families import Family
    from cfs_core.pluginhost.load import PluginHost


class Services(Protocol):
    """Settings, plugins and reporting of one run."""

    @property
    def settings(self) -> Settings:
        """Settings of host and command line."""

    @property
    def host(self) -> PluginHost:
        """Installed plugins."""

    @property
    def commands(self) -> CommandRunner:
        """The door to host commands."""

    @property
    def progress(self) -> Progress:
        """Where progress is shown."""

    @property
    def scratch(self) -> Path:
        """A private directory that goes away with the run."""

    @property
    def source_date_epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH in seconds, if set."""

    def emit(self, event: Event) -> None:
        """Show an event."""

    def make(self, family: Family[Any], name: str, *, settings: Settings | None = None, seed: str | None = None) -> Any:  # noqa: ANN401 - typed by the caller
        """Make the chosen provider of a family, with its own table of *settings* (by default those of the run)."""

    def locate(self, text: str) -> ImageLocation:
        """Parse a reference, in the grammar of the transport that its scheme chooses."""

    def storage(self, name: str | None = None) -> StorageFormat:
        """Return a storage format, by default the one that settings or what is installed choose."""

    def default_repository(self) -> Path:
        """Return where images are kept."""


def each_made(services: Services, family: Family[Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and provider, made with its settings, of every one of a family that can be made, one after the other.

    For those who look which of them is meant: a plugin that fails is told of, and passed over.
    """
    registry = services.host.collect(family)
    for provider in registry:
        made = services.host.attempt(registry.owner(provider.name), "factory", services.make, family, provider.name)
        if made is not None:
            yield provider.name, made
