"""Hashes of many blocks at once, where a library does that faster than one after the other."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.model.digest import HashAlgorithm


class BlockHasher(abc.ABC):
    """One library on one machine. Core uses it only where it agrees with hashlib, and is faster.

    One that can be pickled (``__reduce__``: what loads the library again) hashes in worker processes, too.
    """

    @abc.abstractmethod
    def hash_blocks(self, data: memoryview, size: int, algorithm: HashAlgorithm) -> bytes:
        """Hash each *size* bytes of *data* by themselves and return the digests, one behind the other.

        *data* is contiguous bytes, perhaps read-only, at any address; its length is a multiple of *size*, which is a
        multiple of 64 up to 4096. Called from several threads at once. After any exception core uses hashlib.
        """
