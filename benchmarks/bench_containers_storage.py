"""Importing an image from podman's store: cfs, ``skopeo copy containers-storage: oci:``, cfsctl.

    python benchmarks/bench_containers_storage.py [--megabytes 1200] [--driver overlay|vfs] [--rounds 2] [--scratch DIR]

The image is made of files of this machine's /usr and put into a store of its own by skopeo. Time is that of the whole
process and of writing everything to disk. cfs and cfsctl end with an image that can be mounted, skopeo with compressed
blobs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench_pull import make_image
from contest import cfs, cfsctl_repository, measured, store_conf

if TYPE_CHECKING:
    from collections.abc import Iterator


def contenders(scratch: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield name and command."""
    source = "containers-storage:localhost/bench:1"
    yield "cfs image pull", [cfs(), "image", "pull", source, "--repo", str(scratch / "cfs")]
    skopeo = ["skopeo", "--insecure-policy", "copy", "-q", source]
    yield "skopeo copy to oci:", [*skopeo, f"oci:{scratch}/oci:x"]
    yield "skopeo copy to dir:", [*skopeo, "--dest-decompress", f"dir:{scratch}/dir"]
    if (repository := cfsctl_repository(scratch / "cfsctl")) is not None:
        yield "cfsctl oci pull", ["cfsctl", "--repo", repository, "oci", "pull", "--bootable", source, "bench"]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1200)
    parser.add_argument("--driver", choices=("overlay", "vfs"), default="overlay")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-storage-", dir=arguments.scratch) as below:
        scratch = Path(below)
        files, total = make_image(scratch / "layout", arguments.megabytes, "none")
        env = {"CONTAINERS_STORAGE_CONF": str(store_conf(scratch, "store", arguments.driver))}
        load = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{scratch}/layout:bench"]
        subprocess.run([*load, "containers-storage:localhost/bench:1"], check=True, env={**os.environ, **env})
        shutil.rmtree(scratch / "layout")
        print(f"{files} files, {total / 1e6:.0f} MB, from a store with driver {arguments.driver}")
        for number in range(arguments.rounds):
            place = scratch / f"round{number}"
            place.mkdir()
            for name, argv in contenders(place):
                print(measured(argv, place, env).line(name, total), flush=True)


if __name__ == "__main__":
    main()
