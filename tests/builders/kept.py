"""What tests make once and keep between runs: others, in this run or in another one, wait and take it."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache/demo"


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Let nobody else make *name* meanwhile; a killed process holds nothing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder *name* as *make* filled it, now or earlier."""
    folder = CACHE / name
    with alone(name):
        if not folder.is_dir():
            fresh = folder.with_name(f"{name}.fresh")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            make(fresh)
            fresh.rename(folder)
    return folder
