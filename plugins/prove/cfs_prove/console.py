"""Watches a serial console: stages reached and failures, found line by line while it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_prove.patterns import PROMPT, Patterns, patterns_for
from cfs_prove.report import Failure, FailureKind, Stage
from cfs_prove.text import LINE_LIMIT, clean

if TYPE_CHECKING:
    from cfs_prove.patterns import FailurePattern

LONGEST_LINE = 4096
"""Bytes after which a line is taken to be over."""

FINDINGS = 12
ORDER = {stage: number for number, stage in enumerate(Stage)}


@dataclass(slots=True)
class ConsoleWatch:
    """What the console has shown so far. Feed it what the console wrote, in order.

    ``failure`` is the first sign of failure that no later stage took back. ``overtaken`` are signs that one did, or
    that came when the system's own report was complete already. ``after_report`` is what such a report does not
    outweigh: a panic or a corrupted file.
    """

    patterns: Patterns = field(default_factory=lambda: patterns_for(()))
    reached: dict[Stage, float] = field(default_factory=dict)
    details: dict[Stage, tuple[str, ...]] = field(default_factory=dict)
    failure: Failure | None = None
    overtaken: list[str] = field(default_factory=list)
    after_report: Failure | None = None
    corrupted: Failure | None = None
    """The first corrupted file that the kernel named, whatever happened then."""

    findings: list[str] = field(default_factory=list)
    """Lines that tell of failure, each once, in order, at most 12."""

    last_at: float = 0.0
    bytes_seen: int = 0
    _at: Stage | None = None
    _reported: bool = False
    _begun: bytes = b""

    def feed(self, data: bytes, seconds: float) -> None:
        """Take *data*, seen *seconds* after the start."""
        if not data:
            return
        self.bytes_seen += len(data)
        self.last_at = seconds
        written = self._begun + data
        end = max(written.rfind(b"\n"), written.rfind(b"\r")) + 1
        if len(written) - end > LONGEST_LINE:
            end = len(written)
        for line in clean(written[:end]).splitlines():
            self._look(line, seconds)
        self._begun = written[end:]
        begun = clean(self._begun).rpartition("\n")[2]
        if PROMPT.search(begun):  # other halves of lines say half of it
            self._look(begun, seconds)

    def report_is_complete(self) -> None:
        """Take note that the system has reported: what is fed from now on came after that."""
        self._reported = True

    def _look(self, line: str, seconds: float) -> None:
        if not line.strip():
            return
        harmless = any(pattern.search(line) for pattern in self.patterns.harmless)
        for stage in self.patterns.stages:
            if stage.stage in self.reached or (harmless and stage.stage is not Stage.LOADER):
                continue
            found = stage.pattern.search(line)
            if found is not None:
                self._reach(stage.stage, tuple(group or "" for group in found.groups()), seconds)
        if harmless:
            return
        for failure in self.patterns.failures:
            found = failure.pattern.search(line)
            if found is not None:
                self._fail(failure, line[found.start() :].strip()[:LINE_LIMIT])
                return

    def _reach(self, stage: Stage, details: tuple[str, ...], seconds: float) -> None:
        self.reached[stage] = seconds
        self.details[stage] = details
        if self._at is not None and ORDER[stage] <= ORDER[self._at]:
            return
        self._at = stage
        if self.failure is not None and not self.failure.kind.is_final:
            self._overtake(self.failure.message)
            self.failure = None

    def _fail(self, pattern: FailurePattern, message: str) -> None:
        if message not in self.findings and len(self.findings) < FINDINGS:
            self.findings.append(message)
        failure = Failure(pattern.kind, message)
        if pattern.kind is FailureKind.CORRUPTED:
            self.corrupted = self.corrupted or failure
        if self._reported:
            if pattern.kind.is_final:
                self.after_report = self.after_report or failure
            else:
                self._overtake(message)
            return
        if self._at is not None and ORDER[self._at] > ORDER[pattern.until]:
            self._overtake(message)
        elif self.failure is None:
            self.failure = failure

    def _overtake(self, message: str) -> None:
        if message not in self.overtaken and len(self.overtaken) < FINDINGS:
            self.overtaken.append(message)
