"""The plug is pulled while a machine upgrades, finalizes, goes back or collects: it comes up, old or new, and in order.

Thirty times, or CFS_KILLS times; CFS_KILLS_SEED chooses other moments. A machine that runs is kept as a snapshot, so
that each kill takes the time of its work and of one start.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from dataclasses import dataclass

import pytest
from builders import guest_images, guests, snapshots

pytestmark = [pytest.mark.campaign, pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(24 * 3600)]

KILLS = int(os.environ.get("CFS_KILLS", "30"))
SEED = int(os.environ.get("CFS_KILLS_SEED", "1"))
WAIT = "while systemctl is-active -q cfs-boot-good.service; do sleep 1; done"


@dataclass
class Scene:
    """A kept state, a command, how long it takes, and which deployments may run afterwards."""

    state: str
    command: str
    seconds: float
    may_run: set[str]


def status(guest):
    return json.loads(guest.sh("cfs --no-progress status --format json 2>/dev/null", ok=(0, 12)))


def booted(guest):
    return status(guest)["status"]["booted"]["composefs"]["verity"]


@pytest.fixture(scope="module")
def guest(user, workspace, tmp_path_factory):
    """A machine with version 1, whose registry has version 2."""
    images = guest_images.build(workspace, sealed=False)
    stick, disk = workspace / "kill-stick.img", user.home / "kill.img"
    guests.image_disk(stick, images)
    user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{images}:v1", "--target-imgref",
        f"docker://{guest_images.REGISTRY}:v2", "--disk-size", "4G", "--yes", "--seed", "kill",
        "--bootloader", "systemd-boot", disk,
    )  # fmt: skip
    made = snapshots.BranchingGuest(disk, tmp_path_factory.mktemp("kill"), others=[stick])
    yield made
    made.stop()
    disk.unlink()


@pytest.fixture(scope="module")
def scenes(guest):
    """The four things that are interrupted; each is done once in peace, which tells how long it takes."""
    guest.start()
    guest.sh(WAIT)
    one = booted(guest)
    guest.keep("one")
    staging = snapshots.seconds_of(lambda: guest.sh("cfs --no-progress upgrade"))
    two = status(guest)["status"]["staged"]["composefs"]["verity"]
    guest.keep("staged")
    restart = snapshots.seconds_of(lambda: guest.reboot(image=two))
    guest.sh(WAIT)
    guest.keep("two")
    back = snapshots.seconds_of(lambda: guest.sh("cfs rollback"))
    guest.resume("two")
    guest.sh(f"cfs deployments remove {one[:12]}")
    guest.keep("removed")
    collect = snapshots.seconds_of(lambda: guest.sh("cfs gc"))
    return {
        "upgrade": Scene("one", "cfs --no-progress upgrade", staging, {one}),
        "finalize": Scene("staged", "systemctl reboot", restart * 0.7, {one, two}),
        "rollback": Scene("two", "cfs rollback", back, {one, two}),
        "collect": Scene("removed", "cfs gc", collect, {two}),
    }


def test_it_always_comes_up(guest, scenes, user, tmp_path):
    choice = random.Random(SEED)
    for number, name in zip(range(KILLS), itertools.cycle(scenes), strict=False):
        scene = scenes[name]
        guest.resume(scene.state)
        after = choice.uniform(0, scene.seconds)
        guest.send(scene.command)
        time.sleep(after)
        guest.stop()
        print(f"{number}: {name}, killed after {after:.1f} s of {scene.seconds:.1f}", flush=True)
        disk = guest.flattened(user.home / "killed.img")
        seen = json.loads(user.cfs("status", "--format", "json", disk, check=False).stdout)
        assert {each["id"] for each in seen["cfs"]["deployments"]} & scene.may_run
        disk.unlink()
        guest.start()
        assert booted(guest) in scene.may_run, name
        guest.sh("cfs fsck --repair", ok=(0, 12), seconds=3000)
        guest.sh("cfs fsck", seconds=3000)
        guest.sh(WAIT)
        assert guest.sh("systemctl is-system-running --wait", ok=(0, 1)).strip() == "running"
        guest.stop()
