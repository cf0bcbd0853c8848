"""Places on the root volume that more than one room knows (formats F.1)."""

from __future__ import annotations

from typing import Final

from cfs_core.model.disk import Location, Volume

ROOT: Final = Location(Volume.ROOT, "/")
REPOSITORY: Final = Location(Volume.ROOT, "/composefs")
DEPLOYMENTS: Final = Location(Volume.ROOT, "/state/deploy")
