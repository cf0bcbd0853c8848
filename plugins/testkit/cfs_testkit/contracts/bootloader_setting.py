"""What the checks of bootloaders share: facts, disks, menus."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cfs_core.plugin import (
    Action,
    Architecture,
    BootArtifacts,
    BootEntry,
    BootFacts,
    Bootloader,
    BootMenu,
    BytesContent,
    Content,
    CopyObject,
    EntryKind,
    ExchangePaths,
    Location,
    RenamePath,
    RunCommand,
    Volume,
    WriteBlocks,
    read_all,
)
from cfs_core.testing import MemoryTarget, families
from cfs_testkit.contracts.base import Contract
from cfs_testkit.disks import partitions_for
from cfs_testkit.trees import deployment, image_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class BootloaderSetting(Contract):
    """Facts of a fit image, a disk with the loader installed, and ways to change its menu."""

    family = families.BOOTLOADERS

    architecture: ClassVar[Architecture] = Architecture.AMD64
    image_files: ClassVar[Mapping[str, str | bytes]] = {}
    """Files of an image that this loader can be installed from, by absolute path."""

    foreign: ClassVar[Mapping[Location, bytes]] = {}
    """Files of a boot menu entry that somebody else made, with everything it needs."""

    shared_files: ClassVar[frozenset[Location]] = frozenset()
    """Those of `foreign` in which this loader's own entries live too; the others must stay as they are.

    Their lines must stay in order, and the whole file come back when no entry of ours is wanted any more.
    """

    extra_volumes: ClassVar[frozenset[Volume]] = frozenset()
    """Volumes that exist besides those the loader asks for: a separate BOOT or XBOOTLDR."""

    def image_files_for(self, architecture: Architecture) -> Mapping[str, str | bytes]:
        """Return the files of an image for *architecture*; override this where they can be given for several."""
        return self.image_files if architecture is self.architecture else {}

    def as_the_loader_reads(self, disk: MemoryTarget) -> Sequence[Sequence[str]] | None:
        """Return the kernel arguments of each entry, in the order shown, as the loader itself would hand them over.

        Override this with a reader that shares nothing with the plugin's own, or with the real loader: what writer and
        reader of a plugin get wrong alike is seen by nothing else. None: there is no such reader.
        """
        del disk
        return None

    def arrive(self, made: Bootloader, disk: MemoryTarget, wanted: Sequence[str]) -> None:
        """Check that the only entry of ours has the kernel arguments *wanted*, read by whatever reads them."""
        (found,) = self.own(made, disk)
        assert found.arguments == tuple(wanted)
        read = self.as_the_loader_reads(disk)
        if read is not None:
            handed_over = iter(read[[entry.foreign for entry in made.read_menu(disk).entries].index(False)])
            lost = [word for word in wanted if word not in handed_over]  # the loader may add its own
            assert not lost, f"the loader does not hand over {lost[0]!r}"

    @pytest.fixture
    def facts(self, offered: Any) -> BootFacts:
        """What an install of a fit image says."""
        return self.facts_of(offered, self.image_files)

    def facts_of(self, offered: Any, files: Mapping[str, str | bytes], **more: Any) -> BootFacts:
        """Return the facts of an image with these files."""
        kind = min(offered.entries)
        values: dict[str, Any] = {
            "architecture": self.architecture,
            "firmware": offered.firmware,
            "image": image_of(files),
            "artifacts": deployment("a", kind).artifacts,
            "root_filesystem": "ext4",
            "volumes": self.extra_volumes,
            "seed": "testkit",
        }
        return BootFacts(**(values | more))

    @pytest.fixture(params=list(EntryKind), ids=lambda kind: kind.value)
    def kind(self, request: pytest.FixtureRequest, offered: Any) -> EntryKind:
        """Each kind of entry that the loader declares."""
        kind: EntryKind = request.param
        if kind not in offered.entries:
            pytest.skip(f"not declared: entries of kind {kind}")
        return kind

    @pytest.fixture
    def disk(self, made: Bootloader, facts: BootFacts) -> MemoryTarget:
        """A disk with the loader and no entries."""
        disk = self.empty_disk(made, facts)
        for action in made.plan_install(disk, facts):
            disk.apply(action)
        return disk

    def empty_disk(self, made: Bootloader, facts: BootFacts) -> MemoryTarget:
        """Return a disk with the volumes that were asked for, and nothing on them."""
        needs = {need.volume: need.filesystems for need in made.needs(facts)}
        return MemoryTarget(partitions_for({**dict.fromkeys(facts.volumes, ("vfat",)), **needs}, facts.root_filesystem))

    def plan(
        self,
        made: Bootloader,
        disk: MemoryTarget,
        facts: BootFacts,
        entries: Sequence[BootEntry],
        **more: Any,
    ) -> list[Action]:
        """Return the actions that make *entries* the menu."""
        wanted = BootMenu(entries=tuple(entries), **more)
        return list(made.plan_menu(disk, made.read_menu(disk), wanted, facts))

    def change(
        self,
        made: Bootloader,
        disk: MemoryTarget,
        facts: BootFacts,
        entries: Sequence[BootEntry],
        **more: Any,
    ) -> BootMenu:
        """Make *entries* the menu, and return what is read then."""
        for action in self.plan(made, disk, facts, entries, **more):
            disk.apply(action)
        return made.read_menu(disk)

    def own(self, made: Bootloader, disk: MemoryTarget) -> tuple[BootEntry, ...]:
        """Return the entries that are not foreign."""
        return tuple(entry for entry in made.read_menu(disk).entries if not entry.foreign)

    def shown(self, made: Bootloader, disk: MemoryTarget) -> str:
        """Return the first letters of our entries, in the order shown."""
        return "".join(entry.deployment_id[:1] for entry in self.own(made, disk))

    def wanted(
        self, made: Bootloader, disk: MemoryTarget, letters: str, kind: EntryKind, *, shared: bool = False
    ) -> list[BootEntry]:
        """Return entries for *letters*: those on the disk as they are there, the others to be written."""
        there = {entry.deployment_id[0]: entry for entry in self.own(made, disk)}
        return [
            there.get(letter) or deployment(letter, kind, kernel="shared" if shared else None) for letter in letters
        ]

    def default(self, made: Bootloader, disk: MemoryTarget) -> BootEntry | None:
        """Return what starts by itself."""
        menu = made.read_menu(disk)
        if menu.default is not None:
            return next((entry for entry in menu.entries if entry.deployment_id == menu.default), None)
        return menu.entries[0] if menu.entries else None

    def missing(self, disk: MemoryTarget, entry: BootEntry) -> str | None:
        """Return what is missing for *entry* to boot, None if nothing."""
        if not entry.files:
            return f"{entry.title} names no files"
        for location in entry.files:
            if not disk.exists(location):
                return f"{entry.title} needs {location}, which is not there"
        if entry.foreign:
            return None
        found = {disk.read(location) for location in entry.files}
        for kernel in (entry.deployment_id[0], "shared"):
            artifacts = deployment(entry.deployment_id[0], entry.kind, kernel=kernel).artifacts
            if artifacts is not None and {read_all(content) for content in contents(artifacts)} <= found:
                return None
        return f"{entry.title} does not have the bytes of its kernel in {', '.join(map(str, entry.files))}"

    def are_well_formed(self, actions: Iterable[Action], allowed: Iterable[Volume]) -> None:
        """Check reasons, paths and volumes of actions."""
        for action in actions:
            assert action.why.strip(), f"{action} has no reason (why)"
            for location in locations(action):
                parts = location.path.split("/")
                assert not parts[0], f"{location} is not absolute"
                assert not {".", ".."} & set(parts), f"{location} is not normalised"
                raw = isinstance(action, WriteBlocks) or location.volume in {Volume.BIOS_BOOT, Volume.DISK}
                assert location.volume in allowed or isinstance(action, WriteBlocks), (
                    f"{location} is on a volume that was not asked for"
                )
                assert location.path != "/" or raw, f"{type(action).__name__} of a whole volume: {location}"


def locations(action: Action) -> list[Location]:
    """Return every place that *action* reads or writes."""
    if isinstance(action, RenamePath):
        return [action.source, action.location]
    if isinstance(action, ExchangePaths):
        return [action.a, action.b]
    if isinstance(action, RunCommand):
        return [*action.reads, *action.writes]
    location = getattr(action, "location", None)
    return [location] if location is not None else []


def told(actions: Iterable[Action]) -> list[object]:
    """Return actions in a form that compares by content."""
    return [(type(a).__name__, a.location, read_all(a.source)) if isinstance(a, CopyObject) else a for a in actions]


def contents(artifacts: BootArtifacts | None) -> list[Content]:
    """Return the boot files of a deployment."""
    assert artifacts is not None
    return [content for content in (artifacts.kernel, artifacts.initrd, artifacts.uki) if content is not None]


def heavier(artifacts: BootArtifacts | None, kind: EntryKind, size: int) -> BootArtifacts:
    """Return the same artifacts with a kernel of *size* bytes."""
    assert artifacts is not None
    content = BytesContent(bytes(size))
    if kind is EntryKind.UKI:
        return dataclasses.replace(artifacts, uki=content)
    return dataclasses.replace(artifacts, kernel=content)
