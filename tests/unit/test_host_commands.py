"""Host commands: bounded in output and time, killed where they pass a bound, fed without a deadlock."""

import os
import time

import pytest

from cfs_core.errors import CommandError
from cfs_core.system.command import HostCommands


@pytest.fixture
def commands():
    return HostCommands(os.environ)


def test_output_is_returned_whole(commands):
    done = commands.run(["sh", "-c", "cat; echo complaint >&2"], stdin=b"x" * 3_000_000)
    assert done.stdout == b"x" * 3_000_000
    assert done.stderr == b"complaint\n"
    assert done.returncode == 0


def test_endless_output_ends(commands):
    started = time.monotonic()
    with pytest.raises(CommandError, match="wrote more than 100000 bytes, and was killed") as caught:
        commands.run(["yes"], output_limit=100_000)
    assert caught.value.hint
    assert time.monotonic() - started < 10


def test_endless_complaint_is_kept_in_part(commands):
    done = commands.run(["sh", "-c", "head -c 5000000 /dev/zero >&2; echo last >&2"])
    assert done.stderr.endswith(b"last\n")
    assert len(done.stderr) <= 1 << 20


@pytest.mark.parametrize("script", ["exec sleep 600", "exec >&- 2>&-; exec sleep 600"], ids=["silent", "closed"])
def test_endless_run_ends(commands, script):
    started = time.monotonic()
    with pytest.raises(CommandError, match=r"did not end within 0\.3 seconds, and was killed"):
        commands.run(["sh", "-c", script], seconds=0.3)
    assert time.monotonic() - started < 10


def test_command_that_does_not_read_its_input(commands):
    assert commands.run(["true"], stdin=b"x" * 1_000_000).returncode == 0


def test_status_is_told_with_the_last_words(commands):
    with pytest.raises(CommandError, match="exited with 3: no such luck"):
        commands.run(["sh", "-c", "echo no such luck >&2; exit 3"])
    assert commands.run(["sh", "-c", "exit 3"], ok=frozenset({3})).returncode == 3


@pytest.mark.parametrize("path", ["", ":", ".", "./bin", "bin", "::bin"])
def test_nothing_is_run_from_where_one_happens_to_be(tmp_path, monkeypatch, path):
    (tmp_path / "bin").mkdir()
    for folder in (tmp_path, tmp_path / "bin"):
        (folder / "planted").write_text("#!/bin/sh\necho run\n")
        (folder / "planted").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    commands = HostCommands({"PATH": path})
    assert commands.find("planted") is None
    with pytest.raises(CommandError, match="is not installed"):
        commands.run(["planted"])
    with pytest.raises(CommandError):
        commands.run(["sh", "-c", "planted"])
