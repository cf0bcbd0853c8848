"""What `cfs prove` looks for on a console. docs/explain/proof.md says the same in words.

A pattern is looked for in one line from which escape sequences have been taken out. What firmware, kernel and
early-boot code say of failure is bound to the beginning of a line (behind the kernel's clock), so that a kernel
argument, a unit's name or a login banner that quotes it is not taken for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_prove.report import FailureKind, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import LoaderConsole

_KERNEL = r"^(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? )?"
"""The kernel's clock and, with CONFIG_PRINTK_CALLER, the thread or processor."""

_PROGRAM = _KERNEL + r"(?:Begin: [^.]*(?:\.\.\. )?)?(?:[\w.@()-]+\[\d+\]: )?"
"""Behind it, a program whose output goes to the kernel's log or to the console; initramfs-tools' ``Begin: … ...``."""


@dataclass(frozen=True, slots=True)
class StagePattern:
    """A line that shows a stage; its groups are details."""

    stage: Stage
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class FailurePattern:
    """A line that tells of failure as long as no stage after *until* was reached."""

    kind: FailureKind
    until: Stage
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Patterns:
    """Everything to look for in one boot."""

    stages: tuple[StagePattern, ...]
    failures: tuple[FailurePattern, ...]
    harmless: tuple[re.Pattern[str], ...]
    """Lines that tell of no failure, nor of anything behind the loader."""


_STAGES = (
    (Stage.FIRMWARE, r"^BdsDxe: |^SeaBIOS \(version|\bUEFI firmware\b|\bTianoCore\b"),
    (Stage.LOADER, r'^BdsDxe: starting Boot\w+ (?!"(?:EFI Internal Shell|UEFI (?:PXE|HTTP)))'),
    (Stage.LOADER, r"^Booting from (?:Hard Disk|DVD)"),
    (Stage.KERNEL, _KERNEL + r"Linux version (\S+)"),
    (Stage.KERNEL, r"^EFI stub: |^\[ +0\.000000\](?:\[ *[TC]\d+\])? (?!Linux version)"),
    (Stage.ROOT, _PROGRAM + r"cfs-setup-root: root is composefs ([0-9a-f]{64,128}), verity (\w+)"),
    (Stage.SYSTEM, r"^.{0,64} login: "),
)

_FAILURES = (
    (FailureKind.CORRUPTED, Stage.SYSTEM, _KERNEL + r"fs-verity \([^)]*\): FILE CORRUPTED"),
    (FailureKind.PANIC, Stage.SYSTEM, _KERNEL + r"Kernel panic - not syncing"),
    (FailureKind.ROOT_REFUSED, Stage.KERNEL, _KERNEL + r"overlayfs: .*has (?:no|the wrong) fs-verity digest"),
    (
        FailureKind.ROOT_REFUSED,
        Stage.KERNEL,
        _PROGRAM + r"cfs-setup-root: (?!root is composefs|the root partition stays read-only)",
    ),
    (FailureKind.EMERGENCY, Stage.ROOT, r"^(?:You are in emergency mode|Entering emergency mode)"),
    (FailureKind.EMERGENCY, Stage.ROOT, r"^(?:Press Enter for maintenance|Give root password for maintenance)"),
    (FailureKind.REFUSED, Stage.LOADER, r"\b(?:Access Denied|Security Violation|Secure Boot violation)\b"),
    (FailureKind.NOT_BOOTABLE, Stage.LOADER, r"^(?:No bootable device|Boot failed: |BdsDxe: No bootable option)"),
    (FailureKind.NOT_BOOTABLE, Stage.LOADER, r"^BdsDxe: failed to (?:load|start)"),
    (FailureKind.NOT_BOOTABLE, Stage.LOADER, r'^(?:UEFI Interactive Shell v|Shell> ?$|.*"EFI Internal Shell")'),
)

_ECHOES = (r"\b[Cc]ommand line: ", r"\b[Uu]nknown kernel command line parameters\b")
"""Lines of the kernel with its arguments, which are anything."""

PROMPT = re.compile(r"(?: login: |> ?|\bmaintenance ?|\): ?)$")
"""How the beginning of a line ends that waits for somebody; others go on."""


def patterns_for(loaders: Iterable[LoaderConsole]) -> Patterns:
    """Return what to look for on a machine that one of *loaders* starts."""
    known = list(loaders)
    stages = [StagePattern(stage, re.compile(text)) for stage, text in _STAGES]
    stages += [StagePattern(Stage.LOADER, re.compile(text)) for loader in known for text in loader.started]
    failures = [FailurePattern(kind, until, re.compile(text)) for kind, until, text in _FAILURES]
    failures += [
        FailurePattern(FailureKind.LOADER, Stage.LOADER, re.compile(text)) for loader in known for text in loader.failed
    ]
    harmless = [*_ECHOES, *(text for loader in known for text in loader.harmless)]
    return Patterns(tuple(stages), tuple(failures), tuple(map(re.compile, harmless)))
