"""Special files where a regular one belongs: refused at once, never waited for."""

import os
import subprocess
import sys

import pytest


def cfs(*words):
    """Run cfs; it has 30 seconds, and something to wait for must not take one of them."""
    argv = [sys.executable, "-m", "cfs_core", *words]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    "argv",
    [
        ["status", "FIFO"],
        ["repo", "fsck", "--disk", "FIFO"],
        ["image", "digest", "oci-archive:FIFO"],
        ["image", "digest", "docker-archive:FIFO"],
        ["image", "digest", "dump:FIFO"],
        ["--config", "FIFO", "config", "show"],
        ["image", "digest", "--authfile", "FIFO", "docker://localhost:1/app"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_it_is_refused(fifo, argv, kind):
    named = str(fifo) if kind == "fifo" else "/dev/zero"
    done = cfs(*(word.replace("FIFO", named) for word in argv))
    assert done.returncode not in {0, 1}, done.stderr
    assert "not a regular file" in done.stderr or "is not a file" in done.stderr
    assert "hint" in done.stderr
