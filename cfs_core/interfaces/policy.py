"""May this image be installed?"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.interfaces.fetcher import Fetcher
    from cfs_core.model.manifest import ResolvedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdict:
    """``verified`` is what was proven, in words that go into the origin file: ``signed by key ab12``."""

    accepted: bool
    reason: str
    verified: tuple[str, ...] = ()


class Policy(abc.ABC):
    """One judgement. All configured policies must accept; any exception means no."""

    @abc.abstractmethod
    def judge(self, image: ResolvedImage, transport: Fetcher) -> PolicyVerdict:
        """Decide about a resolved image before its layers are fetched."""
