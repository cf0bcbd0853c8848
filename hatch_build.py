"""The checkout as a distribution: what `pip install .` brings, and why nothing else is made of it.

The list of default plugins is that of ``packages/cfs-installer``, which an index has; here each name becomes the path
of its folder. Such paths mean nothing elsewhere, so a source distribution is refused.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

LIST = "packages/cfs-installer"


def folders(root: Path) -> dict[str, Path]:
    """Return the folder of each distribution in the checkout *root* that can be a dependency, by name."""
    files = [root / "cfs_core/pyproject.toml", *sorted((root / "plugins").glob("**/pyproject.toml"))]
    return {_project(file)["name"]: file.parent for file in files if ".venv" not in file.parts}


def default_distributions(root: Path) -> list[str]:
    """Return the names of cfs-core and the default plugins."""
    stated = _project(root / LIST / "pyproject.toml")["dependencies"]
    return [re.split(r"[^A-Za-z0-9._-]", dependency, maxsplit=1)[0] for dependency in stated]


def _project(file: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    return table


class Dependencies(MetadataHookInterface):
    """Fill in ``project.dependencies`` with the folders of this checkout."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dependencies."""
        root = Path(self.root).resolve()
        found = folders(root)
        metadata["dependencies"] = [f"{name} @ {found[name].as_uri()}" for name in default_distributions(root)]


class NoSourceDistribution(BuildHookInterface):  # type: ignore[type-arg]
    """Refuse to put paths of this machine into an archive."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Raise RuntimeError for a source distribution."""
        if self.target_name == "sdist":
            message = (
                "a source distribution of the checkout itself would name paths of this machine; build those of "
                f"cfs_core, plugins/* and {LIST} instead (`make dist`)"
            )
            raise RuntimeError(message)
