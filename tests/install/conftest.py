"""Running `cfs` as a process, on small images that have everything a bootable one has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = ("mkfs.ext4", "debugfs", "e2fsck", "mkfs.vfat", "fsck.fat")


@dataclass
class Cfs:
    folder: Path

    def __call__(self, *args, env=None, **options):
        environ = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "TMPDIR": str(self.folder / "tmp")}
        return subprocess.run(
            [sys.executable, "-m", "cfs_core", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            env={**environ, **(env or {})},
            **options,
        )

    def install(self, source, disk, *args, **options):
        return self("install", "to-disk", "--source-imgref", source, *args, disk, **options)

    def ok(self, *args, **options):
        done = self(*args, **options)
        assert done.returncode == 0, done.stderr
        return done

    def plan(self, source, *args):
        """Return the plan; a dry run ends as the install would."""
        done = self.install(source, self.folder / "plan.img", "--dry-run", "--format", "json", *args)
        assert done.stdout, done.stderr
        plan = json.loads(done.stdout)
        assert (done.returncode != 0) == any(each["severity"] == "error" for each in plan["findings"]), done.stderr
        return plan

    def litter(self):
        """Return what is left over beside what was asked for."""
        return [path.name for path in (self.folder / "tmp").iterdir()] + [
            path.name for path in self.folder.iterdir() if path.name.startswith(".")
        ]


@pytest.fixture
def cfs(tmp_path):
    commands = Cfs(tmp_path)
    (tmp_path / "tmp").mkdir()
    missing = [tool for tool in TOOLS if commands_path(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return commands


def commands_path(tool):
    from cfs_core.system.command import HostCommands

    return HostCommands(os.environ).find(tool)
