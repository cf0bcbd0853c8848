"""Can the initramfs of an image mount what we install?"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.model.boot import BootArtifacts


@dataclass(frozen=True, slots=True, kw_only=True)
class InitramfsVerdict:
    """``supported`` None: this provider recognises nothing.

    ``handler`` names what will mount: ``cfs``, ``bootc``, ``composefs-rs``.
    """

    supported: bool | None
    handler: str | None = None
    reason: str = ""
    hint: str | None = None
    arguments: tuple[str, ...] = ()
    """Kernel arguments this handler needs besides the storage format's own (``rw``, ``root=``)."""


class Initramfs(abc.ABC):
    """Knows one family of early-boot code."""

    @abc.abstractmethod
    def examine(self, artifacts: BootArtifacts, image: TreeReader, storage_format: str) -> InitramfsVerdict:
        """Look into the initrd (or the UKI's .initrd) and say whether it can mount *storage_format*."""
