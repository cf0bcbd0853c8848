"""Events that observers and progress displays see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """``noun.verb-past`` with typed facts; the unit of a number is in its key (``size_bytes``, ``took_seconds``)."""

    name: str
    """``layer.stored``."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """What there is to know, by stable names."""

    warning: bool = False
    """Whether somebody should see it who did not ask for a log."""
