"""Turning a wanted menu into actions."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.action import Action
    from cfs_core.model.boot import Architecture, BootArtifacts, BootMenu, Firmware
    from cfs_core.model.disk import Volume, VolumeNeed
    from cfs_core.model.plan import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderConsole:
    """What a loader writes to a serial console, as regular expressions (`re`).

    Each is looked for in one line at a time, from which escape sequences have been taken out (a move of the cursor ends
    a line). What a loader says counts until the kernel speaks, so none needs to exclude what a kernel or a system
    writes; but a loader that shows kernel arguments says which lines those are (``harmless``), since they are anything.
    """

    name: str = ""
    """As the loader calls itself, on the console and in the EFI variable LoaderInfo, without a version."""

    started: tuple[str, ...] = ()
    """It runs."""

    failed: tuple[str, ...] = ()
    """It gives up, or asks for somebody."""

    harmless: tuple[str, ...] = ()
    """Lines that mean no failure, whatever they look like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFacts:
    """What a bootloader may know.

    ``image`` gives loader binaries, ``artifacts`` the kernel that will be offered; both are None when only the menu of
    an installed machine changes.
    """

    architecture: Architecture
    """Of the image that is installed."""

    firmware: frozenset[Firmware]
    """What has to start the disk: one, or UEFI and BIOS (``--firmware both``)."""

    image: TreeReader | None = None
    """The image's tree."""

    artifacts: BootArtifacts | None = None
    """The kernel that will be offered."""

    root_filesystem: str = ""
    """Name of the root filesystem's type (``ext4``)."""

    root_path: str = "/"
    """Where the root volume's ``/`` is inside its filesystem: ``/@`` for a btrfs subvolume of that name."""

    volumes: frozenset[Volume] = frozenset()
    """Volumes that exist or were asked for (a separate BOOT, XBOOTLDR), besides those that `needs` will ask for."""

    generic: bool = True
    """True when the disk may boot on another machine: removable-media paths, no EFI variables."""

    seed: str = ""
    """Source of identifiers that must be reproducible."""


class Bootloader(abc.ABC):
    """A bootloader as pure functions: reads through facts and target, returns actions, writes nothing itself."""

    @abc.abstractmethod
    def needs(self, facts: BootFacts) -> Sequence[VolumeNeed]:
        """Return volumes this loader needs, and bytes on each for itself and for **one** deployment's boot files.

        Core refuses actions elsewhere. Besides these volumes a loader may use those in ``facts.volumes`` and, for BIOS,
        the boot code of DISK; of ROOT only ``/boot``.
        """

    @abc.abstractmethod
    def check(self, facts: BootFacts) -> Sequence[Finding]:
        """Return what keeps this loader from booting this image: missing binaries, unfit firmware or filesystem."""

    @abc.abstractmethod
    def plan_install(self, target: TargetView, facts: BootFacts) -> Sequence[Action]:
        """Put the loader itself on the target; no menu entry yet.

        On a machine that runs, `cfs upgrade` plans it again with the new image and does what differs from what is
        there. Commands and raw blocks are done there only if a file of the plan differs, in the order of the plan: let
        a file, the last one, say what they were made of, and let them leave whole what starts until then.
        """

    @abc.abstractmethod
    def read_menu(self, target: TargetView) -> BootMenu:
        """Read what the target offers now, best first, in the order the loader will show; foreign ones marked."""

    @abc.abstractmethod
    def plan_menu(self, target: TargetView, current: BootMenu, wanted: BootMenu, facts: BootFacts) -> Sequence[Action]:
        """Turn *current* into *wanted*. After every single action the target's default must be a complete entry.

        It must be the default of *current* or that of *wanted*, too: names that move to other entries need care.
        Entries of *wanted* with ``artifacts`` are written; those without are on the target already and keep their files
        and whatever their entry says besides order, arguments and tries. Foreign entries are kept even if *wanted*
        omits them. *current* is enough for a loader whose files say no more than a menu; one that keeps more of what it
        finds reads *target* again. *target* may be empty still (a disk that is only planned): what `plan_install` will
        write need not be there.

        Raises:
            BootError: this loader cannot express *wanted* on this target; the message says what.
        """

    def installed_version(self, target: TargetView, facts: BootFacts) -> str | None:
        """Return the version of this loader that *target* has, as its files say; None where they do not.

        For people: `cfs status` shows it, and nothing is decided by it.
        """
        del target, facts
        return None

    def offered_version(self, facts: BootFacts) -> str | None:
        """Return the version of this loader in ``facts.image``, None where its files do not say."""
        del facts
        return None
