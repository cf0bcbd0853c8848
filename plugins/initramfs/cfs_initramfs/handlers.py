"""Early-boot code that can mount a composefs root: how to recognise it in an initramfs, and whether it will run."""

from __future__ import annotations

import re
from dataclasses import dataclass

SYSTEMD = r"(?:usr/lib|lib|etc)/systemd/system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A family of early-boot code. ``program`` matches its program's path, each of ``hooks`` what makes it run."""

    name: str
    program: re.Pattern[str]
    marker: bytes | None = None
    hooks: tuple[re.Pattern[str], ...]
    service: str
    arguments: tuple[str, ...] = ()


def _wanted(service: str) -> re.Pattern[str]:
    """Match the link that makes systemd start *service* before the root is entered."""
    targets = r"(?:initrd-root-fs|initrd-switch-root|initrd|initrd-fs|sysinit)\.target"
    return re.compile(rf"{SYSTEMD}/{targets}\.(?:wants|requires)/{re.escape(service)}")


CFS = Handler(
    name="cfs",
    program=re.compile(r"usr/lib/cfs/cfs-setup-root"),
    marker=b"CFS_SETUP_ROOT_VERSION=1",
    hooks=(
        _wanted("cfs-setup-root.service"),
        re.compile(r"(?:usr|var)?/?lib/dracut/hooks/pre-pivot/\d+-pre-pivot\.sh"),
        re.compile(r"hooks/cfs"),
        re.compile(r"scripts/local-bottom/cfs"),
    ),
    service="cfs-setup-root.service",
)

BOOTC = Handler(
    name="bootc",
    program=re.compile(r"usr/lib/bootc/initramfs-setup|usr/(?:lib/bootc|libexec|bin)/bootc-initramfs-setup"),
    hooks=(_wanted("bootc-root-setup.service"),),
    service="bootc-root-setup.service",
    arguments=("rw",),
)

COMPOSEFS_RS = Handler(
    name="composefs-rs",
    program=re.compile(r"(?:usr/)?(?:s?bin|lib/composefs|libexec)/composefs-setup-root"),
    hooks=(_wanted("composefs-setup-root.service"), re.compile(r"hooks/composefs")),
    service="composefs-setup-root.service",
    arguments=("rw",),
)

HANDLERS = (CFS, BOOTC, COMPOSEFS_RS)
