"""What cfs installed, as directories: found as a machine again."""

from __future__ import annotations

import pytest
from builders import bootable
from builders.machines import install_below

from cfs_core.lifecycle.document import document


@pytest.fixture
def machine(tmp_path):
    labels = {"org.opencontainers.image.version": "v1"}
    return install_below(tmp_path, bootable.layout(tmp_path / "oci", v1=bootable.image(labels=labels)) + ":v1")


def test_installed(machine):
    found = machine.read()
    made = document(found)
    booted = made["status"]["booted"]
    assert found.status.problems == ()
    assert (booted["image"]["version"], booted["image"]["architecture"]) == ("v1", "amd64")
    assert booted["composefs"]["bootloader"] == "systemd"
    assert found.booted.origin.bootloader == "systemd-boot"


def test_what_bootc_does_not_record_is_read_from_the_repository(machine):
    (origin,) = (machine.root / "sysroot/state/deploy").glob("*/*.origin")
    text = origin.read_text()
    origin.write_text(text[: text.index("[cfs]")])
    assert machine.read().booted.origin.version == "v1"
    (machine.root / "sysroot/composefs/streams").rename(machine.root / "elsewhere")
    assert machine.read().booted.origin.version is None
