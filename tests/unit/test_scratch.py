"""The directory of a run: private, gone with the run, and swept by the next where the run was killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cfs_core.errors import HostError
from cfs_core.system.scratch import scratch_directory

KILLED = """
import sys
from pathlib import Path
from cfs_core.system.scratch import scratch_directory
with scratch_directory(Path(sys.argv[1])) as folder:
    (folder / "a").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_it_is_private_and_goes_away(tmp_path):
    with scratch_directory(tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_runs_is_removed_and_a_living_ones_stays(tmp_path):
    argv = [sys.executable, "-c", KILLED, str(tmp_path)]
    runs = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        dead, living = (Path(run.stdout.readline().strip()) for run in runs)
        runs[0].kill()
        runs[0].wait()
        assert (dead / "a").is_dir()
        with scratch_directory(tmp_path) as ours:
            assert set(tmp_path.iterdir()) == {living, ours}
        assert (living / "a").is_dir()
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def test_only_what_is_surely_ours_is_swept(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (tmp_path / "cfs-run-0123456789abcdef").symlink_to(precious)
    (tmp_path / "cfs-run-0123456789abcde0").write_text("a file")
    (tmp_path / "cfs-run-notours").mkdir()
    kept = set(tmp_path.iterdir())
    if os.geteuid() == 0:
        other = tmp_path / "cfs-run-0123456789abcde1"
        other.mkdir()
        os.chown(other, 65534, 65534)
        kept.add(other)
    with scratch_directory(tmp_path):
        pass
    assert set(tmp_path.iterdir()) == kept
    assert (precious / "file").exists()


def test_a_place_where_none_can_be_made_is_named(tmp_path):
    with pytest.raises(HostError, match="none") as caught, scratch_directory(tmp_path / "none"):
        pass
    assert "TMPDIR" in caught.value.hint


def test_the_environment_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with scratch_directory() as folder:
        assert folder.parent == tmp_path


def test_nothing_is_swept_where_others_can_rename(tmp_path):
    precious = tmp_path / "cfs-run-0123456789abcdef"
    precious.mkdir()
    (precious / "file").write_text("x")
    tmp_path.chmod(0o777)
    with scratch_directory(tmp_path):
        pass
    assert (precious / "file").exists()
    tmp_path.chmod(0o1777)
    with scratch_directory(tmp_path):
        pass
    assert not precious.exists()
