"""The kit's fixture of disks to boot: entries are put into a menu on a disk with the plugin's own plan."""

import json
import shutil

import pytest
from builders import bootable

from cfs_testkit.boot import BootDisk

pytestmark = pytest.mark.skipif(shutil.which("mcopy") is None, reason="mtools are not installed")


def test_entries_are_added_and_the_real_one_stays_the_default(cfs, tmp_path):
    source = bootable.layout(tmp_path / "oci", latest=bootable.image()) + ":latest"
    disk = tmp_path / "disk.img"
    cfs.ok("install", "to-disk", "--source-imgref", source, "--karg", "cfst.x=1", disk)
    made = BootDisk(disk, "systemd-boot", tmp_path)
    (before,) = made.entries()
    real = made.add_entries(2)
    assert real.deployment_id == before.deployment_id
    assert [entry.deployment_id[0] for entry in made.entries()] == ["0", "1", real.deployment_id[0]]
    assert made.entries()[2].arguments == before.arguments
    assert "cfst.x=1" in made.entries()[0].arguments
    done = cfs("status", disk, "--format", "json")
    found = {
        entry["title"]: entry["default"]
        for deployment in json.loads(done.stdout)["cfs"]["deployments"]
        for entry in deployment["entries"]
    }
    assert found == {"cannot boot 0": False, "cannot boot 1": False, before.title: True}
