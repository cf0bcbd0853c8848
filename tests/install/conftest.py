"""Running `cfs` as a process, on small images that have everything a bootable one has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders.in_process import in_process

SHARED = frozenset(
    {
        "--karg", "--karg-delete", "--bootloader", "--firmware", "--filesystem", "--architecture", "--root-size",
        "--esp-size", "--disk-size", "--uki-addon", "--early-boot",
    }
)  # fmt: skip
"""Options that `install to-disk` and `image check` have in common, with a value each."""

SHARED_FLAGS = frozenset({"--composefs-native", "--separate-boot", "--xbootldr"})
"""The same, without one."""

IRRELEVANT = frozenset({"--seed", "--yes", "--target-imgref", "--prove"})
OF_THE_HOST = re.compile(
    r"\[(usage|refused|host|disk\.(?!no-boot-volume|no-verity|too-small)|transport|config|command)"
)
"""Codes of an install that failed for other reasons than its image."""

CHECKED: dict[tuple, tuple[int, str]] = {}
"""What `image check` said, by contents of the layout and options: most tests install the same images."""

TOOLS = ("mkfs.ext4", "debugfs", "e2fsck", "mkfs.vfat", "fsck.fat")


@dataclass
class Cfs:
    folder: Path

    def __call__(self, *args, env=None, **options):
        done = self._run(args, env, options)
        if args[:2] == ("install", "to-disk") and not options:
            self._compare_with_check([*map(str, args)], env, done)
        return done

    def _run(self, args, env, options):
        environ = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "TMPDIR": str(self.folder / "tmp")}
        return subprocess.run(
            [sys.executable, "-m", "cfs_core", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            env={**environ, **(env or {})},
            **options,
        )

    def _compare_with_check(self, words, env, done):
        """Every image that a test installs is judged by `image check`, and both must say the same."""
        source, shared, repository, others = "", [], [], words[2:-1]
        while others:
            word = others.pop(0)
            alone = word in SHARED_FLAGS or not others or others[0].startswith("--")
            value = None if alone else others.pop(0)
            if word == "--source-imgref":
                source = value or ""
            elif word in SHARED_FLAGS:
                shared.append(word)
            elif word in SHARED:
                shared += [word, value]
            elif word == "--repo":
                repository = [word, value]
            elif word not in {*IRRELEVANT, "--format"}:
                return
        index = Path(source.removeprefix("oci:").rpartition(":")[0]) / "index.json"
        if not source.startswith("oci:") or not index.is_file() or OF_THE_HOST.search(done.stderr):
            return
        key = (index.read_bytes(), source.rpartition(":")[2], *shared, bool(repository), *sorted((env or {}).items()))
        if key not in CHECKED:
            apart = {"XDG_CACHE_HOME": str(self.folder / "checked"), **(env or {})}
            checked = self._run(["image", "check", source, *shared, *repository], apart, {})
            CHECKED[key] = (checked.returncode, code_of(checked.stderr))
        assert CHECKED[key] == (done.returncode, code_of(done.stderr)), "image check and install do not agree"

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


def code_of(stderr):
    """Return the code of the error that ended a run."""
    found = re.findall(r"^error: .*\[([a-z.-]+)\]$", stderr, re.MULTILINE)
    return found[-1] if found else ""


@pytest.fixture
def cfs(tmp_path):
    commands = Cfs(tmp_path)
    (tmp_path / "tmp").mkdir()
    missing = [tool for tool in TOOLS if commands_path(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return commands


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run cfs in this process; return its exit status, what it printed, and what it complained of."""
    return in_process(tmp_path, monkeypatch, capsys)


def commands_path(tool):
    from cfs_core.system.command import HostCommands

    return HostCommands(os.environ).find(tool)
