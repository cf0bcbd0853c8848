"""How much a host command may say, and how long it may take, unless its caller knows better."""

from __future__ import annotations

from typing import Final

COMMAND_OUTPUT_LIMIT: Final = 64 << 20
"""Bytes on standard output."""

COMMAND_SECONDS: Final = 6 * 3600.0
"""A filesystem on a slow disk takes long, and nothing takes for ever."""
