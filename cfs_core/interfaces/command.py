"""Commands that plugins bring, and what they may use."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cfs_core.interfaces.context import PluginContext
from cfs_core.interfaces.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import click

    from cfs_core.interfaces.provider import BootloaderProvider
    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.boot import BootMenu


class OutputFormat(enum.StrEnum):
    """Who reads a command's result."""

    TEXT = "text"
    """People."""

    JSON = "json"
    """Programs."""


class Output(Protocol):
    """Where a command says its result. What else it prints to standard output goes to standard error."""

    @property
    def format(self) -> OutputFormat:
        """What ``--format`` asks for; known once the command runs."""

    def say(self, text: str) -> None:
        """Print a line of a result in text; what a terminal would obey in it is shown instead."""

    def show(self, value: object) -> None:
        """Print the result as the one JSON document."""

    def tell(self, text: str) -> None:
        """Print a line about what is going on to standard error; nothing where programs read the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskMenu:
    """What one installed bootloader's reader found on a disk image; ``menu`` is None where it cannot read it."""

    loader: BootloaderProvider
    """Whose reader it is."""

    menu: BootMenu | None
    """What the disk offers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext(PluginContext):
    """What a command may use besides: its output, and core's eyes."""

    output: Output
    """Where results go."""

    boot_menus: Callable[[Path], Sequence[DiskMenu]]
    """Reads the boot menus of a disk image, with every installed bootloader's reader; raises DiskError where no
    installed layout can read the disk."""

    open_disk: Callable[[Path], AbstractContextManager[TargetView]]
    """Opens a disk image to read its files; raises DiskError where no installed layout can read the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandProvider(Provider["click.Command"]):
    """A command mounted as ``cfs NAME``; the factory gets a `CommandContext` and returns a click command.

    A name with a space (``repo fsck``) goes into that group; core's own commands cannot be replaced. The command's
    settings are the table ``[command.NAME]``.
    """

    factory: Callable[[CommandContext], click.Command] = field()  # type: ignore[assignment]  # it gets more than others
    """Makes the command."""

    has_result: bool = False
    """Core adds ``--format text|json``, and the command says its result by `CommandContext.output`."""
