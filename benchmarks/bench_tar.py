"""Reading tar headers: our reader and Python's tarfile over the same archive, contents skipped.

    python benchmarks/bench_tar.py [ARCHIVE.tar]

Without an archive GNU tar packs small files of /usr in GNU and pax format. CPU seconds are those of this process, the
best of three runs without garbage collection.
"""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.tar import read_members

if TYPE_CHECKING:
    from collections.abc import Callable

PATHS = ("usr/share", "usr/lib")
FILES_LIMIT = 200_000
RUNS = 3


def ours(data: bytes) -> int:
    """Read all headers with `read_members`."""
    source = io.BytesIO(data)
    count = 0
    for member in read_members(source):
        count += member.entry is not None
        if member.size:
            source.seek(member.size, io.SEEK_CUR)
    return count


def theirs(data: bytes) -> int:
    """Read all headers with tarfile, by seeking."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return sum(1 for _ in tar)


def theirs_streaming(data: bytes) -> int:
    """Read all headers with tarfile as a stream, as a layer has to be read."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as tar:
        return sum(1 for _ in tar)


def best(read: Callable[[bytes], int], data: bytes) -> tuple[float, int]:
    """Return CPU seconds and entries."""
    times, count = [], 0
    for _ in range(RUNS):
        gc.collect()
        gc.disable()
        begun = time.process_time()
        count = read(data)
        times.append(time.process_time() - begun)
        gc.enable()
    return min(times), count


def pack(directory: Path, form: str) -> Path:
    """Make an archive of small files of this machine."""
    names = directory / "names"
    found = subprocess.run(
        ["find", *PATHS, "-size", "-4k", "-print0"], cwd="/", capture_output=True, check=False
    ).stdout.split(b"\0")[:FILES_LIMIT]
    names.write_bytes(b"\0".join(found))
    out = directory / f"{form}.tar"
    argv = ["tar", "-C", "/", f"--format={form}", "--no-recursion", "--null", "-T", str(names), "-cf", str(out)]
    subprocess.run(argv, check=False, capture_output=True)
    return out


def report(title: str, data: bytes) -> None:
    """Print one table."""
    print(f"{title}: {len(data) / 1e6:.0f} MB")
    for name, read in (("cfs", ours), ("tarfile r:", theirs), ("tarfile r|", theirs_streaming)):
        seconds, count = best(read, data)
        rate = f"{count / seconds / 1000:8.0f} k entries/s  {seconds / count * 1e6:6.2f} us each"
        print(f"  {name:12} {count:8} entries {seconds:7.3f} s {rate}")


def main() -> None:
    """Run it."""
    if len(sys.argv) > 1:
        report(sys.argv[1], Path(sys.argv[1]).read_bytes())
        return
    with tempfile.TemporaryDirectory() as scratch:
        for form in ("gnu", "pax"):
            report(f"GNU tar, {form} format", pack(Path(scratch), form).read_bytes())


if __name__ == "__main__":
    main()
