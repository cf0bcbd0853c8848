"""Identifiers of disks, partitions and filesystems: from a seed, or random."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("6d2c7b0e-54f5-4a63-9d0b-6f1c8a1e3b52")


def identifier(seed: str | None, purpose: str) -> uuid.UUID:
    """Return the identifier for *purpose*: UUID version 5 of seed and purpose, or a random one without a seed."""
    if seed is None:
        return uuid.uuid4()
    return uuid.uuid5(_NAMESPACE, f"{seed}/{purpose}")


def volume_serial(seed: str | None, purpose: str) -> str:
    """Return a FAT volume id as ``ABCD-0123``, the way blkid and ``root=UUID=`` spell it."""
    text = identifier(seed, purpose).hex[:8].upper()
    return f"{text[:4]}-{text[4:]}"
