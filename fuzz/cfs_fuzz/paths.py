"""Where the builders are that seeds come from: beside the tests, and not installed."""

from __future__ import annotations

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
_BUILDERS = ("tests", "plugins/disk/tests", "plugins/grub/tests", "plugins/storage/composefs/tests")


def add_builders() -> None:
    """Make them importable."""
    sys.path.extend(str(_CHECKOUT / folder) for folder in _BUILDERS)
