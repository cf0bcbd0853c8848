"""From a dump file to an EROFS image: 100,000 inodes, against mkcomposefs --from-file.

    python benchmarks/bench_erofs_write.py [DUMP]

Without a dump file, a tree like a distribution's is made: stored files in directories of some twenty, one in ten small,
one in ten a link, some contents shared. V1 includes parsing the dump, as mkcomposefs has to; the target is 2.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from common import judge, python, report, run_interleaved

if TYPE_CHECKING:
    from collections.abc import Iterator

INODES = 100_000
REFERENCE = "mkcomposefs --from-file"
OURS = """
import sys
from cfs_core.plugin import FormatVersion, HashAlgorithm
from cfs_storage_composefs.dump.read import read_dump
from cfs_storage_composefs.erofs.write import write_erofs
with open(sys.argv[1], "rb") as dump:
    tree = read_dump(dump)
with open(sys.argv[2], "wb") as out:
    out.write(write_erofs(tree, FormatVersion(sys.argv[3]), HashAlgorithm.SHA256))
"""


def make_dump(path: Path, inodes: int) -> None:
    """Write a dump file with *inodes* lines, the same every time."""
    with path.open("w") as out:
        out.writelines(dump_lines(inodes))


def dump_lines(inodes: int) -> Iterator[str]:
    """Yield the lines of a tree."""
    chooser = random.Random(1)  # noqa: S311 - the same tree every time, no secret
    yield "/ 0 40755 3 0 0 0 1700000000.0 - - -\n"
    directories = [""]
    shared = [chooser.randbytes(32).hex() for _ in range(50)]
    for number in range(1, inodes):
        name = f"{chooser.choice(directories)}/entry-{number:06}"
        label = chooser.choice(["", " security.selinux=system_u:object_r:usr_t:s0"])
        time = f"{1_600_000_000 + chooser.randrange(1000)}.0"
        kind = chooser.randrange(20)
        if kind == 0:
            directories.append(name)
            yield f"{name} 0 40755 2 0 0 0 {time} - - -{label}\n"
        elif kind in {1, 2}:
            yield f"{name} 9 120777 1 0 0 0 {time} ../target - -{label}\n"
        elif kind in {3, 4}:
            yield f"{name} 11 100644 1 0 0 0 {time} - hello\\x20world -{label}\n"
        else:
            digest = chooser.choice(shared) if kind in {5, 6} else chooser.randbytes(32).hex()
            size = chooser.randrange(65, 200_000)
            yield f"{name} {size} 100644 1 0 0 0 {time} {digest[:2]}/{digest[2:]} - {digest}{label}\n"


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "tree.dump"
        if len(sys.argv) == 1:
            make_dump(dump, INODES)
        images = {version: Path(folder) / version for version in ("v1", "v2")}
        programs = {
            f"cfs, dump to {version.upper()}": python(OURS, dump, image, version) for version, image in images.items()
        }
        mkcomposefs = judge("mkcomposefs")
        theirs = Path(folder) / "c"
        if mkcomposefs is not None:
            programs[REFERENCE] = [mkcomposefs, "--min-version=1", "--from-file", dump, theirs]
        costs = run_interleaved(programs, runs=5)
        report(costs, REFERENCE, 2.0)
        if mkcomposefs is not None and theirs.read_bytes() != images["v1"].read_bytes():
            sys.exit("the V1 images differ")


if __name__ == "__main__":
    main()
