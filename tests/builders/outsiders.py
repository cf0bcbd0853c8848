"""What somebody outside the project has: wheels, and an environment of its own with nothing of the checkout in it."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
CORE = CHECKOUT / "cfs_core"
EXAMPLES = CHECKOUT / "docs/examples"


def build_wheels(folder: Path, projects: list[Path]) -> list[Path]:
    """Build the wheels of *projects* into *folder*."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, *projects],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    if done.returncode != 0 and "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("hatchling, which builds the wheels, cannot be had")
    assert done.returncode == 0, done.stderr
    return sorted(folder.glob("*.whl"))


@dataclass(frozen=True)
class Outside:
    """An environment with cfs from wheels."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, projects: list[Path], extra: tuple[str, ...] = ()) -> Outside:
        """Install the wheels of *projects* (names of others in *extra*) into a new environment."""
        wheels = build_wheels(folder.with_name(f"{folder.name}-wheels"), projects)
        made = cls.empty(folder)
        made.ok("pip", "install", "--quiet", *wheels, *extra, timeout=600)
        return made

    @classmethod
    def empty(cls, folder: Path) -> Outside:
        """Make an environment with nothing but pip."""
        venv.create(folder, with_pip=True)
        return cls(folder)

    def run(self, program: str, *words: object, cwd: Path | None = None, timeout: float = 300, **more: str):
        """Run one of its programs, in an environment that knows nothing of the checkout."""
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
        kept |= {
            name: value for name, value in os.environ.items() if name.startswith("PIP_") or "_proxy" in name.lower()
        }
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [self.folder / "bin" / program, *map(str, words)],
            cwd=cwd or self.folder, env=kept | {"PATH": path} | more, capture_output=True, text=True, check=False,
            timeout=timeout,
        )  # fmt: skip

    def ok(self, program: str, *words: object, **more):
        """Run one of its programs, which must succeed; what it wrote."""
        done = self.run(program, *words, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def core_and_default_plugins() -> list[Path]:
    """Return the projects whose wheels an ordinary user has."""
    return [
        CORE,
        *sorted(path.parent for path in CHECKOUT.glob("plugins/**/pyproject.toml") if "testkit" not in str(path)),
    ]
