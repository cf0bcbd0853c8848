"""Putting the units into an image's root, and what they say."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess

import pytest

from cfs_core.plugin import RefusedError
from cfs_host.place import NAMES, TIMER, UNITS, WANTED, packaged, place


def unit(name):
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str
    parser.read_string(packaged(name).decode())
    return parser


def test_all_units_are_placed_and_those_wanted_are_linked(tmp_path):
    written = place(tmp_path)
    assert set(written) == {f"{UNITS}/{name}" for name in NAMES} | {
        f"{UNITS}/{folder}/{name}" for name, folder in WANTED.items()
    }
    assert all((tmp_path / path).is_file() for path in written), "every link leads to a unit"
    assert not (tmp_path / UNITS / TIMER["cfs-upgrade.timer"] / "cfs-upgrade.timer").is_symlink()


def test_doing_it_again_replaces(tmp_path):
    place(tmp_path)
    (tmp_path / UNITS / NAMES[0]).write_text("old")
    written = place(tmp_path, timer=True)
    assert (tmp_path / UNITS / NAMES[0]).read_bytes() == packaged(NAMES[0])
    assert f"{UNITS}/timers.target.wants/cfs-upgrade.timer" in written
    assert sorted(path.name for path in (tmp_path / UNITS).iterdir() if path.is_file()) == sorted(NAMES)


def test_nothing_is_written_outside(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "usr").mkdir(parents=True)
    outside.mkdir()
    (root / "usr/lib").symlink_to(outside)
    with pytest.raises(RefusedError):
        place(root)
    assert list(outside.iterdir()) == []
    with pytest.raises(RefusedError):
        place(tmp_path / "missing")


def test_the_finalizing_stops_after_services_and_before_file_systems():
    finalize = unit("cfs-finalize-staged.service")
    assert finalize["Unit"]["DefaultDependencies"] == "no"
    assert "local-fs.target" in finalize["Unit"]["After"].split()
    assert "basic.target" in finalize["Unit"]["Before"].split()
    assert "final.target" in finalize["Unit"]["Conflicts"].split()
    assert "ExecStart" not in finalize["Service"]
    assert finalize["Service"]["ExecStop"].endswith(" finalize")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_them(tmp_path):
    place(tmp_path, timer=True)
    (tmp_path / "usr/bin").mkdir()
    program = tmp_path / "usr/bin/cfs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    folder = tmp_path / UNITS
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *(str(folder / name) for name in NAMES)],
        capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    wrong = [
        line for line in done.stderr.splitlines() if "Unknown" in line or "Invalid" in line or "Failed to parse" in line
    ]
    assert wrong == []
