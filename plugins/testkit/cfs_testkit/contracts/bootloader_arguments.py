"""Checks of kernel arguments: every letter, alone and beside every other, reaches the kernel or is refused."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import BootError, BootFacts, Bootloader, EntryKind
from cfs_testkit.contracts.base import optional
from cfs_testkit.contracts.bootloader_setting import BootloaderSetting
from cfs_testkit.trees import ID_LENGTH, deployment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.testing import MemoryTarget

LETTERS = "".join(map(chr, range(0x21, 0x7F)))
"""Printable ASCII without the space."""

SPLITTING = " \t\n\r\v\f\0\x7f"
"""What cannot be part of an argument without quotes: the kernel, or a menu of lines, would split it."""

USUAL = (
    "root=UUID=01234567-89ab-cdef-0123-456789abcdef",
    "rw",
    "rootflags=subvol=@",
    "console=ttyS0,115200n8",
    "init=/usr/lib/systemd/systemd",
    "systemd.mask=a.service",
    "rd.luks.options=discard",
    "module_blacklist=a,b",
    "resume=LABEL=swap",
)
"""Arguments as machines have them."""

LAST = "cfst.last=1"
"""Comes after the argument in question: what ends a line, or opens a comment or a quote, takes it away."""


def starts_kernels(provider: Any) -> bool:
    """Return whether a provider starts kernels, whose arguments are not sealed."""
    return EntryKind.BLS in provider.entries


class ArgumentChecks(BootloaderSetting):
    """Arguments arrive as they are, or are refused."""

    @optional(starts_kernels, "entries of kind bls")
    def test_usual_arguments_arrive(self, made: Bootloader, disk: MemoryTarget, facts: BootFacts) -> None:
        """What every machine has on its command line comes back, each argument by itself and all together."""
        for given in (USUAL, *((argument,) for argument in USUAL)):
            assert self.passes(made, disk, facts, given), f"{given} is refused"

    @optional(starts_kernels, "entries of kind bls")
    def test_every_letter_of_an_argument_arrives(self, made: Bootloader, disk: MemoryTarget, facts: BootFacts) -> None:
        """Every printable character, at the start, inside and at the end of an argument, in quotes, or refused."""
        refused = []
        for letter in LETTERS:
            forms = (letter, f"{letter}x", f"a=x{letter}", f"a={letter}y", f'a="x {letter}"', f'a="{letter} y"')
            refused += [form for form in forms if not self.passes(made, disk, facts, [form])]
        kept = [letter for letter in LETTERS if letter.isalnum() and f"a=x{letter}" in refused]
        assert not kept, f"arguments with {kept} are refused: no kernel could be told anything"
        for letter in SPLITTING:
            assert not self.passes(made, disk, facts, [f"a=x{letter}y"]), f"{letter!r} splits an argument, and passes"

    @optional(starts_kernels, "entries of kind bls")
    def test_every_pair_of_letters_arrives(self, made: Bootloader, disk: MemoryTarget, facts: BootFacts) -> None:
        """Every two printable characters beside each other; what passes alone may mean something together."""
        alone = [letter for letter in LETTERS if self.passes(made, disk, facts, [f"a=x{letter}y"])]
        for first in alone:
            self.halved(made, disk, facts, [f"k{number}={first}{second}" for number, second in enumerate(alone)])

    def passes(self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, arguments: Sequence[str]) -> bool:
        """Return whether *arguments*, with one more after them, are not refused; if so, check that they arrive."""
        state = disk.copy()
        words = ("composefs=" + "a" * ID_LENGTH, *arguments, LAST)
        try:
            self.change(made, state, facts, [dataclasses.replace(deployment("a"), arguments=words)])
        except BootError:
            return False
        self.arrive(made, state, words)
        return True

    def halved(self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, arguments: list[str]) -> None:
        """Check *arguments* together; where some are refused, the others without them."""
        if arguments and not self.passes(made, disk, facts, arguments) and len(arguments) > 1:
            middle = len(arguments) // 2
            self.halved(made, disk, facts, arguments[:middle])
            self.halved(made, disk, facts, arguments[middle:])
