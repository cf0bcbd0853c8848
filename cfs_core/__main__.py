"""``python -m cfs_core`` is ``cfs``."""

from __future__ import annotations

from cfs_core.cli.main import main

main()
