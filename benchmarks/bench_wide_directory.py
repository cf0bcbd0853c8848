"""An ext4 with one directory of many names: seconds to make it, by number of names.

    python benchmarks/bench_wide_directory.py [NAMES...] [--directories] [--staging] [--directory DIR]

Needs e2fsprogs; no root. Time for each name must not grow with their number. ``--directories`` makes subdirectories
instead of empty files; ``--staging`` takes the route for e2fsprogs before 1.47.1.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from cfs_core.plugin import (
    BytesContent,
    CopyObject,
    Location,
    MakeDirectory,
    Partition,
    PlacingAction,
    PluginContext,
    Region,
    Volume,
)
from cfs_core.system.command import HostCommands
from cfs_disk.ext4.filesystem import Ext4Filesystem

EPOCH = 1_700_000_000


class Quiet:
    """Progress and log that nobody looks at."""

    def debug(self, *_args: object, **_facts: object) -> None:
        """Do nothing."""

    info = warning = error = start = advance = finish = debug


def contents(count: int, *, directories: bool) -> dict[str, PlacingAction]:
    """Return a root with one directory of *count* names of 66 bytes."""
    made: dict[str, PlacingAction] = {}
    for path in ("/", "/wide"):
        made[path] = MakeDirectory(location=Location(Volume.ROOT, path), why="benchmark")
    for number in range(count):
        where = Location(Volume.ROOT, f"/wide/{'n' * 60}{number:06d}")
        if directories:
            made[where.path] = MakeDirectory(location=where, why="benchmark")
        else:
            made[where.path] = CopyObject(location=where, source=BytesContent(b""), why="benchmark")
    return made


def measure(count: int, options: argparse.Namespace, folder: Path) -> None:
    """Make one filesystem and check it."""
    tree = contents(count, directories=options.directories)
    context = PluginContext(
        provider="ext4",
        commands=HostCommands(os.environ),
        progress=Quiet(),
        log=Quiet(),
        scratch=folder,
        source_date_epoch=EPOCH,
        seed="benchmark",
    )
    filesystem = Ext4Filesystem(context, prefer_tar=not options.staging)
    image = folder / "disk.img"
    size = filesystem.bytes_needed(tree)
    with image.open("wb") as file:
        file.truncate(size)
    region = Region(path=image, offset=0, size=size)
    partition = Partition(number=1, volume=Volume.ROOT, start=0, size=size, type_guid="", uuid="", name="root")
    started, used = time.perf_counter(), sum(os.times()[:4])
    filesystem.build(tree, partition, region)
    wall, cpu = time.perf_counter() - started, sum(os.times()[:4]) - used
    problems = len(filesystem.check(region))
    print(f"{count:9,} names  {wall:8.2f} s  {cpu:8.2f} s CPU  {cpu / count * 1e6:6.0f} µs a name  {problems} problems")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", type=int, default=[20_000, 200_000])
    parser.add_argument("--directories", action="store_true")
    parser.add_argument("--staging", action="store_true")
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    for count in options.names:
        with tempfile.TemporaryDirectory(dir=options.directory) as folder:
            measure(count, options, Path(folder))


if __name__ == "__main__":
    main()
