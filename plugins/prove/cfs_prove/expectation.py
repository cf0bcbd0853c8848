"""What a disk should do when it is started: by which loader, with which kernel arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import split_arguments
from cfs_core.plugin import CfsError, DiskError, Firmware, LoaderConsole
from cfs_prove.measured import program_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cfs_core.plugin import BootEntry, BootloaderProvider, BootMenu, DiskMenu, TargetView
    from cfs_prove.measured import BootProgram


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """``loaders`` are those whose words count on the console: the disk's, or all that are known where it is unknown.

    ``loader`` is the provider's name, None where it is unknown. ``arguments`` are those of the entry that the loader
    starts by itself, as /proc/cmdline shall show them; None where they are unknown.
    """

    loader: str | None = None
    loaders: tuple[LoaderConsole, ...] = ()
    arguments: tuple[str, ...] | None = None
    program: BootProgram | None = None
    """The unified kernel image that is started by itself; None where the disk starts none, or cannot be read."""

    notes: tuple[str, ...] = ()


def expect(
    disk: Path,
    boot_menus: Callable[[Path], Sequence[DiskMenu]],
    *,
    firmware: Firmware,
    loader: str | None = None,
    open_disk: Callable[[Path], AbstractContextManager[TargetView]] | None = None,
) -> Expectation:
    """Read what is on *disk*: its menu by the reader of *loader*, or of the one that has a menu for *firmware*.

    Where several have one, none of them is named, and the arguments are those that all agree about. With *open_disk*
    the unified kernel image that is started by itself is read, too.
    """
    try:
        menus = boot_menus(disk)
    except DiskError as error:
        return Expectation(
            loader=loader, notes=(f"kernel arguments are not compared: the disk's menu is not read: {error.message}",)
        )
    found = [each for each in menus if each.menu is not None and each.menu.entries]
    fitting = [each for each in found if firmware in each.loader.firmware]
    chosen = [each for each in menus if each.loader.name == loader] if loader else fitting
    if len(chosen) != 1:
        why = "no installed bootloader plugin reads a menu on it" if not chosen else _several(chosen)
        return Expectation(
            loader=loader,
            loaders=tuple(each.loader.console for each in menus),
            arguments=_common(chosen),
            notes=(f"which bootloader the disk was made with is unknown: {why}",),
        )
    provider = chosen[0].loader
    arguments = _common(chosen)
    program, notes = _program(disk, chosen[0].menu, open_disk)
    notes += () if arguments else (f"kernel arguments are not compared: {_silent(provider)}",)
    return Expectation(
        loader=provider.name, loaders=(provider.console,), arguments=arguments, program=program, notes=notes
    )


def _program(
    disk: Path, menu: BootMenu | None, open_disk: Callable[[Path], AbstractContextManager[TargetView]] | None
) -> tuple[BootProgram | None, tuple[str, ...]]:
    """Return the unified kernel image that *menu* starts by itself, and why it could not be read."""
    if menu is None or open_disk is None:
        return None, ()
    try:
        with open_disk(disk) as opened:
            return program_of(default_entry(menu), opened), ()
    except CfsError as cause:
        return None, (f"who signed the unified kernel image is not told: {cause.message}",)


def _several(chosen: Sequence[DiskMenu]) -> str:
    return f"{' and '.join(each.loader.name for each in chosen)} read a menu on it"


def _silent(provider: BootloaderProvider) -> str:
    return f"the menu of {provider.name} names none for the entry that it starts"


def _common(chosen: Sequence[DiskMenu]) -> tuple[str, ...] | None:
    """Return the default entry's arguments where all menus agree about them and there are any."""
    entries = [default_entry(each.menu) if each.menu is not None else None for each in chosen]
    found = {entry.arguments if entry is not None else () for entry in entries}
    return (found.pop() or None) if len(found) == 1 else None


def default_entry(menu: BootMenu) -> BootEntry | None:
    """Return the entry that is started when nobody chooses: the one for the next boot, the default, or the first."""
    for wanted in (menu.once, menu.default):
        for entry in menu.entries:
            if wanted is not None and entry.deployment_id == wanted:
                return entry
    return next(iter(menu.entries), None)


def missing_arguments(planned: Sequence[str], command_line: str) -> tuple[str, ...]:
    """Return which of *planned* the kernel's command line lacks, as a subsequence: loaders add words of their own.

    Words are compared as the kernel reads them (lib/cmdline.c: ``a="b c"`` and ``"a=b c"`` are one argument).
    """
    rest = [_as_read(word) for word in split_arguments(command_line)]
    missing = []
    for word in planned:
        wanted = _as_read(word)
        if wanted in rest:
            del rest[: rest.index(wanted) + 1]
        else:
            missing.append(word)
    return tuple(missing)


def _as_read(word: str) -> str:
    """Take the quotes away that the kernel takes away: around a word, or around what follows its first ``=``."""
    quoted = word.startswith('"')
    if quoted:
        word = word[1:]
    key, equals, value = word.partition("=")
    if equals and value.startswith('"'):
        value, quoted = value[1:], True
    word = key + equals + value
    return word.removesuffix('"') if quoted else word
