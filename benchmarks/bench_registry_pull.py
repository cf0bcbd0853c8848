"""Pulling an image from a registry on loopback: cfs, ``skopeo copy`` to an OCI directory, ``podman pull``, cfsctl.

    python benchmarks/bench_registry_pull.py [--megabytes 1200] [--compression gzip|zstd|none] [--rounds 2]

Debian's docker-registry serves an image made of files of this machine's /usr. Every contender starts with an empty
place on the same filesystem; time is that of the whole process and of writing everything to disk. cfs and cfsctl end
with an
image that can be mounted, skopeo with compressed blobs as they came, podman with unpacked layers.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench_pull import make_image
from contest import cfs, cfsctl_repository, insecure_conf, measured, registry, store_conf

if TYPE_CHECKING:
    from collections.abc import Iterator

    Contender = tuple[str, list[str], dict[str, str]]


def contenders(source: str, scratch: Path, conf: Path) -> Iterator[Contender]:
    """Yield name, command and environment."""
    plain = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
    yield "cfs image pull", [cfs(), "image", "pull", f"docker://{source}", "--repo", str(scratch / "cfs")], plain
    skopeo = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{source}"]
    yield "skopeo copy to oci:", [*skopeo, f"oci:{scratch}/oci:x"], {}
    store = {"CONTAINERS_STORAGE_CONF": str(store_conf(scratch, "podman", "overlay"))}
    yield "podman pull", ["podman", "pull", "-q", "--tls-verify=false", source], store
    if (repository := cfsctl_repository(scratch / "cfsctl")) is not None:
        command = ["cfsctl", "--repo", repository, "oci", "pull", "--bootable", f"docker://{source}", "bench"]
        # cfsctl asks skopeo, which knows the home directory only
        yield "cfsctl oci pull", command, {"HOME": str(conf.parents[2])}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1200)
    parser.add_argument("--compression", choices=("gzip", "zstd", "none"), default="gzip")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-registry-", dir=arguments.scratch) as below,
        registry(Path(below)) as host,
    ):
        scratch = Path(below)
        files, total = make_image(scratch / "layout", arguments.megabytes, arguments.compression)
        source = f"{host}/bench:1"
        push = ["skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false"]
        subprocess.run([*push, f"oci:{scratch}/layout:bench", f"docker://{source}"], check=True)
        shutil.rmtree(scratch / "layout")
        print(f"{files} files, {total / 1e6:.0f} MB, {arguments.compression}, from docker-registry on loopback")
        conf = insecure_conf(scratch, host)
        for number in range(arguments.rounds):
            fresh = scratch / f"round{number}"
            fresh.mkdir()
            for name, argv, env in contenders(source, fresh, conf):
                print(measured(argv, fresh, env).line(name, total), flush=True)


if __name__ == "__main__":
    main()
