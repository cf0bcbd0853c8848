"""Files of one image layout by name, wherever it lies; what is in a directory is opened without following links."""

from __future__ import annotations

import abc
import json
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.plugin import MANIFEST_LIMIT, CfsError, ImageError, LimitError, NotFoundError, TransportError, parse_json
from cfs_transport_oci_dir.index import LayoutIndex

if TYPE_CHECKING:
    from cfs_transport_oci_dir.index import Entry

CHUNK = 1 << 20
_LAYOUT_FILE_LIMIT = 64 * 1024
_IMAGE_CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)


class LayoutReader(abc.ABC):
    """Files of one layout by name."""

    where: str

    @abc.abstractmethod
    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Open a regular file (``blobs/sha256/…``); also its size in bytes.

        Raises:
            NotFoundError: no such file.
            ImageError: something that is not a regular file.
            TransportError: unreadable.
        """

    def close(self) -> None:  # noqa: B027 - a directory holds nothing open
        """Close what is open."""

    def read(self, name: str, limit: int) -> bytes:
        """Return a whole file.

        Raises:
            LimitError: longer than *limit* bytes.
        """
        file, size = self.open(name)
        with file:
            if size > limit:
                msg = f"{name} in {self.where} has {size} bytes, more than {limit}"
                raise LimitError(msg, facts={"limit_bytes": limit})
            try:
                return b"".join(iter(lambda: file.read(CHUNK), b""))
            except OSError as error:
                msg = f"{name} in {self.where} cannot be read: {error.strerror}"
                raise TransportError(msg) from error

    def index(self) -> LayoutIndex:
        """Check the layout's version and parse its index."""
        version = parse_json(self.read("oci-layout", _LAYOUT_FILE_LIMIT), f"{self.where}/oci-layout")
        stated = version.string("imageLayoutVersion")
        if not stated.startswith("1."):
            msg = f"{self.where} is an image layout of version {stated!r:.50}, not 1"
            raise ImageError(msg)
        return LayoutIndex(self.read("index.json", MANIFEST_LIMIT), self.where, self._is_artifact)

    def _is_artifact(self, entry: Entry) -> bool:
        """Look whether a manifest has no root file system: another config than an image's, or no layer that is a tar.

        What cannot be read is taken for an image, so that the reason is told when it is asked for.
        """
        name = f"blobs/{entry.digest.algorithm.value}/{entry.digest.hex}"
        try:
            manifest = json.loads(self.read(name, MANIFEST_LIMIT))
            config, layers = manifest["config"]["mediaType"], [layer["mediaType"] for layer in manifest["layers"]]
        except (CfsError, ValueError, RecursionError, LookupError, TypeError):
            return False
        return config not in _IMAGE_CONFIGS or not all(".tar" in str(kind) for kind in layers)


class DirectoryReader(LayoutReader):
    """A layout in a directory. Links are not followed below it: a layout from elsewhere must not name our files."""

    def __init__(self, path: str) -> None:
        self.where = path

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Open a regular file, each step without following links."""
        *parents, last = name.split("/")
        try:
            directory = os.open(self.where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            msg = f"there is no directory {self.where}"
            raise NotFoundError(msg, hint="write it as oci:DIRECTORY:TAG") from error
        except NotADirectoryError as error:
            msg = f"{self.where} is not a directory"
            raise NotFoundError(msg, hint="for an archive write oci-archive:FILE") from error
        except OSError as error:
            msg = f"{self.where} cannot be opened: {error.strerror}"
            raise TransportError(msg) from error
        try:
            for parent in parents:
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inner = os.open(parent, flags, dir_fd=directory)
                os.close(directory)
                directory = inner
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(last, flags, dir_fd=directory)
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except (NotADirectoryError, IsADirectoryError) as error:
            msg = f"{name} in {self.where} is not a regular file"
            raise ImageError(msg) from error
        except OSError as error:
            raise self._unreadable(name, error) from error
        finally:
            os.close(directory)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            os.close(handle)
            msg = f"{name} in {self.where} is not a regular file"
            raise ImageError(msg)
        return os.fdopen(handle, "rb", buffering=0), status.st_size

    def _missing(self, name: str) -> NotFoundError:
        if name == "oci-layout":
            msg = f"{self.where} is not an image layout: it has no file oci-layout"
            return NotFoundError(msg, hint="make one with: skopeo copy SOURCE oci:DIRECTORY:TAG")
        return NotFoundError(f"{self.where} has no {name}")

    def _unreadable(self, name: str, error: OSError) -> TransportError | ImageError:
        if os.path.islink(os.path.join(self.where, name)):  # noqa: PTH114, PTH118 - the path is text as it was given
            msg = f"{name} in {self.where} is a symbolic link"
            return ImageError(msg, hint="links in a layout are not followed; copy it with cp -RL")
        return TransportError(f"{name} in {self.where} cannot be opened: {error.strerror}")
