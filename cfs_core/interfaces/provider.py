"""Providers: what registration hooks return. Cheap to build; ``factory`` imports, and runs only when chosen."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from cfs_core.interfaces.bootloader import LoaderConsole

if TYPE_CHECKING:
    from collections.abc import Callable

    # Named in strings below, to keep plugins cheap to import; linters do not look there.
    from cfs_core.interfaces.bootloader import Bootloader  # noqa: F401
    from cfs_core.interfaces.context import PluginContext
    from cfs_core.interfaces.filesystem import Filesystem  # noqa: F401
    from cfs_core.interfaces.hasher import BlockHasher  # noqa: F401
    from cfs_core.interfaces.initramfs import Initramfs  # noqa: F401
    from cfs_core.interfaces.layout import DiskLayout  # noqa: F401
    from cfs_core.interfaces.policy import Policy  # noqa: F401
    from cfs_core.interfaces.storage import StorageFormat  # noqa: F401
    from cfs_core.interfaces.transport import (
        RunningImage,
        Transport,  # noqa: F401
    )
    from cfs_core.model.boot import EntryKind, Firmware, KernelForm

T = TypeVar("T")

SettingKind = Literal["text", "texts", "flag", "number", "table"]
"""What the value of a provider's setting is: a string, a list of them, true or false, a number, a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSetting:
    """A setting of a provider: ``name`` in its own table (``[bootloader.NAME]``)."""

    name: str
    """In its own table: ``[bootloader.NAME]``."""

    kind: SettingKind
    """What its value is; a value of another kind is an error."""

    summary: str
    """One line for `cfs config show`."""

    default: object = None
    """What `config show` says where nobody set it; the factory is not given it."""


class Capability(enum.StrEnum):
    """What a loader can do besides starting the first entry; what it does not declare is refused early."""

    DEFAULT = "default"
    """Start an entry by default that is not the first."""

    ONCE = "once"
    """Start another entry at the next boot only; on a machine at least, if not on a disk image."""

    TRIES = "tries"
    """Count attempts to boot, and pass over an entry that has none left."""

    TIMEOUT = "timeout"
    """Show the menu for a given time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(Generic[T]):
    """Something a plugin offers. ``name`` is the user's handle: lower-case letters, digits and dashes."""

    name: str
    """Unique in its family."""

    summary: str
    """One line for `cfs plugins list`."""

    factory: Callable[[PluginContext], T]
    """Makes it, for one run."""

    settings: tuple[ProviderSetting, ...] = ()
    """All that may stand in its table of the settings; another name there is an error, and the factory is not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportProvider(Provider["Transport"]):
    """``schemes`` are the words before the colon of a reference; a scheme belongs to one provider.

    ``running_image`` finds the image of the container that cfs runs in; None if this is not one of its containers.
    """

    schemes: tuple[str, ...]
    """``("oci",)``."""

    can_write: bool = False
    """Whether it has a writer, so that `cfs image copy` can write there."""

    running_image: Callable[[], RunningImage | None] | None = None
    """None where it has no containers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageProvider(Provider["StorageFormat"]):
    """``needs_verity``: the target filesystem should have fs-verity."""

    needs_verity: bool = True
    """False for a format that protects its files in another way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootloaderProvider(Provider["Bootloader"]):
    """``marker_paths`` are files (fnmatch patterns, absolute) of which one in an image suggests this loader."""

    firmware: frozenset[Firmware]
    """What can start it. Core refuses other firmware before it asks the loader."""

    entries: frozenset[EntryKind]
    """Kinds of entries that it can boot."""

    marker_paths: tuple[str, ...] = ()
    """``("/usr/lib/NAME/*.efi",)``."""

    kernels: frozenset[KernelForm] = frozenset()
    """Forms of a kernel's file that it starts; one of those that the file has is enough.

    Empty: it does not say, and core takes any kernel. UKIs are programs for UEFI and need no declaration."""

    one_initrd: bool = False
    """It gives a kernel one initrd and no more: core puts what is added to an image's own into one file with it."""

    preference: int = 0
    """Among loaders that an image's files suggest the highest is taken; of two that are equal, none is."""

    console: LoaderConsole = field(default_factory=LoaderConsole)
    """What it writes to a serial console; `cfs prove` looks for it."""

    can: frozenset[Capability] = frozenset()
    """What it does besides starting the first entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemProvider(Provider["Filesystem"]):
    """``verity``: files in it can have fs-verity enabled, offline too."""

    verity: bool = False
    """False where no file can have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutProvider(Provider["DiskLayout"]):
    """A way to divide a disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitramfsProvider(Provider["Initramfs"]):
    """Knows a family of initramfs code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HasherProvider(Provider["BlockHasher"]):
    """A library that hashes many blocks at once; used where core finds it right, and faster than hashlib."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyProvider(Provider["Policy"]):
    """A judgement that settings can require by name."""
