"""The contract of disk layouts: volumes where they belong, tables that survive and damage that is found."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import pytest

from cfs_core.plugin import (
    Architecture,
    CfsError,
    DiskError,
    DiskLayout,
    LayoutRequest,
    Partition,
    RefusedError,
    Volume,
    VolumeNeed,
)
from cfs_core.testing import families
from cfs_testkit.compare import file_difference
from cfs_testkit.contracts.base import Contract

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1 << 20
SECTOR = 512
FILL = b"\xa5"


class LayoutContract(Contract):
    """What a disk layout must do."""

    family = families.LAYOUTS

    architecture: ClassVar[Architecture] = Architecture.AMD64
    """The architecture that disks are made for."""

    needs: ClassVar[tuple[VolumeNeed, ...]] = (
        VolumeNeed(volume=Volume.ESP, bytes_needed=40 * MEBIBYTE, filesystems=("vfat",), why="loader and kernels"),
        VolumeNeed(volume=Volume.BIOS_BOOT, bytes_needed=900_000, why="core image"),
    )
    """What a bootloader asks for, besides the root volume."""

    @pytest.fixture
    def layout_request(self) -> LayoutRequest:
        """A disk as small as is sensible, for 100 MiB of root."""
        return LayoutRequest(
            needs=self.needs,
            architecture=self.architecture,
            root_filesystem="ext4",
            root_size=100 * MEBIBYTE,
            seed="testkit",
        )

    @pytest.fixture
    def disk(
        self, made: DiskLayout, layout_request: LayoutRequest, tmp_path: Path
    ) -> tuple[Path, tuple[Partition, ...]]:
        """A disk file with a table, and the partitions in it."""
        partitions = made.plan(layout_request)
        path = tmp_path / "disk.raw"
        with path.open("wb") as file:
            file.truncate(made.disk_bytes(partitions))
        made.write(path, partitions, seed="testkit")
        return path, partitions

    # --- planning -----------------------------------------------------------------------------

    def test_every_need_is_met(self, made: DiskLayout, layout_request: LayoutRequest) -> None:
        """Each volume has one partition that is large enough, and there is a root volume."""
        partitions = made.plan(layout_request)
        by_volume = {partition.volume: partition for partition in partitions}
        assert len(by_volume) == len(partitions)
        assert set(by_volume) == {need.volume for need in self.needs} | {Volume.ROOT}
        for need in self.needs:
            assert by_volume[need.volume].size >= need.bytes_needed, need.volume
        assert by_volume[Volume.ROOT].size >= 100 * MEBIBYTE

    def test_filesystems_are_those_asked_for(self, made: DiskLayout, layout_request: LayoutRequest) -> None:
        """A partition gets an acceptable filesystem; raw volumes get none."""
        by_volume = {partition.volume: partition for partition in made.plan(layout_request)}
        assert by_volume[Volume.ROOT].filesystem == "ext4"
        for need in self.needs:
            found = by_volume[need.volume].filesystem
            assert found in need.filesystems if need.filesystems else found is None

    def test_partitions_do_not_overlap(self, made: DiskLayout, layout_request: LayoutRequest) -> None:
        """Partitions are apart, aligned to 1 MiB, and inside of the disk with room for both tables."""
        partitions = sorted(made.plan(layout_request), key=lambda partition: partition.start)
        end = 34 * SECTOR
        for partition in partitions:
            assert partition.start >= end, f"{partition.name} starts inside of what is before it"
            assert partition.start % MEBIBYTE == 0, f"{partition.name} is not aligned"
            assert partition.size > 0
            assert partition.size % SECTOR == 0
            end = partition.start + partition.size
        assert end <= made.disk_bytes(partitions)
        assert len({partition.number for partition in partitions}) == len(partitions)

    def test_the_seed_decides_all_identifiers(self, made: DiskLayout, layout_request: LayoutRequest) -> None:
        """The same seed gives the same partitions, another seed other identifiers; no identifier is used twice."""
        partitions = made.plan(layout_request)
        assert made.plan(layout_request) == partitions
        other = made.plan(dataclasses.replace(layout_request, seed="another"))
        for one, two in zip(partitions, other, strict=True):
            assert one.uuid != two.uuid
            assert (one.start, one.size, one.type_guid) == (two.start, two.size, two.type_guid)
        assert len({partition.uuid.lower() for partition in partitions}) == len(partitions)

    def test_a_given_disk_is_filled(self, made: DiskLayout, layout_request: LayoutRequest) -> None:
        """On a disk of a given size nothing reaches beyond it, and root takes what is left."""
        size = 3000 * MEBIBYTE
        small = {p.volume: p for p in made.plan(layout_request)}
        partitions = made.plan(dataclasses.replace(layout_request, disk_size=size, root_size=None))
        assert made.disk_bytes(partitions) <= size
        root = next(partition for partition in partitions if partition.volume is Volume.ROOT)
        rest = sum(small[need.volume].size for need in self.needs)
        assert root.size >= size - rest - 64 * MEBIBYTE

    def test_what_does_not_fit_is_refused(self, made: DiskLayout, layout_request: LayoutRequest) -> None:
        """A disk that is too small is RefusedError before anything is written."""
        with pytest.raises(RefusedError):
            made.plan(dataclasses.replace(layout_request, disk_size=60 * MEBIBYTE))

    # --- writing and reading ------------------------------------------------------------------

    def test_what_was_written_is_read(self, made: DiskLayout, disk: tuple[Path, tuple[Partition, ...]]) -> None:
        """Partitions come back: number, volume, place, type, identifier."""
        path, partitions = disk

        def told(partition: Partition) -> tuple[object, ...]:
            place = (partition.number, partition.volume, partition.start, partition.size)
            return (*place, partition.type_guid.lower(), partition.uuid.lower())

        assert sorted(map(told, made.read(path))) == sorted(map(told, partitions))

    def test_a_new_table_is_clean(self, made: DiskLayout, disk: tuple[Path, tuple[Partition, ...]]) -> None:
        """Its own check finds nothing in what was just written."""
        assert [problem.message for problem in made.check(disk[0])] == []

    def test_the_file_keeps_its_size_and_contents(
        self, made: DiskLayout, layout_request: LayoutRequest, tmp_path: Path
    ) -> None:
        """Writing a table leaves what is in the partitions, and the file's length."""
        partitions = made.plan(layout_request)
        size = made.disk_bytes(partitions)
        path = tmp_path / "disk.raw"
        with path.open("wb") as file:
            file.truncate(size)
            for partition in partitions:
                for at in (partition.start, partition.start + partition.size - SECTOR):
                    file.seek(at)
                    file.write(FILL * SECTOR)
        made.write(path, partitions, seed="testkit")
        assert path.stat().st_size == size
        with path.open("rb") as file:
            for partition in partitions:
                for at in (partition.start, partition.start + partition.size - SECTOR):
                    file.seek(at)
                    assert file.read(SECTOR) == FILL * SECTOR, f"{partition.name} was overwritten"

    def test_a_second_table_replaces_the_first(
        self, made: DiskLayout, disk: tuple[Path, tuple[Partition, ...]], layout_request: LayoutRequest
    ) -> None:
        """A disk that had a table gets another one; nothing of the first is left."""
        path, _ = disk
        size = path.stat().st_size
        fewer = made.plan(
            dataclasses.replace(layout_request, needs=self.needs[:1], disk_size=size, root_size=None, seed="x")
        )
        made.write(path, fewer, seed="x")
        assert [p.uuid.lower() for p in made.read(path)] == [p.uuid.lower() for p in fewer]
        assert [problem.message for problem in made.check(path)] == []

    def test_twice_the_same_is_byte_for_byte_the_same(
        self, made: DiskLayout, disk: tuple[Path, tuple[Partition, ...]], tmp_path: Path
    ) -> None:
        """With the same seed, two runs write the same bytes."""
        path, partitions = disk
        again = tmp_path / "again.raw"
        with again.open("wb") as file:
            file.truncate(path.stat().st_size)
        made.write(again, partitions, seed="testkit")
        assert file_difference(again, path) is None

    def test_every_lost_sector_is_found(self, made: DiskLayout, disk: tuple[Path, tuple[Partition, ...]]) -> None:
        """Any one sector of the tables that is overwritten with zeros does not pass the check."""
        path, _ = disk
        for at, data in _written(path).items():
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes(SECTOR))
            assert self._complains(made, path), f"the sector at byte {at} is gone, and nothing is found"
            with path.open("r+b") as file:
                file.seek(at)
                file.write(data)
        assert not self._complains(made, path)

    def test_checking_changes_nothing(self, made: DiskLayout, disk: tuple[Path, tuple[Partition, ...]]) -> None:
        """A check only looks, at damaged tables too."""
        path, _ = disk
        last = max(_written(path))
        with path.open("r+b") as file:
            file.seek(last)
            file.write(bytes(SECTOR))
        before = _written(path)
        self._complains(made, path)
        assert _written(path).items() ^ before.items() == set()

    @pytest.mark.parametrize("content", [b"", b"\0" * MEBIBYTE, b"\xff" * MEBIBYTE, b"x" * 700])
    def test_no_table_is_a_disk_error(self, made: DiskLayout, tmp_path: Path, content: bytes) -> None:
        """A file without a table cannot be read, and its check says so."""
        path = tmp_path / "other.raw"
        path.write_bytes(content)
        with pytest.raises(DiskError):
            made.read(path)
        assert self._complains(made, path)

    def _complains(self, made: DiskLayout, path: Path) -> bool:
        try:
            return bool(list(made.check(path)))
        except CfsError:
            return True


def _written(path: Path) -> dict[int, bytes]:
    """Return sectors that are not all zeros, by offset; the disk's partitions are empty here."""
    found: dict[int, bytes] = {}
    with path.open("rb") as file:
        at = 0
        while chunk := file.read(MEBIBYTE):
            if chunk.strip(b"\0"):
                for start in range(0, len(chunk), SECTOR):
                    if chunk[start : start + SECTOR].strip(b"\0"):
                        found[at + start] = chunk[start : start + SECTOR]
            at += len(chunk)
    return found
