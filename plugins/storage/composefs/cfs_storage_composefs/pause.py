"""Building millions of objects without the cycle collector looking at them again and again."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def collector_paused() -> Iterator[None]:
    """Switch the cycle collector off for a while: trees and images are all alive, so that it would find nothing."""
    # A collection costs time in proportion to all objects alive, and is triggered by every so many new ones: quadratic.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
