"""Machines that restart by themselves: only where settings, window, spread and the site's command all say so."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta

import pytest
from builders.lifecycle_kit import run, staged, version

from cfs_core.errors import ConfigError
from cfs_core.lifecycle.session import session
from cfs_core.lifecycle.unattended import decide_restart

SATURDAY = datetime(2026, 1, 3, 2, 0, tzinfo=UTC)


@pytest.fixture
def waiting(machine, versions):
    """A machine with version 2 staged."""
    versions.publish(version(2))
    assert staged(machine).result == "staged"
    return machine


def decided(machine, now=SATURDAY, **settings):
    with machine.app() as app:
        app.add_options({f"upgrade.{name.replace('_', '-')}": value for name, value in settings.items()})
        with session(machine.root, app, "test", writable=False) as opened:
            return decide_restart(opened, now)


def test_nothing_restarts_that_was_not_told_to(waiting):
    assert decided(waiting).why == "upgrade.restart is never"
    assert json.loads(run(waiting, "boot", "restart", "--format", "json").stdout)["result"] == "nothing"


def test_only_in_its_window(waiting):
    window = {"restart": "auto", "window": ["Sat 02..04:* UTC"], "spread": 0}
    assert decided(waiting, **window).result == "restart"
    assert decided(waiting, **window).image_id == waiting.read().running.staged.id
    assert decided(waiting, SATURDAY - timedelta(minutes=1), **window).why == "now is not in upgrade.window"
    assert decided(waiting, SATURDAY + timedelta(hours=3), **window).result == "later"
    with pytest.raises(ConfigError):
        decided(waiting, restart="auto", window=["some day"])


def test_nothing_staged_or_downloaded_only(machine, versions):
    assert decided(machine, restart="auto", spread=0).why == "nothing is staged"
    versions.publish(version(2))
    staged(machine, download_only=True)
    assert decided(machine, restart="auto", spread=0).why == "it is downloaded only"


def test_machines_take_turns(waiting):
    """Each has one minute from which on it may, the same every time; they are spread over the window's first hour."""
    (waiting.root / "etc").mkdir(exist_ok=True)
    window = {"restart": "auto", "window": ["Sat 02..04:* UTC"], "spread": 60}
    turns = []
    for number in range(12):
        (waiting.root / "etc/machine-id").write_text(f"{number:032x}\n")
        may = [
            decided(waiting, SATURDAY + timedelta(minutes=minute), **window).result == "restart"
            for minute in range(0, 64, 4)
        ]
        assert may == sorted(may), "once it may, it may until the window closes"
        assert may[-1]
        turns.append(may.index(True))
    assert len(set(turns)) > 4


def test_a_short_window_is_enough_for_all(waiting):
    (waiting.root / "etc").mkdir(exist_ok=True)
    window = {"restart": "auto", "window": ["Sat 02:0..9 UTC"], "spread": 600}
    for number in range(8):
        (waiting.root / "etc/machine-id").write_text(f"{number:032x}\n")
        assert decided(waiting, SATURDAY + timedelta(minutes=9), **window).result == "restart"


def test_without_a_window_the_spread_counts_from_the_staging(waiting):
    then = datetime.fromtimestamp((waiting.root / "run/composefs/staged-deployment").stat().st_mtime, UTC)
    found = [
        decided(waiting, then + timedelta(minutes=minutes), restart="auto", spread=1440).result
        for minutes in (0, 720, 1441)
    ]
    assert found[0] == "later"
    assert found[2] == "restart"


def test_the_sites_command_says_no(waiting, tmp_path):
    """It is asked last; what it says is told on, and the deployment is named to it."""
    lock = tmp_path / "may-we"
    lock.write_text('#!/bin/sh\necho "$1 has the lock, not $CFS_DEPLOYMENT"\nexit 75\n')
    lock.chmod(lock.stat().st_mode | stat.S_IXUSR)
    asked = {"restart": "auto", "restart_command": [os.fspath(lock), "node-7"], "spread": 0}
    identity = waiting.read().running.staged.id
    found = decided(waiting, **asked)
    assert found.result == "later"
    assert f"node-7 has the lock, not {identity}, exit status 75" in found.why
    marker = tmp_path / "asked"
    lock.write_text(f"#!/bin/sh\ntouch {marker}\n")
    assert decided(waiting, **asked, window=["Sun 2:* UTC"]).result == "later"
    assert not marker.exists(), "a lock that nobody uses is not taken"
    assert decided(waiting, **asked).result == "restart"
    assert marker.exists()
    lock.unlink()
    with pytest.raises(ConfigError):
        decided(waiting, **asked)
