"""What a boot showed."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfs_prove.measured import Pcr


class Stage(enum.StrEnum):
    """Steps of a boot, in their order."""

    FIRMWARE = "firmware"
    LOADER = "loader"
    KERNEL = "kernel"
    ROOT = "root"
    SYSTEM = "system"


class Accelerator(enum.StrEnum):
    """What runs the machine's processor."""

    AUTO = "auto"
    """KVM where it works, else emulation; no machine runs with it."""

    KVM = "kvm"
    TCG = "tcg"
    """QEMU's emulation."""


class FailureKind(enum.StrEnum):
    """What stopped a boot, or kept it from being a proof."""

    NOT_BOOTABLE = "not-bootable"
    LOADER = "loader"
    REFUSED = "refused"
    PANIC = "panic"
    ROOT_REFUSED = "root-refused"
    EMERGENCY = "emergency"
    CORRUPTED = "file-corrupted"
    NOT_COMPOSEFS = "not-composefs"
    NO_VERITY = "verity-not-required"
    ARGUMENTS = "arguments-differ"
    SYSTEM_STATE = "system-state"
    UNPROVEN = "unproven"
    RESET = "reset"
    TIMEOUT = "timeout"
    QEMU = "qemu"

    @property
    def is_final(self) -> bool:
        """Whether no later stage takes it back, nor a report that was complete before."""
        return self in {FailureKind.PANIC, FailureKind.CORRUPTED}


@dataclass(frozen=True, slots=True)
class Failure:
    """``message`` says what was seen, ``hint`` what to do if that is no look at the console."""

    kind: FailureKind
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class StageReport:
    """``seconds`` since the machine was started, None where the stage was not reached or left no trace of when."""

    stage: Stage
    reached: bool
    seconds: float | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RootFacts:
    """The mounted root: what mountinfo says of ``/``. ``image_id`` is the hex digest in a composefs mount's source."""

    filesystem: str
    source: str
    options: str
    image_id: str | None
    verity_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofReport:
    """The result of one boot.

    ``evidence`` says who told: a unit inside the system (``reporter``), or only its ``console``. ``bootloader`` is the
    one the disk was made with, ``loader`` what called itself that when it was started (LoaderInfo). ``arguments`` are
    those of the entry that is started by itself, ``command_line`` what the kernel got; each None where it is unknown.
    ``findings`` are the console's lines that tell of failure. ``secure_boot`` and ``setup_mode`` are what variables of
    the firmware say, None where there are none; ``signed_by`` are the signers of the unified kernel image that was to
    be started, and ``pcr11`` what a TPM has measured of it, None where the disk starts none.
    """

    disk: str
    firmware: str
    architecture: str
    accelerator: str
    qemu_version: str
    seconds: float
    evidence: str
    stages: tuple[StageReport, ...]
    root: RootFacts | None
    system_state: str | None
    failed_units: tuple[str, ...]
    os_name: str | None
    kernel: str | None
    bootloader: str | None
    loader: str | None
    arguments: tuple[str, ...] | None
    command_line: str | None
    secure_boot: bool | None
    setup_mode: bool | None
    signed_by: tuple[str, ...]
    pcr11: Pcr | None
    kernel_log: tuple[str, ...]
    notes: tuple[str, ...]
    failure: Failure | None
    findings: tuple[str, ...]
    console_tail: tuple[str, ...]

    @property
    def proven(self) -> bool:
        """Whether everything was seen: loader, kernel, composefs root with verity required, a system that came up."""
        return self.failure is None

    def stage(self, stage: Stage) -> StageReport:
        """Return one stage."""
        return next(item for item in self.stages if item.stage == stage)

    def as_json(self) -> dict[str, Any]:
        """Return what ``--format json`` prints; the console's end only where the boot failed."""
        facts = dataclasses.asdict(self)
        facts["proven"] = self.proven
        if self.proven:
            del facts["console_tail"]
        return facts
