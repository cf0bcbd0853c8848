"""The distributions of this repository; others may be installed beside them and are not described here."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def ours() -> dict[str, Path]:
    """Return the folder of each distribution by its name."""
    projects = [ROOT / "cfs_core/pyproject.toml", *sorted((ROOT / "plugins").rglob("pyproject.toml"))]
    found: dict[str, Path] = {}
    for path in projects:
        if not {"templates", ".venv"} & set(path.parts):
            found[tomllib.loads(path.read_text(encoding="utf-8"))["project"]["name"]] = path.parent
    return found


@cache
def shared(folder: Path) -> Path:
    """Return the folder whose files the wheel of the distribution in *folder* installs under ``share``."""
    target = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    data = target["wheel"].get("shared-data", {})
    return folder / next((source for source, place in data.items() if place == "share"), "share")
