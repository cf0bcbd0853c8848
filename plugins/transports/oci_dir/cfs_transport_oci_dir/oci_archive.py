"""``oci-archive:FILE[:TAG][@DIGEST]``: an image layout in a tar file."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from cfs_core.plugin import ImageError
from cfs_transport_oci_dir.archive import Archive
from cfs_transport_oci_dir.layout import LayoutTransportBase
from cfs_transport_oci_dir.reader import LayoutReader

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.plugin import ImageReference, ImageWriter


class ArchiveReader(LayoutReader):
    """A layout in an archive."""

    def __init__(self, path: str, scratch: Path) -> None:
        self.where = path
        self._archive = Archive(path, scratch)
        if "oci-layout" not in self._archive:
            self.close()
            docker = "manifest.json" in self._archive
            msg = f"{path} is not an archive of an image layout: it has no oci-layout in it"
            raise ImageError(msg, hint=f"write docker-archive:{path}" if docker else None)

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Open a member."""
        return self._archive.open(name)

    def close(self) -> None:
        """Close the file."""
        self._archive.close()


class ArchiveTransport(LayoutTransportBase):
    """Reads with seeks, nothing is unpacked; a compressed archive goes to *scratch* first."""

    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self._scratch = scratch

    def _make_reader(self, path: str) -> LayoutReader:
        return ArchiveReader(path, self._scratch)

    def open_writer(self, reference: ImageReference) -> ImageWriter:
        """Begin a new archive; it gets its name when the image is complete."""
        from cfs_transport_oci_dir.writer import ArchiveWriter

        return ArchiveWriter(reference)
