"""Can the initramfs of an image mount what we install?"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.model.boot import BootArtifacts
    from cfs_core.model.content import Content


@dataclass(frozen=True, slots=True, kw_only=True)
class InitramfsVerdict:
    """``supported`` None: this provider recognises nothing.

    ``handler`` names what will mount: ``cfs``, ``bootc``, ``composefs-rs``.
    """

    supported: bool | None
    """Whether it can mount this storage format."""

    handler: str | None = None
    """What in the initramfs does it."""

    reason: str = ""
    """Why, or why not."""

    hint: str | None = None
    """What to do where it cannot."""

    arguments: tuple[str, ...] = ()
    """Kernel arguments this handler needs besides the storage format's own (``rw``, ``root=``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitramfsAddition:
    """An initrd that makes early boot of an image's own, when the kernel unpacks it over that one."""

    content: Content
    """A whole initrd, compressed as the image's kernel reads it; the same for the same image, at any time."""

    contains: tuple[str, ...]
    """What is in it, in words for people: ``early-boot script``, ``module erofs``."""


class Initramfs(abc.ABC):
    """Knows one family of early-boot code."""

    @abc.abstractmethod
    def examine(self, artifacts: BootArtifacts, image: TreeReader, storage_format: str) -> InitramfsVerdict:
        """Look into the initrd (or the UKI's .initrd) and say whether it can mount *storage_format*."""

    def supplement(
        self, artifacts: BootArtifacts, image: TreeReader, storage_format: str, filesystem: str
    ) -> InitramfsAddition | InitramfsVerdict | None:
        """Offer what an initramfs that cannot mount *storage_format* from a root of *filesystem* lacks.

        A verdict that is not ``supported`` says why nothing can be added; None: this provider adds nothing. What it
        offers is examined together with the image's initrd before it is used.
        """
        del artifacts, image, storage_format, filesystem
        return None
