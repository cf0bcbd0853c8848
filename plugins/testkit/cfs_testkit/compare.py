"""Where two pieces of data differ, in a line.

pytest explains ``assert one == other`` with a diff whose time grows with the square of the data: hours for two disks,
and that in CI only, where it does not cut explanations short. What may be large is compared with these.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

CHUNK = 1 << 20
SHOWN = 16


def difference(found: bytes, wanted: bytes) -> str | None:
    """Say where *found* differs from *wanted* for the first time, or None."""
    return None if found == wanted else _first(io.BytesIO(found), io.BytesIO(wanted))


def file_difference(found: Path, wanted: Path) -> str | None:
    """Say where one file differs from another for the first time, or None; they may be larger than memory."""
    with found.open("rb") as one, wanted.open("rb") as other:
        return _first(one, other)


def _first(found: BinaryIO, wanted: BinaryIO) -> str | None:
    at = 0
    while True:
        left, right = found.read(CHUNK), wanted.read(CHUNK)
        if left != right:
            both = min(len(left), len(right))
            same = next((n for n in range(both) if left[n] != right[n]), both)
            shown = [part[same : same + SHOWN].hex(" ") or "the end" for part in (left, right)]
            return f"from byte {at + same} on: {shown[0]} instead of {shown[1]}"
        if not left:
            return None
        at += len(left)
