"""Sealing an image against computing its digest once: ``cfs seal`` and ``cfs image digest --bootable``.

    python benchmarks/bench_seal.py [--megabytes 1000] [--quick] [--kernel 60] [--rounds 3] [--scratch DIR]

The image is made of files of this machine's /usr, with a kernel and an initramfs of ``--kernel`` MB together and
systemd-boot's stub; it is sealed with a key in a file into another OCI directory, where its layers are already: so it
is in a registry that has the image. What is written there is told; it is one layer. ``--quick`` takes 200 MB, with
which building the UKI weighs more than it should.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_pull import make_image
from common import judge, report, run_interleaved
from contest import cfs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
TARGET = 1.2
QUICK = 200


def boot_layer(path: Path, megabytes: int) -> None:
    """Write a layer with what a sealed image starts from."""
    from builders import bootable

    from cfs_testkit.builders.oci import File, layer

    tree = bootable.tree(loader=False)
    kernel = tree[f"{bootable.MODULES}/vmlinuz"].data + os.urandom(megabytes * 1_000_000)
    stub = {f"usr/lib/systemd/boot/efi/{STUB.name}": File(STUB.read_bytes())}
    files = {**tree, **stub, f"{bootable.MODULES}/vmlinuz": File(kernel)}
    path.write_bytes(layer(files).tar)


def make_key(folder: Path) -> list[str]:
    """Make a key and its certificate; return them as options."""
    key, certificate = folder / "db.key", folder / "db.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench", "-keyout", str(key)]
    subprocess.run([*argv, "-out", str(certificate)], check=True, capture_output=True)
    return ["--key", str(key), "--certificate", str(certificate)]


def bytes_of(layout: Path) -> int:
    """Return what the blobs of a layout take, in bytes."""
    return sum(path.stat().st_size for path in (layout / "blobs/sha256").iterdir())


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kernel", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path)
    arguments = parser.parse_args()
    ukify = judge("ukify")
    if ukify is None or not STUB.is_file():
        print(f"ukify or {STUB} is not installed")
        return
    os.environ["PATH"] += f"{os.pathsep}{Path(ukify).parent}"
    os.environ["SOURCE_DATE_EPOCH"] = "1750000000"  # the same bytes each round
    with tempfile.TemporaryDirectory(prefix="bench-seal-", dir=arguments.scratch) as below:
        scratch = Path(below)
        boot_layer(scratch / "boot.tar", arguments.kernel)
        megabytes = QUICK if arguments.quick else arguments.megabytes
        files, total = make_image(scratch / "image", megabytes, "gzip", [scratch / "boot.tar"])
        print(f"{files} files, {total / 1e6:.0f} MB")
        source, target = f"oci:{scratch}/image:bench", f"oci:{scratch}/there:sealed"
        subprocess.run([cfs(), "image", "copy", source, f"oci:{scratch}/there:plain"], check=True, capture_output=True)
        before = bytes_of(scratch / "there")
        programs = {
            "cfs seal": [cfs(), "seal", source, target, *make_key(scratch)],
            "cfs image digest --bootable": [cfs(), "image", "digest", source, "--bootable"],
        }
        report(run_interleaved(programs, arguments.rounds), "cfs image digest --bootable", TARGET)
        print(f"written beside the layers that were there: {(bytes_of(scratch / 'there') - before) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
