"""Images on disk: an OCI layout of any image, and files that cfs takes for a bootable system."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from cfs_testkit.images import Image, build_image
from cfs_testkit.initrds import cpio
from cfs_testkit.programs import PE_MACHINES, kernel, optional_header, program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KERNEL_VERSION = "6.12.0-testkit"
_EARLY_BOOT = "usr/lib/systemd/system/initrd-root-fs.target.wants/bootc-root-setup.service"


def write_layout(image: Image, folder: Path, tag: str = "latest") -> str:
    """Write *image* as an OCI layout, and return its reference for the ``oci`` transport."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for name, data in (*image.blobs.items(), (image.digest, image.manifest)):
        (blobs / name.removeprefix("sha256:")).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")
    entry = image.descriptor() | {"annotations": {"org.opencontainers.image.ref.name": tag}}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]})
    (folder / "index.json").write_text(index, encoding="utf-8")
    return f"oci:{folder}:{tag}"


def bootable_image(
    files: Mapping[str, str | bytes | None] | None = None,
    *,
    architecture: str = "amd64",
    labels: Mapping[str, str] | None = None,
) -> Image:
    """Return an image that installs; *files* add to it (a bootloader's own). Its kernel and its init only wait."""
    modules = f"usr/lib/modules/{KERNEL_VERSION}"
    initramfs = cpio(
        {
            "init": program(architecture),
            "usr/lib/bootc/initramfs-setup": program(architecture),
            _EARLY_BOOT: "-> ../bootc-root-setup.service",
        }
    )
    folders = ("boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "usr", "var")
    content: dict[str, str | bytes | None] = {
        **dict.fromkeys(folders),
        f"{modules}/vmlinuz": kernel(architecture, KERNEL_VERSION),
        f"{modules}/initramfs.img": initramfs,
        f"{modules}/modules.builtin": "kernel/fs/erofs/erofs.ko\nkernel/fs/overlayfs/overlay.ko\n",
        "usr/lib/os-release": 'ID=testkit\nPRETTY_NAME="Testkit Linux"\nVERSION_ID=1\n',
        "usr/sbin/init": program(architecture),
        "sbin": "-> usr/sbin",
        "etc/hostname": "testkit\n",
        **(files or {}),
    }
    return build_image([content], architecture=architecture, labels=labels)


def efi_program(architecture: str = "amd64", text: bytes = b"") -> bytes:
    """Return a program of the right form for UEFI (PE32+), without code; *text* is behind its headers."""
    head = bytearray(0x80)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, len(head))
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", PE_MACHINES[architecture], 0, 0, 0, 0, 112, 0x22)
    return bytes(head) + coff + optional_header() + text
