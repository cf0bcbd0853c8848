"""What a serial console says of a boot: stages reached and failures, found by pattern while it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeVar

from cfs_prove.report import Failure, FailureKind, Stage

TAIL_LINES = 25
LINE_LIMIT = 300
LONGEST_LINE = 4096
FINDINGS = 12

STAGES = (
    (Stage.FIRMWARE, rb"BdsDxe: |SeaBIOS \(version|UEFI firmware|TianoCore"),
    (
        Stage.LOADER,
        rb"BdsDxe: starting Boot\w+|GRUB loading|Welcome to GRUB|GNU GRUB|systemd-boot|Booting from (?:Hard Disk|DVD)",
    ),
    (Stage.KERNEL, rb"Linux version (\S+)|EFI stub: |\[    0\.000000\] (?!Linux version)"),
    (Stage.ROOT, rb"cfs-setup-root: root is composefs ([0-9a-f]{64,128}), verity (\w+)"),
    (Stage.SYSTEM, rb"(?m)^[^\r\n]{0,64} login: "),
)

FAILURES = tuple(
    (kind, pattern + rb"[^\r\n]*")
    for kind, pattern in (
        (FailureKind.CORRUPTED, rb"fs-verity \([^)]*\): FILE CORRUPTED"),
        (FailureKind.ROOT_REFUSED, rb"overlayfs: [^\r\n]*has (?:no|the wrong) fs-verity digest"),
        (FailureKind.ROOT_REFUSED, rb"cfs-setup-root: (?!root is composefs|the root partition stays read-only)"),
        (FailureKind.PANIC, rb"Kernel panic - not syncing"),
        (FailureKind.EMERGENCY, rb"(?:You are in emergency mode|Entering emergency mode|Press Enter for maintenance)"),
        (FailureKind.EMERGENCY, rb"Give root password for maintenance"),
        (FailureKind.REFUSED, rb"(?:BdsDxe: [^\r\n]*)?(?:Access Denied|Security Violation|Secure Boot violation)"),
        (
            FailureKind.NOT_BOOTABLE,
            rb"(?:No bootable device|BdsDxe: No bootable option|BdsDxe: failed to (?:load|start))",
        ),
        (FailureKind.NOT_BOOTABLE, rb"(?:UEFI Interactive Shell v|BdsDxe: starting Boot\w+ \"EFI Internal Shell\")"),
        (FailureKind.LOADER, rb"(?:Error loading \\|Error opening root path|Failed to open kernel|grub rescue>)"),
        (FailureKind.LOADER, rb"(?:error: [^\r\n]*not found|Unable to locate|invalid magic number)"),
    )
)

PROMPT_STAGES = ((Stage.SYSTEM, rb"^[^\r\n]{0,64} login: "),)
PROMPT_FAILURES = (
    (FailureKind.EMERGENCY, rb"Press Enter for maintenance|Give root password for maintenance"),
    (FailureKind.LOADER, rb"grub rescue>"),
    (FailureKind.NOT_BOOTABLE, rb"^Shell>"),
)

Key = TypeVar("Key")
Patterns = tuple[tuple[Key, bytes], ...]

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


@dataclass(slots=True)
class ConsoleWatch:
    """Stages and the first failure seen so far. Feed it what the console wrote, in order."""

    reached: dict[Stage, float] = field(default_factory=dict)
    details: dict[Stage, tuple[str, ...]] = field(default_factory=dict)
    failure: Failure | None = None
    failed_at: float | None = None
    last_at: float = 0.0
    bytes_seen: int = 0
    _line: bytes = b""

    def feed(self, data: bytes, seconds: float) -> None:
        """Take *data*, seen *seconds* after the start."""
        if not data:
            return
        self.bytes_seen += len(data)
        self.last_at = seconds
        text = self._line + data
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        # half a line says half of it, but for prompts, which no line end follows
        self._look(text[:end], STAGES, FAILURES, seconds)
        self._line = text[end:][-LONGEST_LINE:]
        self._look(self._line, PROMPT_STAGES, PROMPT_FAILURES, seconds)

    def _look(self, text: bytes, stages: Patterns[Stage], failures: Patterns[FailureKind], seconds: float) -> None:
        for stage, pattern in stages:
            if stage not in self.reached and (found := re.search(pattern, text)):
                self.reached[stage] = seconds
                self.details[stage] = tuple((group or b"").decode("ascii", "replace") for group in found.groups())
        if self.failure is not None:
            return
        first = min(
            ((found.start(), kind, found) for kind, pattern in failures if (found := re.search(pattern, text))),
            key=lambda item: item[0],
            default=None,
        )
        if first is not None:
            self.failure = Failure(first[1], clean(first[2].group(0))[:LINE_LIMIT])
            self.failed_at = seconds


def findings(data: bytes) -> tuple[str, ...]:
    """Return everything in a whole console's output that tells of failure: each once, in order, at most 12."""
    found = [
        (match.start(), clean(match.group(0))[:LINE_LIMIT]) for _, text in FAILURES for match in re.finditer(text, data)
    ]
    return tuple(list(dict.fromkeys(line for _, line in sorted(found)))[:FINDINGS])


def clean(data: bytes) -> str:
    """Return console output as text: no escape sequences, no carriage returns."""
    text = ESCAPES.sub("", data.decode("utf-8", "replace")).replace("\r", "")
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def last_lines(data: bytes, count: int = TAIL_LINES) -> tuple[str, ...]:
    """Return the last *count* lines that say something, shortened to 300 characters."""
    lines = [line.rstrip()[:LINE_LIMIT] for line in clean(data[-64 * 1024 :]).splitlines()]
    return tuple([line for line in lines if line][-count:])
