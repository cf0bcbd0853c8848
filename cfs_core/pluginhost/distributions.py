"""Which package brings what: the project's own distributions, and no other name, since anybody may take a free one."""

from __future__ import annotations

from typing import Final

DISTRIBUTIONS: Final = {
    "composefs": "cfs-storage-composefs",
    "containers-policy": "cfs-policies",
    "containers-storage": "cfs-transport-containers-storage",
    "digest-pinned": "cfs-policies",
    "docker-archive": "cfs-transport-oci-dir",
    "early-boot": "cfs-initramfs",
    "ext4": "cfs-disk",
    "gpt": "cfs-disk",
    "grub": "cfs-grub",
    "host install": "cfs-host",
    "initramfs install": "cfs-initramfs",
    "oci": "cfs-transport-oci-dir",
    "oci-archive": "cfs-transport-oci-dir",
    "prove": "cfs-prove",
    "registry": "cfs-transport-registry",
    "seal": "cfs-seal",
    "secureboot enroll": "cfs-seal",
    "secureboot keys": "cfs-seal",
    "secureboot show": "cfs-seal",
    "systemd-boot": "cfs-systemd-boot",
    "vfat": "cfs-disk",
}
"""Providers by name."""

DEFAULTS: Final = "cfs-installer"
"""The distribution that brings core and the default plugins."""


def install_hint(provider: str) -> str:
    """Return what to do where *provider* is missing."""
    distribution = DISTRIBUTIONS.get(provider)
    if distribution is None:
        return "see `cfs plugins list` for what there is; no plugin of this project offers it"
    return f"pip install {distribution}"
