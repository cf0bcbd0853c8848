"""Making a disk image with many fs-verity objects: seconds and peak memory of each part.

    python benchmarks/bench_disk.py [--files 50000] [--mean 10000] [--hash sha512] [--staging] [--directory DIR]

Needs e2fsprogs and dosfstools; no root. The objects are kept in files, as a repository keeps them. ``--staging`` takes
the route for e2fsprogs before 1.47.1. Peak memory is that of this process.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    Architecture,
    CopyObject,
    FileContent,
    HashAlgorithm,
    LayoutRequest,
    Location,
    PluginContext,
    Volume,
    VolumeNeed,
    WriteFile,
)
from cfs_core.system.command import HostCommands
from cfs_core.target.image import ImageTarget
from cfs_core.target.memory import MemoryTarget
from cfs_core.target.read import open_disk
from cfs_disk.ext4.filesystem import Ext4Filesystem
from cfs_disk.gpt.layout import GptLayout
from cfs_disk.vfat.filesystem import VfatFilesystem

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
EPOCH = 1_700_000_000


class Quiet:
    """Progress and log that nobody looks at."""

    def debug(self, *_args: object, **_facts: object) -> None:
        """Do nothing."""

    info = warning = error = start = advance = finish = debug


@contextmanager
def lap(what: str) -> Iterator[None]:
    """Print how long the block took."""
    started = time.perf_counter()
    yield
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{what:34} {time.perf_counter() - started:7.2f} s   peak so far {memory} MiB")


def make_objects(directory: Path, count: int, mean: int) -> list[tuple[str, Path, int]]:
    """Write *count* files with sizes like those of /usr: many small ones, few large ones."""
    source = random.Random(1)  # noqa: S311 - not a secret
    noise = source.randbytes(4 * MIB)
    made = []
    for number in range(count):
        size = min(1 + int(source.expovariate(1 / mean)), 3 * MIB)
        start = source.randrange(MIB)
        name = hashlib.sha512(str(number).encode()).hexdigest()
        path = directory / name[:2] / name[2:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(noise[start : start + size])
        made.append((f"/composefs/objects/{name[:2]}/{name[2:]}", path, size))
    return made


def bench(base: Path, options: argparse.Namespace) -> None:
    """Run all parts once."""
    objects, scratch = base / "objects", base / "scratch"
    objects.mkdir()
    scratch.mkdir()
    algorithm = HashAlgorithm(options.hash)
    context = PluginContext(
        provider="bench",
        commands=HostCommands(os.environ),
        progress=Quiet(),
        log=Quiet(),
        scratch=scratch,
        source_date_epoch=EPOCH,
        seed="bench",
    )
    root = Ext4Filesystem(context, prefer_tar=not options.staging)
    by_name = {"ext4": root, "vfat": VfatFilesystem(context)}
    with lap("(objects written for the test)"):
        made = make_objects(objects, options.files, options.mean)
    print(f"{options.files} objects, {sum(size for _, _, size in made) / MIB:.0f} MiB, {algorithm}")
    actions = [
        CopyObject(why="object", location=Location(Volume.ROOT, name), source=FileContent(path, size), verity=algorithm)
        for name, path, size in made
    ]
    kernel = WriteFile(why="kernel", location=Location(Volume.ESP, "/EFI/Linux/uki.efi"), data=os.urandom(60 * MIB))
    layout = GptLayout()
    with lap("plan: volumes, estimate"):
        planned = MemoryTarget()
        for planned_action in actions:
            planned.apply(planned_action)
        needed = root.bytes_needed(planned.contents(Volume.ROOT))
    partitions = layout.plan(
        LayoutRequest(
            needs=(
                VolumeNeed(volume=Volume.ESP, bytes_needed=70 * MIB, filesystems=("vfat",)),
                VolumeNeed(volume=Volume.ROOT, bytes_needed=needed),
            ),
            architecture=Architecture.AMD64,
            root_filesystem="ext4",
            seed="bench",
        )
    )
    filesystems = {part.volume: by_name[part.filesystem or ""] for part in partitions}
    disk = base / "disk.img"
    memory = MemoryTarget(partitions, commands=context.commands, scratch=scratch)
    with lap("apply actions"):
        for action in (*actions, kernel):
            memory.apply(action)
    with ImageTarget(disk, memory, layout=layout, filesystems=filesystems) as target:
        with lap("build the disk"):
            target.build()
        target.publish()
    used = disk.stat().st_blocks * 512
    print(f"disk of {disk.stat().st_size / MIB:.0f} MiB uses {used / MIB:.0f} MiB")
    with open_disk(disk, layout, by_name) as image:
        with lap("check: GPT, e2fsck, trees, fsck.fat"):
            problems = list(image.check())
        reader = image.reader(Volume.ROOT)
        with lap("measure all digests"):
            digests = [reader.verity_digest(name) for name, _, _ in made] if reader else []
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(digests)} digests, {len(problems)} problems; tools took", end=" ")
    print(f"{children.ru_utime + children.ru_stime:.1f} CPU s")


def main() -> None:
    """Parse options, run in a directory that goes away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--mean", type=int, default=10_000, help="mean size in bytes")
    parser.add_argument("--hash", choices=[str(algorithm) for algorithm in HashAlgorithm], default="sha512")
    parser.add_argument("--staging", action="store_true")
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-disk-", dir=options.directory) as directory:
        bench(Path(directory), options)


if __name__ == "__main__":
    main()
