"""What cfs itself keeps about a machine, on its root volume: pins, failed deployments, manifests not to go back to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cfs_core.model.action import Attributes, WriteFile
from cfs_core.model.disk import Location, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.interfaces.target import TargetView

RECORDS = Location(Volume.ROOT, "/state/cfs/machine.json")
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A deployment that did not come up: its manifest, how many tries it had, and what was seen, in words."""

    manifest_digest: str | None
    tries: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Everything of it. ``left`` are digests of manifests that somebody, or the loader, went back from."""

    pinned: frozenset[str] = frozenset()
    failed: Mapping[str, Failure] = field(default_factory=dict)
    left: frozenset[str] = frozenset()

    @classmethod
    def read(cls, target: TargetView) -> Records:
        """Read them; what is malformed says nothing: no pin that is lost loses a deployment that runs."""
        try:
            found: Any = json.loads(target.read(RECORDS))
        except (FileNotFoundError, RecursionError, ValueError):
            return cls()
        if not isinstance(found, dict) or found.get("version") != VERSION:
            return cls()
        failed = found.get("failed")
        return cls(
            pinned=_texts(found.get("pinned")),
            failed={
                name: Failure(
                    manifest_digest=_text(value.get("manifest_digest")),
                    tries=tries if isinstance(tries := value.get("tries"), int) else 0,
                    reason=str(value.get("reason") or ""),
                )
                for name, value in (failed.items() if isinstance(failed, dict) else ())
                if isinstance(value, dict)
            },
            left=_texts(found.get("left")),
        )

    def with_pin(self, identity: str, *, pinned: bool) -> Records:
        """Return records in which *identity* is pinned, or not."""
        return replace(self, pinned=self.pinned | {identity} if pinned else self.pinned - {identity})

    def with_failure(self, identity: str, failure: Failure) -> Records:
        """Return records in which *identity* has failed."""
        left = self.left | {failure.manifest_digest} if failure.manifest_digest else self.left
        return replace(self, failed={**self.failed, identity: failure}, left=left)

    def with_left(self, manifest_digest: str | None) -> Records:
        """Return records that say that somebody went back from this manifest."""
        return self if manifest_digest is None else replace(self, left=self.left | {manifest_digest})

    def without(self, manifest_digest: str) -> Records:
        """Return records that hold nothing against this manifest."""
        failed = {name: each for name, each in self.failed.items() if each.manifest_digest != manifest_digest}
        return replace(self, failed=failed, left=self.left - {manifest_digest})

    def only(self, present: frozenset[str]) -> Records:
        """Return records without pins of deployments that are gone. What failed is kept: it may be offered again."""
        return replace(self, pinned=self.pinned & present)

    def action(self) -> WriteFile:
        """Return what writes them."""
        document = {
            "version": VERSION,
            "pinned": sorted(self.pinned),
            "failed": {
                name: {"manifest_digest": each.manifest_digest, "tries": each.tries, "reason": each.reason}
                for name, each in sorted(self.failed.items())
            },
            "left": sorted(self.left),
        }
        data = json.dumps(document, indent=1).encode() + b"\n"
        return WriteFile(
            location=RECORDS,
            data=data,
            attributes=Attributes(mode=0o644),
            why="what cfs keeps about this machine",
        )


def _text(found: object) -> str | None:
    return found if isinstance(found, str) else None


def _texts(found: object) -> frozenset[str]:
    return frozenset(each for each in found if isinstance(each, str)) if isinstance(found, list) else frozenset()
