"""Parsing, writing and reading back: dump file to tree, tree to dump file, image to tree, each for 100,000 inodes.

    python benchmarks/bench_dump_parse.py [DUMP]

CPU seconds of this process, the best of three; rates in lines or inodes a second. The dump is bench_erofs_write's.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench_erofs_write import INODES, make_dump

from cfs_core.plugin import FormatVersion, HashAlgorithm
from cfs_storage_composefs.dump.read import read_dump, write_dump
from cfs_storage_composefs.erofs.read import read_erofs, referenced_objects
from cfs_storage_composefs.erofs.write import write_erofs

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 3


def best(action: Callable[[], object]) -> float:
    """Return the least CPU seconds that *action* took."""
    times = []
    for _ in range(RUNS):
        begun = time.process_time()
        action()
        times.append(time.process_time() - begun)
    return min(times)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "tree.dump"
        if len(sys.argv) == 1:
            make_dump(path, INODES)
        text = path.read_bytes()
    algorithm = HashAlgorithm.SHA256
    tree = read_dump(io.BytesIO(text))
    image = write_erofs(tree, FormatVersion.V1, algorithm)
    count = text.count(b"\n")
    actions: dict[str, Callable[[], object]] = {
        "parse dump file": lambda: read_dump(io.BytesIO(text)),
        "write dump file": lambda: write_dump(tree, io.BytesIO(), algorithm),
        "write V1 image": lambda: write_erofs(tree, FormatVersion.V1, algorithm),
        "write V2 image": lambda: write_erofs(tree, FormatVersion.V2, algorithm),
        "read V1 image": lambda: read_erofs(image),
        "list objects of V1 image": lambda: referenced_objects(image),
    }
    print(f"{count} lines, {len(text)} bytes; image of {len(image)} bytes")
    for name, action in actions.items():
        seconds = best(action)
        print(f"{name:<28}{seconds:8.2f} s{count / seconds:12.0f}/s")


if __name__ == "__main__":
    main()
