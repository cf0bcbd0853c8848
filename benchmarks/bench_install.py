"""A whole install to a disk image, from an OCI directory: cold (nothing pulled) and warm, and the same image doubled.

    python benchmarks/bench_install.py [oci:DIR:TAG]

Without an image, one of 500 MB is made. No peer does the same work without root; the table is for ourselves.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from builders import bootable
from common import report, run_interleaved

from cfs_testkit.builders.oci import File

FILES = 5000
MEGABYTE = 1_000_000


def synthetic(folder: Path, megabytes: int) -> str:
    """Write an image with that much content that does not compress well; return its reference."""
    source = random.Random(megabytes)  # noqa: S311 - content for a measurement
    size = megabytes * MEGABYTE // FILES
    files = {f"usr/share/data/{number // 100}/{number}": File(source.randbytes(size)) for number in range(FILES)}
    return bootable.layout(folder / f"oci-{megabytes}", latest=bootable.image(compression="zstd", **files)) + ":latest"


def made(folder: Path, megabytes: int) -> tuple[str, str]:
    """Make an image in a process of its own, whose memory nobody measures."""
    with ProcessPoolExecutor(1) as pool:
        return f"{megabytes} MB", pool.submit(synthetic, folder, megabytes).result()


def main() -> None:
    """Run the benchmark."""
    cfs = str(Path(sys.executable).with_name("cfs"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = {"given": sys.argv[1]} if sys.argv[1:] else dict(made(folder, size) for size in (250, 500))
        for label, reference in images.items():
            install = [cfs, "install", "to-disk", "--yes", "--source-imgref", reference, "--repo"]
            clean = ["sh", "-c", 'rm -rf "$1"; shift; exec "$@"', "sh", os.fspath(folder / "cold")]
            costs = run_interleaved(
                {
                    f"{label}, cold": [*clean, *install, folder / "cold", folder / "cold.img"],
                    f"{label}, warm": [*install, folder / "warm", folder / "warm.img"],
                },
                runs=2,
            )
            report(costs, f"{label}, cold")


if __name__ == "__main__":
    main()
