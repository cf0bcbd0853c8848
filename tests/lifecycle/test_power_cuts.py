"""The power goes after each single action of upgrade, finalizing, rollback and gc: old or new starts, never neither."""

from __future__ import annotations

import errno
import os

import pytest
from builders.lifecycle_kit import (
    Killed,
    PowerCut,
    Versions,
    copied,
    finalized,
    grub,
    kernel,
    run,
    sealed,
    staged,
    upgraded,
    version,
)
from builders.machines import digest_of, install_below

from cfs_core.errors import CfsError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KINDS = ("systemd-boot", "uki", "grub")


class Case:
    """A machine of one kind that runs version 2 and can go back to version 1; images of versions 1 to 3."""

    def __init__(self, kind, folder):
        self.versions = Versions(folder / "oci")
        self.kind, self.folder = kind, folder
        self.publish(1)
        self.machine = install_below(folder, self.versions.reference)
        assert self.machine.read().loader == ("grub" if kind == "grub" else "systemd-boot")
        self.publish(2)
        upgraded(self.machine)

    def publish(self, number):
        if self.kind == "uki":
            return self.versions.publish(sealed(number, lambda image: digest_of(self.folder, image)))
        make = grub if self.kind == "grub" else version
        return self.versions.publish(make(number, **(kernel(f"kernel {number}") if number > 1 else {})))


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    made = Case(request.param, tmp_path_factory.mktemp(request.param))
    made.publish(3)
    return made


def cuts(case, tmp_path, prepare, act, allowed, *, carried=True):
    """Cut the power after each action of *act*; the machine then starts something of *allowed*, with all it needs."""
    count, starts = 0, set()
    while True:
        machine = copied(case.machine, tmp_path / f"cut-{count}")
        prepare(machine)
        ids = allowed(machine)
        (machine.etc / "mine").write_text("mine\n")
        with PowerCut(count) as cut:
            act(machine)
        new = machine.reboot()
        assert new in ids, f"after {count} actions something else starts"
        starts.add(new)
        if carried:
            assert (machine.etc / "mine").read_text() == "mine\n", f"after {count} actions /etc is another"
        found = machine.read()
        assert [problem.message for problem in found.status.problems] == []
        again(machine)
        if cut.done < count:
            return count, starts
        count += 1


def again(machine):
    """Whatever was cut off: an upgrade goes through after it."""
    done = staged(machine, retry=True)
    if done.result == "staged":
        finalized(machine)
        assert machine.reboot() == done.image_id
    assert run(machine, "status").exit_code == 0


def nothing(_machine):
    """No preparation."""


def test_staging(case, tmp_path):
    count, starts = cuts(case, tmp_path, nothing, staged, lambda machine: [machine.read().running.booted])
    assert count > 5
    assert len(starts) == 1


def test_finalizing(case, tmp_path):
    def prepare(machine):
        staged(machine)

    def allowed(machine):
        found = machine.read()
        return [found.running.booted, found.running.staged.id]

    count, starts = cuts(case, tmp_path, prepare, finalized, allowed)
    assert count > 3
    assert len(starts) == 2


def test_going_back(case, tmp_path):
    def allowed(machine):
        found = machine.read()
        return [found.running.booted, found.rollback.id]

    _, starts = cuts(case, tmp_path, nothing, lambda machine: run(machine, "rollback"), allowed, carried=False)
    assert len(starts) == 2


def test_collecting(case, tmp_path):
    def prepare(machine):
        staged(machine)
        finalized(machine)
        machine.reboot()

    def allowed(machine):
        return [entry.deployment_id for entry in machine.read().entries]

    _, starts = cuts(case, tmp_path, prepare, lambda machine: run(machine, "gc"), allowed)
    assert len(starts) == 1


@pytest.mark.parametrize("number", range(0, 40, 3))
def test_no_room_at_any_write(case, tmp_path, monkeypatch, number):
    """The disk is full from one write on: the verb fails in words, and the machine starts what it started before."""
    machine = copied(case.machine, tmp_path)
    allowed = {machine.read().running.booted}
    left = [number]
    real = os.rename

    def rename(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **options)

    monkeypatch.setattr(os, "rename", rename)
    failed = False
    try:
        new = staged(machine).image_id
        finalizing = left[0]
        finalized(machine)
    except CfsError:
        failed = True
    else:
        assert finalizing >= 0
        allowed = {new}
    monkeypatch.setattr(os, "rename", real)
    assert failed is (left[0] < 0)
    waiting = machine.read().running.staged
    if failed and waiting is not None:
        allowed.add(waiting.id)
    assert machine.reboot() in allowed
    again(machine)


def test_the_power_cut_cuts():
    with pytest.raises(ValueError, match="invalid"), PowerCut(0):
        int("x")
    with PowerCut(0):
        raise Killed
