"""Pulling from an OCI directory into a new repository: ``cfs image pull``, and ``cfsctl oci pull`` if installed.

    python benchmarks/bench_pull.py [--megabytes 1000] [--compression gzip|zstd|none] [--double] [--scratch DIR]
                                   [--layers 4,65] [--processors 1,2,all] [--runs 3] [--plot NAME]

The image is made of files of this machine's /usr (below 2 MB each: as many per MB as distributions have), in
``--layers`` layers. ``--processors`` limits both programs to that many, in ``--runs`` runs in turn.
``--double`` pulls one twice as large, too. Both programs start with an empty directory on the same filesystem
and end with everything synced, plain and bootable image made. Times are of whole processes, children that they waited
for included; memory is the peak of the largest of them. Memory grows with the number of files (the tree and its
image), not with their size. ``--plot`` writes the medians as ``NAME-time.svg`` and ``NAME-processor.svg``.

No repository is removed before the end: for a minute ext4 gives out no inode that was just freed, and looks through
all of them for each new file, so that removing one run's files would cost the next one several times its own work.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard
from common import judge
from plot import write_bars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CHUNK = 1 << 20
LARGEST = 2_000_000
OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    user_seconds: float
    kernel_seconds: float
    peak_megabytes: float
    status: int

    @property
    def cpu_seconds(self) -> float:
        """Of all processors together."""
        return self.user_seconds + self.kernel_seconds


def measured(argv: list[str]) -> Run:
    """Run a program to its end."""
    begun = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    return Run(seconds, usage.ru_utime, usage.ru_stime, usage.ru_maxrss / 1024, process.returncode)


def chosen_files(size: int) -> Iterator[tuple[str, int]]:
    """Yield readable files of /usr until they have *size* bytes together."""
    for directory, names, files in os.walk("/usr"):
        names.sort()
        for name in sorted(files):
            path = f"{directory}/{name}"
            with contextlib.suppress(OSError):
                bytes_here = os.lstat(path).st_size
                if bytes_here > LARGEST or os.path.islink(path) or not os.access(path, os.R_OK):  # noqa: PTH114 - a million of them
                    continue
                yield path, bytes_here
                size -= bytes_here
                if size <= 0:
                    return


def parents(path: str) -> list[str]:
    """Return the directories above a path, topmost first."""
    parts = path.strip("/").split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def tar_of(files: list[str], seen: set[str], scratch: Path) -> Path:
    """Pack files and the directories above them that no layer has so far."""
    names = []
    for path in files:
        for parent in parents(path):
            if parent not in seen:
                seen.add(parent)
                names.append(parent)
        names.append(path.lstrip("/"))
    listed = scratch / "names"
    listed.write_bytes(b"\0".join(os.fsencode(name) for name in names))
    out = scratch / "layer.tar"
    argv = ["tar", "-C", "/", "--format=pax", "--no-recursion", "--null", "-T", str(listed), "-cf", str(out)]
    subprocess.run(argv, check=True, capture_output=True)
    return out


def compressor(kind: str) -> tuple[str, Callable[[bytes], bytes], Callable[[], bytes]]:
    """Return media type suffix and the two steps of a compression."""
    if kind == "gzip":
        gzip = zlib.compressobj(1, wbits=31)
        return "+gzip", gzip.compress, gzip.flush
    if kind == "zstd":
        zstd = zstandard.ZstdCompressor(level=3).compressobj()
        return "+zstd", zstd.compress, zstd.flush
    return "", lambda data: data, lambda: b""


class Layout:
    """An OCI layout in the making."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blobs = directory / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.layers: list[dict[str, object]] = []
        self.diff_ids: list[str] = []

    def put(self, data: bytes) -> str:
        """Write a blob and return its digest."""
        name = hashlib.sha256(data).hexdigest()
        (self.blobs / name).write_bytes(data)
        return f"sha256:{name}"

    def add_layer(self, tar: Path, kind: str) -> None:
        """Compress and add a layer."""
        suffix, compress, flush = compressor(kind)
        whole, blob = hashlib.sha256(), hashlib.sha256()
        size = 0
        made = self.directory / "blob"
        with tar.open("rb") as source, made.open("wb") as out:
            while True:
                chunk = source.read(CHUNK)
                whole.update(chunk)
                packed = compress(chunk) if chunk else flush()
                blob.update(packed)
                size += out.write(packed)
                if not chunk:
                    break
        made.rename(self.blobs / blob.hexdigest())
        media = f"{OCI}.layer.v1.tar{suffix}"
        self.layers.append({"mediaType": media, "digest": f"sha256:{blob.hexdigest()}", "size": size})
        self.diff_ids.append(f"sha256:{whole.hexdigest()}")

    def finish(self) -> None:
        """Write config, manifest and index."""
        rootfs = {"type": "layers", "diff_ids": self.diff_ids}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
        config_entry = {"mediaType": f"{OCI}.config.v1+json", "digest": self.put(config), "size": len(config)}
        media = f"{OCI}.manifest.v1+json"
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": media, "config": config_entry, "layers": self.layers}
        ).encode()
        entry = {
            "mediaType": media,
            "digest": self.put(manifest),
            "size": len(manifest),
            "annotations": {"org.opencontainers.image.ref.name": "bench"},
        }
        (self.directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (self.directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def base_layer() -> bytes:
    """Return a tar of the directories that a bootable image has."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("usr", "boot", "sysroot", "etc", "var"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
    return out.getvalue()


def make_image(
    directory: Path, megabytes: int, kind: str, more: Sequence[Path] = (), *, layers: int = 4
) -> tuple[int, int]:
    """Make the layout, with the tars *more* as further layers; return files and bytes before compression."""
    layout = Layout(directory)
    seen = {"usr"}
    tar = directory / "base.tar"
    tar.write_bytes(base_layer())
    layout.add_layer(tar, kind)
    tar.unlink()
    pending: list[str] = []
    count = total = size = 0
    share = megabytes * 1_000_000 // layers

    def flush() -> None:
        nonlocal total
        made = tar_of(pending, seen, directory)
        total += made.stat().st_size
        layout.add_layer(made, kind)
        made.unlink()
        pending.clear()

    for path, bytes_here in chosen_files(megabytes * 1_000_000):
        pending.append(path)
        count += 1
        size += bytes_here
        if size >= share:
            flush()
            size = 0
    if pending:
        flush()
    for tar in more:
        total += tar.stat().st_size
        layout.add_layer(tar, kind)
    layout.finish()
    return count, total


def contenders(layout: Path, scratch: Path, runs: int, processors: str) -> Iterator[tuple[str, list[str]]]:
    """Yield names and commands; repositories are made before the clock starts."""
    source = f"oci:{layout}:bench"
    cfs = [str(Path(sys.executable).with_name("cfs"))]
    for number in range(runs):
        name = f"{processors}-{number}"
        yield "cfs image pull", [*cfs, "image", "pull", source, "--repo", str(scratch / f"cfs-{name}")]
        if cfsctl := judge("cfsctl"):
            repository = str(scratch / f"cfsctl-{name}")
            subprocess.run([cfsctl, "init", "--insecure", repository], check=True, capture_output=True)
            yield "cfsctl oci pull", [cfsctl, "--repo", repository, "oci", "pull", "--bootable", source, "bench"]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--compression", choices=("gzip", "zstd", "none"), default="gzip")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--layers", default="4", help="numbers, with commas between")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--processors", default="all", help="numbers, or all, with commas between")
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    sizes = [arguments.megabytes, arguments.megabytes * 2] if arguments.double else [arguments.megabytes]
    with tempfile.TemporaryDirectory(prefix="bench-pull-", dir=arguments.scratch) as below:
        medians: dict[str, dict[str, Run]] = {}
        for megabytes, layers in itertools.product(sizes, map(int, arguments.layers.split(","))):
            scratch = Path(below) / f"{megabytes}-{layers}"
            scratch.mkdir()
            files, total = make_image(scratch / "layout", megabytes, arguments.compression, layers=layers)
            print(f"{files} files, {total / 1e6:.0f} MB in {layers + 1} layers, {arguments.compression}")
            for processors in arguments.processors.split(","):
                name = f"{layers} × {processors}" if len(sizes) == 1 else f"{megabytes} MB, {layers} × {processors}"  # noqa: RUF001
                medians[name] = race(scratch, processors, arguments.runs, total)
        if arguments.plot:
            plot(arguments.plot, f"{arguments.megabytes} MB, {arguments.compression}", medians)


def plot(path: Path, what: str, medians: dict[str, dict[str, Run]]) -> None:
    """Write two charts of the medians: time, and processor time."""
    unit = "layers × processors"  # noqa: RUF001
    for kind, title in (("seconds", "time"), ("cpu_seconds", "processor")):
        groups = {name: {each: getattr(run, kind) for each, run in runs.items()} for name, runs in medians.items()}
        chart = path.with_name(f"{path.name}-{title}.svg")
        write_bars(chart, f"Pull of {what}: {title}, seconds, by {unit}", "", groups)


def middle(runs: list[Run]) -> Run:
    """Return the medians of each figure."""
    return Run(*(statistics.median(getattr(run, each.name) for run in runs) for each in fields(Run)))


def race(scratch: Path, processors: str, runs: int, total: int) -> dict[str, Run]:
    """Run both programs in turn on that many processors, print each run and return the medians; *total* is in bytes."""
    mine = sorted(os.sched_getaffinity(0))
    chosen = mine if processors == "all" else mine[: int(processors)]
    found: dict[str, list[Run]] = {}
    os.sched_setaffinity(0, chosen)
    try:
        for name, argv in contenders(scratch / "layout", scratch, runs, processors):
            run = measured(argv)
            found.setdefault(name, []).append(run)
            print(
                f"  {len(chosen):3} processors  {name:16} {run.seconds:7.2f} s  "
                f"{run.user_seconds:7.2f} s user  {run.kernel_seconds:6.2f} s kernel  "
                f"{total / 1e6 / run.seconds:6.0f} MB/s  peak {run.peak_megabytes:5.0f} MB"
                + (f"  FAILED ({run.status})" if run.status else ""),
                flush=True,
            )
    finally:
        os.sched_setaffinity(0, mine)
    medians = {name: middle(each) for name, each in found.items()}
    shown = ", ".join(f"{name} {run.seconds:.2f} s, {run.cpu_seconds:.2f} s CPU" for name, run in medians.items())
    print(f"  {len(chosen):3} processors, medians: {shown}")
    if len(found) > 1:
        pairs = list(zip(*found.values(), strict=True))
        time_ratio = statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)
        cpu_ratio = statistics.median(ours.cpu_seconds / theirs.cpu_seconds for ours, theirs in pairs)
        print(f"  {len(chosen):3} processors, ratios pair by pair: time {time_ratio:.2f}, processor {cpu_ratio:.2f}")
    return medians


if __name__ == "__main__":
    main()
