"""Tar streams, member by member, with the raw bytes that make them up: what plugins may use of `cfs_core.archive`."""

from __future__ import annotations

from cfs_core.archive.kinds import HEAD_BYTES, kind_of
from cfs_core.archive.tar import TarLimits, TarSource, read_members

__all__ = ["HEAD_BYTES", "TarLimits", "TarSource", "kind_of", "read_members"]
