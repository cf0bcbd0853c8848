"""Checks of a repository, live or inside a filesystem that is not mounted: everything is read, nothing changed."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.plugin import CfsError, Finding, HashAlgorithm, StorageError
from cfs_storage_composefs.fsverity import Digester
from cfs_storage_composefs.objects.names import object_path
from cfs_storage_composefs.objects.store import TEMPORARY_PREFIX
from cfs_storage_composefs.repository import metadata
from cfs_storage_composefs.repository.directory import LINK_PREFIX, linked_object, referred_name
from cfs_storage_composefs.repository.identify import CATEGORIES, META_PREFIX
from cfs_storage_composefs.repository.metadata import Metadata
from cfs_storage_composefs.streams import oci as streams
from cfs_storage_composefs.streams.splitstream import CONFIG, LAYER, MANIFEST, SplitStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfs_core.plugin import Digest, FileReader

_READ = 1024 * 1024
_SHARD = re.compile(r"[0-9a-f]{2}\Z")
_STREAM_LIMIT = 1024 * 1024 * 1024
_PULL_AGAIN = "pull the image again"


def check_repository(files: FileReader, root: str, *, layers: bool) -> Iterator[Finding]:
    """Check the repository at *root* and yield what is wrong.

    Every object is hashed and compared with its name, and with the digest that the filesystem enforces where meta.json
    is sealed; links must resolve, streams must parse, and everything they and the images refer to must be there.
    With *layers*, each layer is put together again and compared with its diff-id.
    """
    return _Checker(files, root.rstrip("/"), layers=layers).run()


class _Checker:
    def __init__(self, files: FileReader, root: str, *, layers: bool) -> None:
        self._files = files
        self._root = root
        self._layers = layers
        self._metadata = Metadata()
        self._secure = False
        self._sizes: dict[bytes, int] = {}

    def run(self) -> Iterator[Finding]:
        if self._kind("objects") != "directory":
            yield Finding.error("repository.missing", "there is no repository here", where=self._root or "/")
            return
        yield from self._guarded(metadata.NAME, "repository.metadata", self._check_metadata)
        for name in self._names(""):
            if name.startswith((LINK_PREFIX, META_PREFIX)):
                yield _stray(name)
        yield from self._guarded("objects", "object.unreadable", self._check_objects)
        for category in CATEGORIES:
            if self._kind(category) is not None:
                yield from self._guarded(category, "link.unreadable", self._check_category)

    def _guarded(
        self, where: str, code: str, check: Callable[[str], Iterator[Finding]], *, repairable: bool = False
    ) -> Iterator[Finding]:
        """Run one check; what it raises becomes a problem, so that the others still run."""
        try:
            yield from check(where)
        except CfsError as error:
            yield Finding.error(code, error.message, where=where, repairable=repairable)
        except OSError as error:
            message = f"cannot be read: {error.strerror or error}"
            yield Finding.error(code, message, where=where, repairable=repairable)

    # --- meta.json and objects ----------------------------------------------------------------

    def _check_metadata(self, where: str) -> Iterator[Finding]:
        if self._kind(where) is None:
            self._metadata = self._inferred()
            message = "there is no meta.json; the hash is told from the objects' names"
            yield Finding.error("repository.no-metadata", message, where=where)
            return
        with self._open(where) as file:
            data = file.read(metadata.LIMIT)
        self._metadata = Metadata.parse(data, where)
        enforced = self._files.verity_digest(self._path(where))
        self._secure = enforced is not None
        if enforced is not None and enforced != self._enforced_form(self._digest_of(where)):
            message = f"the filesystem enforces {enforced:.40}…, which is not the digest of its bytes"
            yield Finding.error("repository.metadata", message, where=where)

    def _inferred(self) -> Metadata:
        for shard in self._names("objects"):
            if _SHARD.match(shard):
                for name in self._names(f"objects/{shard}"):
                    for algorithm in HashAlgorithm:
                        if len(name) == 2 * algorithm.size - 2:
                            return Metadata(algorithm=algorithm)
        return Metadata()

    def _check_objects(self, where: str) -> Iterator[Finding]:
        size = 2 * self._metadata.algorithm.size
        for shard in self._names(where):
            here = f"{where}/{shard}"
            if not _SHARD.match(shard):
                yield _stray(here)
                continue
            for name in self._names(here):
                path = f"{here}/{name}"
                if not re.fullmatch(r"[0-9a-f]+", name) or len(shard + name) != size:
                    message = "this is not the name of an object"
                    yield Finding.error("object.name", message, where=path)
                    continue
                yield from self._guarded(path, "object.damaged", self._check_object, repairable=True)

    def _check_object(self, where: str) -> Iterator[Finding]:
        expected = bytes.fromhex(where.removeprefix("objects/").replace("/", ""))
        if self._kind(where) != "file":
            yield Finding.error("object.damaged", "this is not a regular file", where=where)
            return
        self._sizes[expected] = self._files.size(self._path(where))
        found = self._digest_of(where)
        if found != expected:
            message = f"its bytes have the digest {found.hex():.16}…, not the one it is named by"
            yield Finding.error("object.damaged", message, where=where, repairable=True)
        if self._secure:
            enforced = self._files.verity_digest(self._path(where))
            if enforced is None:
                message = "fs-verity is not enabled on it, and the repository demands it"
                yield Finding.error("object.unsealed", message, where=where, repairable=True)
            elif enforced != self._enforced_form(expected):
                message = f"the filesystem enforces {enforced:.40}…, not the digest it is named by"
                yield Finding.error("object.damaged", message, where=where, repairable=True)

    def _digest_of(self, where: str) -> bytes:
        digester = Digester(self._metadata.algorithm)
        with self._open(where) as file:
            while chunk := file.read(_READ):
                digester.update(chunk)
        return digester.digest()

    def _enforced_form(self, digest: bytes) -> str:
        return f"{self._metadata.algorithm.value}:{digest.hex()}"

    # --- links --------------------------------------------------------------------------------

    def _check_category(self, category: str) -> Iterator[Finding]:
        names = set()
        for name in self._names(category):
            where = f"{category}/{name}"
            if name == "refs" and self._kind(where) == "directory":
                continue
            names.add(name)
            if self._kind(where) != "symlink":
                yield Finding.error("link.kind", "this is not a symbolic link", where=where)
                continue
            target = self._files.read_link(self._path(where))
            digest = linked_object(target, self._metadata.algorithm)
            if digest is None:
                yield Finding.error("link.target", f"points to {target!r:.200}, not to an object", where=where)
            elif not self._is_there(digest):
                message = f"points to object {digest.hex()}, which is missing"
                yield Finding.error("object.missing", message, where=where, repairable=True)
            else:
                check = self._check_image if category == "images" else self._check_stream
                yield from self._guarded(where, f"{category[:-1]}.damaged", check, repairable=True)
        if self._kind(f"{category}/refs") == "directory":
            yield from self._check_refs(category, names)

    def _check_refs(self, category: str, names: set[str]) -> Iterator[Finding]:
        pending = [""]
        while pending:
            below = pending.pop()
            for name in self._names(f"{category}/refs/{below}".rstrip("/")):
                path = f"{below}/{name}".lstrip("/")
                where = f"{category}/refs/{path}"
                kind = self._kind(where)
                if kind == "directory":
                    pending.append(path)
                    continue
                target = self._files.read_link(self._path(where)) if kind == "symlink" else ""
                pointed = referred_name(path, target)
                if pointed is None:
                    yield Finding.error("link.target", f"is no link to an entry of {category}/", where=where)
                elif pointed not in names:
                    yield Finding.error("link.dangling", f"points to {pointed}, which is not there", where=where)

    # --- images and streams -------------------------------------------------------------------

    def _linked(self, where: str) -> bytes:
        digest = linked_object(self._files.read_link(self._path(where)), self._metadata.algorithm)
        if digest is None:
            msg = "it changed while it was checked"
            raise StorageError(msg)
        return digest

    def _check_image(self, where: str) -> Iterator[Finding]:
        from cfs_storage_composefs.erofs.read import referenced_objects

        digest = self._linked(where)
        if where.removeprefix("images/") != digest.hex():
            yield Finding.error("link.target", f"points to another object, {digest.hex()}", where=where)
        with self._open(f"objects/{object_path(digest)}") as file:
            data = file.read()
        for name in sorted(referenced_objects(data)):
            yield from self._missing(where, bytes.fromhex(name))

    def _is_there(self, digest: bytes) -> bool:
        """Whether an object is there by now: somebody may have added it since the objects were read."""
        if digest in self._sizes:
            return True
        path = f"objects/{object_path(digest)}"
        if self._kind(path) != "file":
            return False
        self._sizes[digest] = self._files.size(self._path(path))
        return True

    def _missing(self, where: str, digest: bytes) -> Iterator[Finding]:
        if not self._is_there(digest):
            message = f"needs object {digest.hex()}, which is missing"
            yield Finding.error("object.missing", message, where=where, repairable=True)

    def _check_stream(self, where: str) -> Iterator[Finding]:
        digest = self._linked(where)
        if self._sizes[digest] > _STREAM_LIMIT:
            yield Finding.error("stream.damaged", f"has {self._sizes[digest]} bytes", where=where)
            return
        with self._open(f"objects/{object_path(digest)}") as file:
            data = io.BytesIO(file.read())
        with SplitStream.open(data, self._metadata.algorithm, where) as stream:
            missing = [
                problem
                for target in dict.fromkeys((*stream.object_refs, *stream.stream_refs))
                for problem in self._missing(where, target)
            ]
            yield from missing
            if missing:
                return
            name = where.removeprefix("streams/")
            for kind, content_type in (("layer", LAYER), ("config", CONFIG), ("manifest", MANIFEST)):
                expected = streams.digest_in(name, kind)
                if expected is None:
                    continue
                if stream.content_type != content_type and kind != "layer":
                    yield Finding.error("stream.kind", f"its content is not a {kind}", where=where)
                    return
                yield from self._check_content(where, stream, expected, whole=self._layers or kind != "layer")
                return
            yield from self._check_content(where, stream, None, whole=False)

    def _check_content(
        self, where: str, stream: SplitStream, expected: Digest | None, *, whole: bool
    ) -> Iterator[Finding]:
        """Count the stream's bytes; with *whole*, hash them too."""
        count = 0
        hasher = (expected.algorithm if expected else HashAlgorithm.SHA256).new()
        for chunk in stream.chunks():
            if isinstance(chunk, bytes):
                count += len(chunk)
                hasher.update(chunk)
                continue
            digest = stream.object_refs[chunk]
            count += self._sizes[digest]
            if whole:
                with self._open(f"objects/{object_path(digest)}") as file:
                    while data := file.read(_READ):
                        hasher.update(data)
        if count != stream.size:
            message = f"its parts have {count} bytes, and it claims {stream.size}"
            yield Finding.error("stream.damaged", message, where=where, repairable=True)
        if whole and expected is not None and hasher.hexdigest() != expected.hex:
            message = "put together again, it does not have the digest it is named by"
            yield Finding.error("stream.damaged", message, where=where, repairable=True)

    # --- files --------------------------------------------------------------------------------

    def _path(self, where: str) -> str:
        return f"{self._root}/{where}".rstrip("/") or "/"

    def _names(self, where: str) -> tuple[str, ...]:
        return self._files.names(self._path(where))

    def _kind(self, where: str) -> str | None:
        return self._files.kind(self._path(where))

    def _open(self, where: str) -> BinaryIO:
        return self._files.open(self._path(where))


def _stray(where: str) -> Finding:
    if where.rpartition("/")[2].startswith((TEMPORARY_PREFIX, LINK_PREFIX, META_PREFIX)):
        message = "is left from an interrupted write; garbage collection removes it"
        return Finding.error("repository.stray", message, where=where, repairable=True)
    return Finding.error("repository.stray", "does not belong here", where=where)
