"""A real Debian machine upgrades itself from a stick, restarts, goes back: /etc merged at shutdown, /var kept."""

from __future__ import annotations

import json
import shutil

import pytest
from builders import guests

pytestmark = [pytest.mark.campaign, pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(5400)]

STICK = "/run/images"


@pytest.fixture(scope="session")
def guest_images(workspace):
    """Tags v1, with cfs and a shell on the serial port in it, and v2, which changes /etc, /usr and kernel arguments."""
    missing = [tool for tool in ("qemu-system-x86_64", "mmdebstrap", "umoci", "mkfs.ext4") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing; scripts/host-setup installs what VM tests need")
    return guests.build_images(workspace)


@pytest.fixture
def guest(user, guest_images, workspace, tmp_path):
    """A machine that runs v1 and follows v2 on a stick."""
    disk, stick = user.home / "lifecycle.img", workspace / "stick.img"
    user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{guest_images}:v1", "--target-imgref", f"oci:{STICK}:v2",
        "--disk-size", "3G", "--yes", "--seed", "lifecycle", disk,
    )  # fmt: skip
    guests.image_disk(stick, guest_images)
    made = guests.Guest(disk, tmp_path / "guest", others=[stick])
    yield made
    made.stop()
    disk.unlink()


def plug_in(guest):
    guest.sh(f"mkdir -p {STICK} && mount -r LABEL=images {STICK}")


def status(guest):
    return json.loads(guest.sh("cfs --no-progress status --format json 2>/dev/null", ok=(0, 12)))


def test_upgrade_and_back(guest, user):
    guest.start()
    plug_in(guest)
    before = status(guest)
    assert before["cfs"]["problems"] == []
    one = before["status"]["booted"]["composefs"]["verity"]
    guest.sh("echo mine >/etc/mine; chmod 600 /etc/issue; rm -f /etc/motd; echo kept >/var/kept")
    guest.sh("cfs kargs add local=1")
    assert "update: " in guest.sh("cfs upgrade --check")
    staged = json.loads(guest.sh("cfs --no-progress upgrade --format json 2>/dev/null"))
    assert (staged["result"], staged["finalized_at_shutdown"]) == ("staged", True)

    guest.reboot()
    plug_in(guest)
    guest.sh("while systemctl is-active -q cfs-boot-good.service; do sleep 1; done")
    after = status(guest)
    assert guest.sh("systemctl is-system-running --wait", ok=(0, 1)).strip() == "running"
    assert after["status"]["booted"]["composefs"]["verity"] == staged["image_id"] != one
    assert after["status"]["rollback"]["composefs"]["verity"] == one
    assert after["cfs"]["problems"] == []
    assert guest.sh("cat /usr/lib/version /etc/from-image /etc/mine /var/kept").split() == ["2", "2", "mine", "kept"]
    assert guest.sh("stat -c %a /etc/issue; ls /etc/motd", ok=(2,)).split()[0] == "600"
    words = guest.sh("cat /proc/cmdline").split()
    assert {"second=yes", "local=1"} <= set(words)
    entries = {each["id"]: each["entries"][0]["tries_left"] for each in after["cfs"]["deployments"]}
    assert entries == {one: None, staged["image_id"]: None}, "it came up, so it is no longer on trial"

    guest.sh("cfs rollback")
    guest.reboot()
    assert status(guest)["status"]["booted"]["composefs"]["verity"] == one
    assert guest.sh("ls /usr/lib/version", ok=(2,))
    assert guest.sh("cat /etc/mine /var/kept").split() == ["mine", "kept"]
    guest.sh("cfs gc; cfs fsck", seconds=3000)
    guest.power_off()
    user.cfs("repo", "fsck", "--disk", guest.disk)


def test_a_power_cut_while_it_waits(guest):
    """What was staged and not finalized is dropped; the machine starts what it started before and can do it again."""
    guest.start()
    plug_in(guest)
    one = status(guest)["status"]["booted"]["composefs"]["verity"]
    guest.sh("cfs upgrade")
    guest.stop()
    guest.start()
    found = status(guest)
    assert (found["status"]["booted"]["composefs"]["verity"], found["status"]["staged"]) == (one, None)
    assert found["cfs"]["problems"] == []
