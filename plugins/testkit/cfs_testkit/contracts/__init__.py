"""Contracts: abstract test classes that a plugin's author subclasses, one per family of providers."""

from __future__ import annotations

from cfs_testkit.contracts.base import Contract, optional
from cfs_testkit.contracts.bootloader import BootloaderContract
from cfs_testkit.contracts.filesystem import FilesystemContract
from cfs_testkit.contracts.hasher import HasherContract
from cfs_testkit.contracts.initramfs import InitramfsContract
from cfs_testkit.contracts.layout import LayoutContract
from cfs_testkit.contracts.policy import PolicyContract
from cfs_testkit.contracts.storage import StorageContract
from cfs_testkit.contracts.transport import TransportContract

__all__ = [
    "BootloaderContract",
    "Contract",
    "FilesystemContract",
    "HasherContract",
    "InitramfsContract",
    "LayoutContract",
    "PolicyContract",
    "StorageContract",
    "TransportContract",
    "optional",
]
