"""The families of providers: which hook registers which type, and what people call it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from cfs_core.interfaces.command import CommandProvider
from cfs_core.interfaces.provider import (
    BootloaderProvider,
    FilesystemProvider,
    HasherProvider,
    InitramfsProvider,
    LayoutProvider,
    PolicyProvider,
    Provider,
    StorageProvider,
    TransportProvider,
)

P = TypeVar("P", bound=Provider[Any])


@dataclass(frozen=True, slots=True)
class Family(Generic[P]):
    """One registration hook, what it returns, and what the factories of those make."""

    name: str
    """What people call it."""

    hook: str
    """The registration hook."""

    kind: type[P]
    """What the hook returns."""

    makes: str
    """``module:class`` that a made provider is an instance of; imported when something is made."""

    table: str | None = None
    """The settings' table in which each provider has one under its own name."""

    def interface(self) -> type:
        """Return the class of `makes`."""
        module, _, name = self.makes.partition(":")
        found: type = getattr(importlib.import_module(module), name)
        return found


_INTERFACES = "cfs_core.interfaces"

TRANSPORTS: Final = Family(
    "transport", "cfs_register_transports", TransportProvider, f"{_INTERFACES}.transport:Transport", "transport"
)
STORAGE: Final = Family(
    "storage format", "cfs_register_storage_formats", StorageProvider, f"{_INTERFACES}.storage:StorageFormat", "storage"
)
BOOTLOADERS: Final = Family(
    "bootloader", "cfs_register_bootloaders", BootloaderProvider, f"{_INTERFACES}.bootloader:Bootloader", "bootloader"
)
LAYOUTS: Final = Family("layout", "cfs_register_layouts", LayoutProvider, f"{_INTERFACES}.layout:DiskLayout", "layout")
FILESYSTEMS: Final = Family(
    "filesystem", "cfs_register_filesystems", FilesystemProvider, f"{_INTERFACES}.filesystem:Filesystem", "filesystem"
)
POLICIES: Final = Family(
    "policy", "cfs_register_policies", PolicyProvider, f"{_INTERFACES}.policy:Policy", "policy.settings"
)
INITRAMFS: Final = Family(
    "initramfs support",
    "cfs_register_initramfs",
    InitramfsProvider,
    f"{_INTERFACES}.initramfs:Initramfs",
    "initramfs",
)
HASHERS: Final = Family("hasher", "cfs_register_hashers", HasherProvider, f"{_INTERFACES}.hasher:BlockHasher", "hasher")
# That it is a click command is all that is asked of one: what its methods return is between it and click.
COMMANDS: Final = Family("command", "cfs_register_commands", CommandProvider, "click:Command", "command")

ALL: Final[tuple[Family[Any], ...]] = (
    TRANSPORTS,
    STORAGE,
    BOOTLOADERS,
    LAYOUTS,
    FILESYSTEMS,
    POLICIES,
    INITRAMFS,
    HASHERS,
    COMMANDS,
)
