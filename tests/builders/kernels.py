"""Debian's kernels and what an initramfs is made of: packages of any architecture, modules in order, cpio."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
HOST_SETUP = CHECKOUT / "scripts/host-setup"
EPOCH = 1_750_000_000


def download(folder: Path, suite: str, architecture: str, *packages: str, kernel: bool = True) -> str | None:
    """Unpack packages of a Debian suite, and its cloud kernel, into *folder*; return what kept it from it."""
    work = folder.with_name(f"{folder.name}-debs")
    work.mkdir(parents=True, exist_ok=True)
    config = work / "apt.conf"
    # without a status file, lest apt look for the versions that this machine has
    config.write_text(
        f'APT::Architecture "{architecture}";\nAPT::Architectures {{ "{architecture}"; }};\n'
        'Dir::State::status "/dev/null";\n'
    )

    def fetch(*names: str) -> str | None:
        done = subprocess.run(
            [HOST_SETUP, "download", suite, work, *names],
            env=os.environ | {"APT_CONFIG": str(config)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stderr[-300:] if done.returncode != 0 else None

    latest = f"linux-image-cloud-{architecture}"
    why = fetch(*packages, *([latest] if kernel else []))
    if why is None and kernel:
        meta = next(work.glob(f"{latest}_*.deb"))
        said = subprocess.run(["dpkg-deb", "-f", meta, "Depends"], capture_output=True, text=True, check=True).stdout
        why = fetch(said.split()[0].rstrip(","))
    if why is None:
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    shutil.rmtree(work)
    return why


def kernel_version(tree: Path) -> str:
    """Return the version of the kernel that is unpacked in *tree*."""
    return next((tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")


def module_folder(tree: Path) -> Path:
    """Return the folder of its modules."""
    version = kernel_version(tree)
    return next(path for path in (tree / "usr/lib/modules" / version, tree / "lib/modules" / version) if path.is_dir())


def module_bytes(path: Path) -> bytes:
    """Return a module as insmod takes it."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def modules_in_order(base: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the files of modules and what they need, in the order they must be loaded in."""
    known = {path.name.split(".")[0].replace("-", "_"): path for path in base.rglob("*.ko*")}
    order: list[Path] = []

    def load(name: str) -> None:
        path = known.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        for field in module_bytes(path).split(b"\0"):
            if field.startswith((b"depends=", b"softdep=pre: ")):
                others = field.partition(b"=")[2].decode().removeprefix("pre: ").replace(",", " ").split()
                for other in others:
                    load(other)
        order.append(path)

    for name in names:
        load(name)
    return order


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """Return an initramfs (newc, uncompressed) of ``{name: (mode with type, data)}``."""
    out = bytearray()
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], start=1):
        fields = (number, mode, 0, 0, 1, EPOCH, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)
