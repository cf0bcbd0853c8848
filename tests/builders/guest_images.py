"""Versions of a Debian system with cfs in it, for guests: entries and UKIs, any loader, good ones and bad ones."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import tarfile

import pytest

from builders import guests, kernels
from builders.kept import CACHE, kept
from cfs_host.place import NAMES, UNITS, WANTED, packaged

GRUBS = {"bookworm": ("grub-efi-amd64-bin", "grub-pc-bin"), "trixie": ("grub-efi-amd64-unsigned", "grub-pc-bin")}
"""Packages of GRUB in two suites of Debian: version 1 has 2.06 of the first, version 2 has 2.12 of the second."""

TOOLS = ("qemu-system-x86_64", "mmdebstrap", "umoci", "mkfs.ext4", "grub-mkimage")
REGISTRY = "127.0.0.1:5000/os"
EARLY_BOOT = guests.CHECKOUT / "plugins/initramfs/cfs_initramfs/boot/cfs-setup-root"
COMMAND_LINE = "rw console=ttyS0 audit=0 panic=30"

HEALTH = f"{UNITS}/boot-complete.target.requires/health.service"
TAGS = {
    "v2": (
        "v1",
        [
            ("usr/lib/version", b"2\n", 0o644),
            ("etc/from-image", b"2\n", 0o644),
            ("usr/lib/bootc/kargs.d/50-v2.toml", b'kargs = ["second=yes"]\n', 0o644),
        ],
    ),
    "other": ("v1", [("usr/lib/version", b"other\n", 0o644), ("usr/lib/os-release", b"ID=other\nNAME=Other\n", 0o644)]),
    "third": ("v1", [("usr/lib/version", b"third\n", 0o644)]),
    "ill": (
        "v2",
        [(f"{UNITS}/health.service", b"[Service]\nType=oneshot\nExecStart=/bin/false\n", 0o644)],
    ),
    "hangs": (
        "v2",
        [(f"{UNITS}/health.service", b"[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n", 0o644)],
    ),
    "panics": (
        "v2",
        [
            (
                f"{UNITS}/panic.service",
                b"[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sh -c 'echo c >/proc/sysrq-trigger'\n",
                0o644,
            ),
            (f"{UNITS}/sysinit.target.d/panic.conf", b"[Unit]\nWants=panic.service\n", 0o644),
        ],
    ),
}
"""Tag: the tag it is made of, files of the layer on top."""

SERVER = r"""import json, pathlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IMAGES = pathlib.Path("/run/images")


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        what, kind = b"{}", "application/json"
        parts = self.path.strip("/").split("/")
        try:
            if len(parts) == 4:
                name = parts[3]
                if ":" not in name:
                    index = json.loads((IMAGES / "index.json").read_bytes())["manifests"]
                    tag = "org.opencontainers.image.ref.name"
                    name = next(each["digest"] for each in index if each.get("annotations", {}).get(tag) == name)
                what = (IMAGES / "blobs" / name.replace(":", "/")).read_bytes()
                oci = "application/vnd.oci.image.manifest.v1+json"
                kind = oci if parts[2] == "manifests" else "application/octet-stream"
            self.send_response(200)
        except (OSError, StopIteration):
            self.send_response(404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(what)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(what)


ThreadingHTTPServer(("127.0.0.1", 5000), Registry).serve_forever()
"""
MOUNT = "[Mount]\nWhat=/dev/disk/by-label/images\nWhere=/run/images\nType=ext4\nOptions=ro\n"
SERVICE = """[Unit]
Requires=run-images.mount
After=run-images.mount
[Service]
ExecStart=/usr/bin/python3 /usr/lib/cfs-test/registry.py
"""
INSECURE = f'[[registry]]\nlocation = "{REGISTRY.partition("/")[0]}"\ninsecure = true\n'
PATIENCE = "[Service]\nTimeoutStopSec=30min\n"
"""Emulated, on a machine that is busy, five minutes may not be enough."""

BYTECODE = "[Manager]\nDefaultEnvironment=PYTHONPYCACHEPREFIX=/var/cache/bytecode\n"
"""/usr cannot be written, and compiling takes an emulated machine longer than anything it does."""


def build(workspace, *, sealed=True):
    """Return the OCI directory with all tags; *sealed*: each with a UKI as ``TAG-uki``, too."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing; scripts/host-setup installs what VM tests need")
    out = workspace / "debian-cfs"
    extra = [word for name in (*guests.PACKAGES, "grub-common") for word in ("--package", name)]
    words = ["--uki", "--cfs", guests.CFS] if sealed else []  # which brings ukify, too
    subprocess.run([guests.CHECKOUT / "demo/build-debian-image", out, *words, *extra], check=True, timeout=1800)
    boot = _boot_files(out)
    _add(out, "debian", "v1", workspace, [*_system(), *_grub("bookworm")], _links())
    for tag, (base, files) in TAGS.items():
        links = [(HEALTH, "../health.service")] if tag in ("ill", "hangs") else []
        newer = _grub("trixie") if tag == "v2" else ()
        _add(out, base, tag, workspace, [*files, *newer], links)
    for tag in ("v1", *TAGS) if sealed else ():
        _seal(out, tag, boot, workspace)
    subprocess.run(["umoci", "gc", "--layout", out], check=True)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return out


def _system():
    """Yield cfs, its units, the shell, and a registry on loopback."""
    yield from guests.cfs_files()
    yield from guests.agent_files()
    yield "usr/lib/cfs/cfs-setup-root", EARLY_BOOT.read_bytes(), 0o755  # with which a soft reboot mounts the next root
    yield from ((f"{UNITS}/{name}", packaged(name), 0o644) for name in NAMES)
    texts = {
        f"{UNITS}/cfs-finalize-staged.service.d/patience.conf": PATIENCE,
        f"{UNITS}/run-images.mount": MOUNT,
        f"{UNITS}/cfs-test-registry.service": SERVICE,
        f"{UNITS}/multi-user.target.d/registry.conf": "[Unit]\nWants=cfs-test-registry.service\n",
        "usr/lib/cfs-test/registry.py": SERVER,
        "usr/lib/systemd/system.conf.d/bytecode.conf": BYTECODE,
        "etc/containers/registries.conf": INSECURE,
        "usr/lib/bootc/kargs.d/20-panic.toml": 'kargs = ["panic=30"]\n',
    }
    yield from ((name, text.encode(), 0o644) for name, text in texts.items())


def _links():
    return [(f"{UNITS}/{folder}/{name}", f"../{name}") for name, folder in WANTED.items()]


def _grub(suite):
    """Yield GRUB of a suite of Debian: a program for UEFI, modules for BIOS."""

    def make(folder):
        why = kernels.download(folder, suite, "amd64", *GRUBS[suite], kernel=False)
        assert why is None, why

    tree = kept(f"grub-{suite}", make)
    modules = sorted((tree / "usr/lib/grub/i386-pc").iterdir())
    for path in [tree / "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", *modules]:
        if path.is_file():
            yield str(path.relative_to(tree)), path.read_bytes(), 0o644


def _add(images, base, tag, workspace, files, links=()):
    path = workspace / f"{tag}.tar"
    guests.layer(path, list(files), links)
    guests.add_tag(images, base, tag, path)
    path.unlink()


def _boot_files(images):
    """Return what the build kept of the image to make UKIs of: kernel, initramfs, stub."""
    index = (images / "index.json").read_bytes()
    found = [path for path in CACHE.glob("*/**/oci/index.json") if path.read_bytes() == index]
    assert found, f"{CACHE} has no build of {images}"
    return next(folder / "boot" for folder in found[0].parents if (folder / "boot").is_dir())


def _seal(images, tag, boot, workspace):
    """Make TAG-uki: *tag* with a UKI that names its digest."""
    words = [guests.CFS, "image", "digest", "--bootable", f"oci:{images}:{tag}"]
    identity = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    more = "second=yes " if "v2" in (tag, TAGS.get(tag, ("",))[0]) else ""
    uki, ukify, early_boot = workspace / f"{tag}.efi", CACHE / "ukify", workspace / "early-boot.cpio"
    early_boot.write_bytes(runpy.run_path(guests.CHECKOUT / "demo/build-debian-image")["early_boot_cpio"]())
    subprocess.run(
        ["/usr/bin/python3", ukify / "usr/bin/ukify", "build", f"--linux={boot / 'vmlinuz'}",
         f"--initrd={boot / 'initramfs.img'}", f"--initrd={early_boot}",
         f"--cmdline={COMMAND_LINE} {more}composefs={identity}",
         f"--os-release=@{boot / 'os-release'}", f"--uname={(boot / 'version').read_text()}", f"--stub={boot / 'stub'}",
         "--efi-arch=x64", f"--output={uki}"],
        check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ukify / "usr/lib/python3/dist-packages"), "SOURCE_DATE_EPOCH": "0"},
    )  # fmt: skip
    path = workspace / "uki.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("boot", "boot/EFI", "boot/EFI/Linux"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, guests.EPOCH
            tar.addfile(info)
        tar.add(uki, "boot/EFI/Linux/system.efi", filter=_plain)
    guests.add_tag(images, tag, f"{tag}-uki", path)
    uki.unlink()
    path.unlink()


def _plain(info):
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode, info.mtime = 0o644, guests.EPOCH
    return info
