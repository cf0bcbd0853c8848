"""The contract of filesystems: what goes in comes out, nothing outside is touched, a full one is one clear error."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, ClassVar

import pytest

from cfs_core.plugin import (
    Attributes,
    BytesContent,
    CfsError,
    CopyObject,
    DiskError,
    DiskFullError,
    Filesystem,
    HashAlgorithm,
    Location,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    Partition,
    PlacingAction,
    PluginContext,
    Region,
    Severity,
    SpecialKind,
    VerificationError,
    Volume,
    WriteFile,
)
from cfs_core.testing import families
from cfs_testkit.compare import difference, file_difference
from cfs_testkit.contracts.base import Contract, optional
from cfs_testkit.verity import verity_digest

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

BEFORE = 1 << 20
"""Bytes in front of the region, as many behind it, all of one value."""

FILL = b"\xa5"
ALIGNMENT = 1 << 20


class FilesystemContract(Contract):
    """What a filesystem must do. It is made in a region of a plain file, as an ordinary user."""

    family = families.FILESYSTEMS

    posix: ClassVar[bool] = True
    """False where there are no links, owners or device nodes (FAT)."""

    least_bytes: ClassVar[int] = 64 << 20
    """The smallest sensible size of such a filesystem."""

    volume: ClassVar[Volume] = Volume.ROOT
    """The volume that the filesystem is made for."""

    @pytest.fixture
    def filesystem(self, made: Filesystem) -> Filesystem:
        """The filesystem, where the host has what it needs."""
        missing = [finding.message for finding in made.check_host() if finding.severity is Severity.ERROR]
        if missing:
            pytest.skip("; ".join(missing))
        return made

    def at(self, path: str) -> Location:
        """Return *path* on the volume."""
        return Location(self.volume, path)

    def folder(self, path: str) -> MakeDirectory:
        """Return a directory."""
        return MakeDirectory(location=self.at(path), why="test")

    def file(self, path: str, data: bytes) -> WriteFile:
        """Return a file in memory."""
        return WriteFile(location=self.at(path), data=data, why="test", attributes=Attributes(mtime_sec=1_000_000_000))

    def object(self, path: str, data: bytes, verity: HashAlgorithm | None = None) -> CopyObject:
        """Return a file whose content is elsewhere."""
        attributes = Attributes(mtime_sec=1_000_000_000)
        return CopyObject(
            location=self.at(path), source=BytesContent(data), why="test", verity=verity, attributes=attributes
        )

    def contents(self) -> dict[str, PlacingAction]:
        """Return files of all sizes, nested directories and long names."""
        actions: list[PlacingAction] = [
            self.folder("/folder"),
            self.folder("/folder/Inner"),
            self.file("/empty", b""),
            self.file("/folder/one", b"1"),
            self.file("/folder/block", b"b" * 4096),
            self.file("/folder/Inner/name with spaces", b"spaces"),
            self.file(f"/folder/Inner/{'n' * 200}", b"long"),
            self.object("/folder/large", bytes(range(256)) * 4096 * 4),
            self.folder("/many"),
            *(self.file(f"/many/{number:04}.conf", b"%d" % number) for number in range(300)),
        ]
        return {action.location.path: action for action in actions}

    def build(
        self, filesystem: Filesystem, folder: Path, contents: dict[str, PlacingAction], size: int | None = None
    ) -> Region:
        """Make the filesystem in the middle of a file, and return where it is."""
        size = size or max(self.least_bytes, _aligned(filesystem.bytes_needed(contents)))
        path = folder / f"disk-{len(list(folder.iterdir()))}.raw"
        with path.open("wb") as file:
            file.write(FILL * BEFORE)
            file.seek(BEFORE + size)
            file.write(FILL * BEFORE)
        region = Region(path=path, offset=BEFORE, size=size)
        partition = Partition(
            number=1,
            volume=self.volume,
            start=BEFORE,
            size=size,
            type_guid="00000000-0000-0000-0000-000000000001",
            uuid="00000000-0000-0000-0000-000000000002",
            name="test",
            filesystem=filesystem.name,
            fs_uuid="ABCD-0123" if filesystem.name == "vfat" else "11111111-2222-3333-4444-555555555555",
            label="TEST",
        )
        filesystem.build(contents, partition, region)
        return region

    # --- making -------------------------------------------------------------------------------

    def test_says_what_the_host_lacks(self, made: Filesystem) -> None:
        """What is missing on this host is a finding with a hint; the name is the provider's."""
        assert made.name == self.provider
        for finding in made.check_host():
            assert finding.message
            assert finding.severity is not Severity.ERROR or finding.hint, finding

    def test_what_goes_in_comes_out(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """Every file is read back with its bytes and size, every directory with its names."""
        contents = self.contents()
        region = self.build(filesystem, tmp_path, contents)
        with filesystem.reader(region) as reader:
            for path, action in contents.items():
                if isinstance(action, MakeDirectory):
                    children = {p.rpartition("/")[2] for p in contents if p.rpartition("/")[0] == path}
                    assert set(reader.names(path)) == children
                    assert reader.kind(path) == "directory"
                    continue
                data = action.data if isinstance(action, WriteFile) else _content(action)
                assert reader.kind(path) == "file"
                assert reader.size(path) == len(data)
                with reader.open(path) as file:
                    assert difference(file.read(), data) is None, path
            top = {path.strip("/") for path in contents if path.count("/") == 1}
            assert set(reader.names("/")) - {"lost+found"} == top

    def test_an_empty_one_can_be_made(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """A filesystem without files is one too."""
        region = self.build(filesystem, tmp_path, {})
        assert list(filesystem.check(region)) == []
        with filesystem.reader(region) as reader:
            assert set(reader.names("/")) <= {"lost+found"}

    def test_the_estimate_is_enough(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """A region of just the bytes that were said to be needed holds the contents."""
        contents = self.contents()
        contents |= {f"/many/{n}": self.object(f"/many/{n}", os.urandom(100_000)) for n in range(200)}
        size = _aligned(filesystem.bytes_needed(contents))
        region = self.build(filesystem, tmp_path, contents, size)
        assert list(filesystem.check(region)) == []

    def test_a_new_one_is_clean(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """Its own check finds nothing in what was just made."""
        region = self.build(filesystem, tmp_path, self.contents())
        assert [problem.message for problem in filesystem.check(region)] == []

    def test_nothing_outside_is_touched(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """Bytes in front of the region and behind it stay, and so does the file's length."""
        region = self.build(filesystem, tmp_path, self.contents())
        with region.path.open("rb") as file:
            assert difference(file.read(BEFORE), FILL * BEFORE) is None
            file.seek(region.offset + region.size)
            assert difference(file.read(), FILL * BEFORE) is None

    def test_twice_the_same_is_byte_for_byte_the_same(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """With the same seed and time, two runs write the same bytes."""
        regions = [self.build(filesystem, tmp_path, self.contents()) for _ in range(2)]
        assert file_difference(regions[0].path, regions[1].path) is None

    def test_too_small_is_disk_full(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """Contents that do not fit are DiskFullError, for programs too (code ``disk.full``)."""
        size = max(self.least_bytes, 48 << 20)
        contents: dict[str, PlacingAction] = {"/large": self.object("/large", os.urandom(1 << 20) * (2 * size >> 20))}
        with pytest.raises(DiskFullError):
            self.build(filesystem, tmp_path, contents, size)

    def test_a_failing_source_is_not_hidden(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """What reading the contents raises comes out as it is."""
        contents: dict[str, PlacingAction] = {
            "/bad": CopyObject(location=self.at("/bad"), source=_Failing(), why="test")
        }
        with pytest.raises(VerificationError):
            self.build(filesystem, tmp_path, contents, max(self.least_bytes, 8 << 20))

    def test_making_it_leaves_nothing_in_scratch(
        self, filesystem: Filesystem, tmp_path: Path, context: PluginContext
    ) -> None:
        """Temporary files are gone when it is made."""
        (tmp_path / "disks").mkdir()
        self.build(filesystem, tmp_path / "disks", self.contents())
        assert list(context.scratch.iterdir()) == []

    def test_it_prints_nothing_when_built(
        self, filesystem: Filesystem, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Neither it nor the tools it runs write to standard output."""
        capfd.readouterr()
        filesystem.check(self.build(filesystem, tmp_path, self.contents()))
        assert capfd.readouterr().out == ""

    # --- links and special files --------------------------------------------------------------

    def _special(self) -> dict[str, PlacingAction]:
        actions: list[PlacingAction] = [
            self.file("/file", b"file"),
            MakeSymlink(location=self.at("/link"), target="../somewhere/else", why="test"),
            MakeHardLink(location=self.at("/hard"), existing=self.at("/file"), why="test"),
            MakeSpecial(location=self.at("/fifo"), kind=SpecialKind.FIFO, why="test"),
        ]
        return {action.location.path: action for action in actions}

    def test_links_and_special_files(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """Links, hard links and fifos are kept, or refused by a filesystem that has none; never left out."""
        contents = self._special()
        if not self.posix:
            for path in ("/link", "/fifo"):
                with pytest.raises(CfsError):
                    self.build(filesystem, tmp_path, {path: contents[path]}, self.least_bytes)
            return
        region = self.build(filesystem, tmp_path, contents)
        with filesystem.reader(region) as reader:
            assert reader.kind("/link") == "symlink"
            assert reader.read_link("/link") == "../somewhere/else"
            assert reader.kind("/fifo") == "special"
            with reader.open("/hard") as file:
                assert file.read() == b"file"

    # --- fs-verity ----------------------------------------------------------------------------

    @optional(lambda provider: provider.verity, "verity")
    @pytest.mark.parametrize("algorithm", list(HashAlgorithm), ids=lambda algorithm: algorithm.value)
    def test_verity_is_what_the_kernel_would_compute(
        self, filesystem: Filesystem, tmp_path: Path, algorithm: HashAlgorithm
    ) -> None:
        """Files with fs-verity have the digest of their bytes, whatever their size; others have none."""
        files = {f"/v{size}": os.urandom(size) for size in (1, 4096, 4097, 100_000, 4096 * 129)}
        contents: dict[str, PlacingAction] = {p: self.object(p, data, algorithm) for p, data in files.items()}
        contents["/plain"] = self.object("/plain", b"plain")
        region = self.build(filesystem, tmp_path, contents)
        with filesystem.reader(region) as reader:
            for path, data in files.items():
                assert reader.verity_digest(path) == verity_digest(data, algorithm), path
            assert reader.verity_digest("/plain") is None
        assert [problem.message for problem in filesystem.check(region)] == []

    @optional(lambda provider: not provider.verity, "no verity")
    def test_verity_is_refused_where_there_is_none(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """A file that shall have fs-verity is refused by a filesystem without it."""
        contents: dict[str, PlacingAction] = {"/v": self.object("/v", b"data", HashAlgorithm.SHA512)}
        with pytest.raises(CfsError):
            self.build(filesystem, tmp_path, contents, self.least_bytes)

    # --- reading and checking -----------------------------------------------------------------

    def test_missing_paths_are_as_in_the_os_module(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """Reading what is not there raises FileNotFoundError; a file is no directory."""
        region = self.build(filesystem, tmp_path, self.contents())
        with filesystem.reader(region) as reader:
            assert reader.kind("/nothing") is None
            assert reader.kind("/nothing/below") is None
            with pytest.raises(FileNotFoundError):
                reader.names("/nothing")
            with pytest.raises(FileNotFoundError):
                reader.open("/nothing")
            with pytest.raises(NotADirectoryError):
                reader.names("/empty")

    @pytest.mark.parametrize("content", [b"\0", b"\xff", b"PK\x03\x04"], ids=["zeros", "ones", "something else"])
    def test_what_is_no_such_filesystem_is_a_disk_error(
        self, filesystem: Filesystem, tmp_path: Path, content: bytes
    ) -> None:
        """A region with something else in it cannot be read, and its check says so."""
        path = tmp_path / "other.raw"
        path.write_bytes((content * (1 << 20))[: 1 << 20] * 4)
        region = Region(path=path, offset=0, size=4 << 20)
        with pytest.raises(DiskError), filesystem.reader(region) as reader:
            reader.names("/")
        try:
            problems = list(filesystem.check(region))
        except DiskError:
            return
        assert problems

    def test_a_lost_beginning_is_found(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """A filesystem whose first blocks were overwritten does not pass its check."""
        region = self.build(filesystem, tmp_path, self.contents())
        with region.path.open("r+b") as file:
            file.seek(region.offset)
            file.write(bytes(64 * 1024))
        try:
            problems = list(filesystem.check(region))
        except DiskError:
            return
        assert problems

    def test_checking_changes_nothing(self, filesystem: Filesystem, tmp_path: Path) -> None:
        """A check only looks."""
        region = self.build(filesystem, tmp_path, self.contents())
        before = tmp_path / "before"
        shutil.copyfile(region.path, before)
        list(filesystem.check(region))
        assert file_difference(region.path, before) is None


class _Failing:
    """Content that turns out wrong while it is read."""

    size = 100_000

    def open(self) -> BinaryIO:
        """Fail."""
        msg = "these are not the right bytes"
        raise VerificationError(msg)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _content(action: PlacingAction) -> bytes:
    assert isinstance(action, CopyObject)
    with action.source.open() as file:
        return file.read()
