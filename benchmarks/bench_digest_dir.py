"""Digesting a directory: scanning it, its EROFS image and the image's digest, against mkcomposefs with one thread.

    python benchmarks/bench_digest_dir.py [DIRECTORY]

Without a directory, /usr. Both read all files (the first run warms the page cache); SHA-256, which is all that
mkcomposefs knows, and SHA-512 for comparison. The target is 1.3.
"""

from __future__ import annotations

import sys

from common import judge, python, report, run, run_interleaved

REFERENCE = "mkcomposefs --threads=1"
OURS = """
import sys
from cfs_core.plugin import FormatVersion, HashAlgorithm
from cfs_storage_composefs.erofs.write import write_erofs
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.trees.scan import scan_directory
algorithm = HashAlgorithm(sys.argv[2])
image = write_erofs(scan_directory(sys.argv[1], algorithm), FormatVersion.V1, algorithm)
print(digest_bytes(image, algorithm).hex())
"""


def main() -> None:
    """Measure and print."""
    directory = sys.argv[1] if len(sys.argv) > 1 else "/usr"
    programs = {f"cfs, {algorithm}": python(OURS, directory, algorithm) for algorithm in ("sha256", "sha512")}
    mkcomposefs = judge("mkcomposefs")
    if mkcomposefs is not None:
        programs[REFERENCE] = [mkcomposefs, "--threads=1", "--min-version=1", "--print-digest-only", directory]
    run(next(iter(programs.values())))
    report(run_interleaved(programs), REFERENCE, 1.3)


if __name__ == "__main__":
    main()
