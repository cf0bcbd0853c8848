"""Deployments on trial: counted only where somebody can bless them, blessed, given up, recorded, not taken again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from builders.lifecycle_kit import Versions, copied, finalized, grub, run, staged, upgraded, version
from builders.machines import install_below

from cfs_core.errors import CfsError
from cfs_core.lifecycle import menus
from cfs_core.lifecycle.session import session
from cfs_core.lifecycle.trial import minutes_to_come_up
from cfs_testkit.builders.oci import File

UNIT = {"usr/lib/systemd/system/cfs-boot-good.service": File("[Service]\n")}


class Case:
    """A machine with one loader that runs version 1, and how to make images for it."""

    def __init__(self, make, folder):
        self.make, self.folder = make, folder
        self.versions = Versions(folder / "oci")
        self.versions.publish(make(1))
        self.template = install_below(folder, self.versions.reference)


@pytest.fixture(scope="module", params=["systemd-boot", "grub"])
def case(request, tmp_path_factory):
    return Case(grub if request.param == "grub" else version, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def machine(case, tmp_path):
    case.versions.publish(case.make(2, **UNIT))
    return copied(case.template, tmp_path)


def tries(machine):
    return [entry.tries_left for entry in machine.read().entries]


def used_up(machine, left=0):
    """Do what the loader does when a deployment has been started so often."""
    found = machine.read()
    counted = list((machine.root / "boot/loader/entries").glob("*+*.conf"))
    if counted:  # systemd-boot renames the entry
        name = counted[0].name.partition("+")[0]
        counted[0].rename(counted[0].with_name(f"{name}+{left}-{3 - left}.conf"))
        return next(each.deployment_id for each in found.entries if each.tries_left is not None)
    with machine.app() as app, session(machine.root, app, "test") as opened:
        entry = next(each for each in found.entries if each.tries_left is not None)
        opened.write_menu(menus.with_entry(opened.machine, replace(entry, tries_left=left)))
    return entry.deployment_id


def test_a_new_deployment_is_on_trial_and_blessed(machine):
    new = upgraded(machine)
    assert tries(machine) == [3, None]
    used_up(machine, left=2)
    assert machine.read().default == new
    assert json.loads(run(machine, "boot", "good", "--format", "json").stdout)["result"] == "good"
    assert tries(machine) == [None, None]
    assert json.loads(run(machine, "boot", "good", "--format", "json").stdout)["result"] == "nothing"
    assert machine.reboot() == new


def test_a_boot_on_trial_has_so_many_minutes(machine, monkeypatch):
    def minutes():
        with machine.app() as app, session(machine.root, app, "test", writable=False) as opened:
            return minutes_to_come_up(opened)

    assert minutes() is None
    upgraded(machine)
    assert minutes() == 10
    monkeypatch.setenv("CFS_BOOT_TRIAL_TIMEOUT", "3")
    assert minutes() == 3
    assert json.loads(run(machine, "boot", "check", "--format", "json").stdout)["result"] == "nothing"
    run(machine, "boot", "good")
    assert minutes() is None, "it came up"


def test_nobody_counts_where_nobody_blesses(machine, case):
    case.versions.publish(case.make(2))
    upgraded(machine)
    assert tries(machine) == [None, None]


def test_the_setting_turns_it_off(machine, tmp_path):
    with machine.app() as app:
        app.add_options({"boot.tries": 0})
        from cfs_core.lifecycle.finalize import finalize
        from cfs_core.lifecycle.upgrade import UpgradeRequest, upgrade

        with session(machine.root, app, "test") as opened:
            upgrade(opened, app, UpgradeRequest())
            finalize(opened)
    assert tries(machine) == [None, None]


def test_what_does_not_come_up_is_left_recorded_and_not_taken_again(machine, case):
    old = machine.read().running.booted
    bad = upgraded(machine)
    assert used_up(machine) == bad
    assert machine.reboot() == old, "the loader goes back by itself"
    assert json.loads(run(machine, "boot", "check", "--format", "json").stdout)["result"] == "recorded"
    assert json.loads(run(machine, "boot", "check", "--format", "json").stdout)["result"] == "nothing"
    status = run(machine, "status")
    assert (status.exit_code, f"failed: {bad[:16]}: was started 3 times" in status.stdout) == (12, True)
    found = json.loads(run(machine, "status", "--json").stdout)["cfs"]["deployments"]
    assert next(each for each in found if each["id"] == bad)["failed"]["tries"] == 3
    assert staged(machine).why.startswith("the machine went back from this image")
    case.versions.publish(case.make(3, **UNIT))
    assert staged(machine).result == "staged"
    finalized(machine)
    machine.reboot()
    run(machine, "boot", "good")
    assert tries(machine)[0] is None


def test_it_may_be_tried_once_more(machine):
    bad = upgraded(machine)
    used_up(machine)
    machine.reboot()
    run(machine, "boot", "check")
    assert staged(machine, retry=True).image_id == bad
    finalized(machine)
    assert machine.reboot() == bad
    run(machine, "boot", "good")
    assert run(machine, "status").exit_code == 0


def test_only_a_trial_with_a_way_back_is_ended(machine, case):
    def failed():
        return json.loads(run(machine, "boot", "failed", "--no-reboot", "--format", "json").stdout)

    assert failed()["result"] == "nothing", "it is not on trial"
    upgraded(machine)
    assert failed()["result"] == "reboot"
    old = machine.read().rollback.id
    run(machine, "deployments", "remove", old)
    assert failed()["why"] == "there is nothing else to start: it stays up"


def test_the_others_failed_too(machine, case):
    """Then it is not the image, and the machine does not go round in circles."""
    upgraded(machine)
    used_up(machine)
    machine.reboot()
    run(machine, "boot", "check")
    case.versions.publish(case.make(3, **UNIT))
    third = staged(machine).image_id
    finalized(machine)
    with machine.app() as app, session(machine.root, app, "test") as opened:
        old = opened.machine.booted
        from cfs_core.lifecycle.records import Failure

        opened.keep(
            opened.machine.records.with_failure(old.id, Failure(manifest_digest=None, tries=1, reason="it failed"))
        )
    assert machine.reboot() == third
    done = json.loads(run(machine, "boot", "failed", "--no-reboot", "--format", "json").stdout)
    assert done["why"] == "the others failed, too: it is not the image"


def test_records_that_are_garbled_say_nothing(machine):
    from cfs_core.lifecycle.records import RECORDS, Records

    path = machine.root / "sysroot" / RECORDS.path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    for text in ("", "[]", "{", '{"version": 1, "pinned": 3, "failed": [], "left": [1]}', '{"version": 9}'):
        path.write_text(text)
        assert machine.read().records == Records()
    path.unlink()
    with pytest.raises(CfsError):
        run(machine, "deployments", "pin", "nothing")
