"""An index in JSON with a checksum, and the files behind it. Knows links and fs-verity digests."""

import contextlib
import hashlib
import io
import json

from cfs_core.plugin import (
    CopyObject,
    DiskError,
    DiskFullError,
    Filesystem,
    Finding,
    MakeDirectory,
    MakeHardLink,
    MakeSymlink,
    WriteFile,
    read_all,
)
from cfs_testkit.verity import verity_digest

HEAD = 128
MAGIC = b"TOYFS001"


class Toy(Filesystem):
    name = "mutant"

    def __init__(self, context):
        self.context = context

    def check_host(self):
        return []

    def bytes_needed(self, contents):
        files = sum(
            each.source.size if isinstance(each, CopyObject) else len(getattr(each, "data", b""))
            for each in contents.values()
        )
        return HEAD + files + 600 * (len(contents) + 1)

    def build(self, contents, partition, region):
        index, data = {"/": {"kind": "directory"}}, io.BytesIO()
        for path, action in contents.items():
            if isinstance(action, MakeDirectory):
                index[path] = {"kind": "directory"}
            elif isinstance(action, MakeSymlink):
                index[path] = {"kind": "symlink", "target": action.target}
            elif isinstance(action, MakeHardLink):
                index[path] = index[action.existing.path]
            elif isinstance(action, WriteFile | CopyObject):
                content = action.data if isinstance(action, WriteFile) else read_all(action.source)
                verity = getattr(action, "verity", None)
                digest = verity_digest(content, verity) if verity else None
                checksum = hashlib.sha256(content).hexdigest()
                index[path] = {
                    "kind": "file",
                    "at": data.tell(),
                    "size": len(content),
                    "verity": digest,
                    "sha256": checksum,
                }
                data.write(content)
            else:
                index[path] = {"kind": "special"}
        text = json.dumps(index).encode()
        head = MAGIC + hashlib.sha256(text).digest() + len(text).to_bytes(8, "big")
        whole = head.ljust(HEAD, b"\0") + text + data.getvalue()
        if len(whole) > region.size:
            raise DiskFullError("too small", facts={"needed": len(whole), "available": region.size})
        with region.path.open("r+b") as file:
            file.seek(region.offset)
            file.write(whole)

    def check(self, region):
        try:
            reader = Reader(region)
        except DiskError as error:
            return [Finding.error("toy", error.message, where="index")]
        changed = []
        for path, entry in reader.index.items():
            if entry["kind"] == "file" and hashlib.sha256(reader.open(path).read()).hexdigest() != entry["sha256"]:
                changed.append(Finding.error("toy", "was changed", where=path))
        return changed

    @contextlib.contextmanager
    def reader(self, region):
        yield Reader(region)


class Reader:
    def __init__(self, region):
        self.region = region
        head = self.bytes(0, HEAD)
        if head[:8] != MAGIC:
            raise DiskError("no such filesystem")
        length = int.from_bytes(head[40:48], "big")
        text = self.bytes(HEAD, length)
        if hashlib.sha256(text).digest() != head[8:40]:
            raise DiskError("the index is damaged")
        self.index, self.start = json.loads(text), HEAD + length

    def bytes(self, at, size):
        with self.region.path.open("rb") as file:
            file.seek(self.region.offset + at)
            return file.read(size)

    def entry(self, path):
        if path not in self.index:
            raise FileNotFoundError(path)
        return self.index[path]

    def names(self, path):
        if self.entry(path)["kind"] != "directory":
            raise NotADirectoryError(path)
        prefix = path.rstrip("/") + "/"
        return tuple(
            sorted(
                p[len(prefix) :]
                for p in self.index
                if p.startswith(prefix) and p != "/" and "/" not in p[len(prefix) :]
            )
        )

    def kind(self, path):
        return self.index[path]["kind"] if path in self.index else None

    def read_link(self, path):
        return self.entry(path)["target"]

    def open(self, path):
        entry = self.entry(path)
        return io.BytesIO(self.bytes(self.start + entry["at"], entry["size"]))

    def size(self, path):
        return self.entry(path)["size"]

    def verity_digest(self, path):
        return self.entry(path)["verity"]
