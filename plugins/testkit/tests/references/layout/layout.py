"""A partition table in JSON with a checksum, at the disk's beginning and once more at its end."""

import dataclasses
import hashlib
import json
import uuid

from cfs_core.plugin import DiskError, DiskLayout, Finding, Partition, RefusedError, Volume

MIB = 1 << 20
TABLE = 16 * 1024


class Toy(DiskLayout):
    def plan(self, request):
        sizes = [
            (need.volume, need.bytes_needed, need.filesystems[0] if need.filesystems else None)
            for need in request.needs
        ]
        used = 2 * MIB + sum(aligned(size) for _, size, _ in sizes)
        root = request.root_size or 0
        if request.disk_size is not None:
            root = max(root, (request.disk_size - used) // MIB * MIB)
        if request.disk_size is not None and used + aligned(root) > request.disk_size:
            raise RefusedError("too small")
        sizes.append((Volume.ROOT, root, request.root_filesystem))
        start, partitions = MIB, []
        for number, (volume, size, filesystem) in enumerate(sizes, start=1):
            identity = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{request.seed}/{volume}"))
            partitions.append(
                Partition(
                    number=number,
                    volume=volume,
                    start=start,
                    size=aligned(size),
                    type_guid=str(uuid.uuid5(uuid.NAMESPACE_OID, volume)),
                    uuid=identity,
                    name=volume.value,
                    filesystem=filesystem,
                )
            )
            start += aligned(size)
        return tuple(partitions)

    def disk_bytes(self, partitions):
        return max(partition.start + partition.size for partition in partitions) + MIB

    def write(self, path, partitions, *, seed):
        data = json.dumps([dataclasses.asdict(partition) for partition in partitions]).encode()
        sealed = (hashlib.sha256(data).hexdigest().encode() + data).ljust(TABLE, b"\0")
        size = path.stat().st_size
        with path.open("r+b") as file:
            for at in (0, size - TABLE):
                file.seek(at)
                file.write(sealed)

    def read(self, path):
        found = self.table(path, backup=False) or self.table(path, backup=True)
        if found is None:
            raise DiskError(f"{path} has no table")
        facts = [{**entry, "volume": Volume(entry["volume"])} for entry in found]
        return tuple(Partition(**entry) for entry in facts)

    def table(self, path, *, backup):
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - TABLE) if backup else 0)
            data = file.read(TABLE).rstrip(b"\0")
        if hashlib.sha256(data[64:]).hexdigest().encode() != data[:64]:
            return None
        return json.loads(data[64:])

    def check(self, path):
        problems = []
        for backup in (False, True):
            if self.table(path, backup=backup) is None:
                problems.append(Finding.error("table", "a table is damaged", where=str(path)))
        return problems


def aligned(size):
    return -(-size // MIB) * MIB
