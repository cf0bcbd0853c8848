"""What each release installed, made again: upgraded to the present in one step, and back, with its layout kept."""

from __future__ import annotations

import json

import pytest
from builders.lifecycle_kit import Versions, run, upgraded, version
from builders.machines import install_below

RELEASED = {
    "0.1": {},
    "0.1 with sha256": {"install.hash": "sha256"},
    "0.1 with EROFS as composefs 1.0 has it": {"install.erofs": "v0"},
}
"""Settings that make a release's layout. A line is never taken away; a new release whose defaults differ adds one, and
gives those before it the settings that were their defaults."""


@pytest.mark.parametrize("name", RELEASED)
def test_up_and_back(name, tmp_path):
    versions = Versions(tmp_path / "oci")
    versions.publish(version(1))
    machine = install_below(tmp_path, versions.reference, **RELEASED[name])
    meta = machine.root / "sysroot/composefs/meta.json"
    old, layout = machine.read().running.booted, json.loads(meta.read_text())
    versions.publish(version(2))
    new = upgraded(machine)
    assert len(new) == len(old), "the hash stays"
    assert json.loads(meta.read_text()) == layout
    run(machine, "rollback")
    assert machine.reboot() == old
    run(machine, "gc")
    assert run(machine, "fsck").exit_code == 0
    assert run(machine, "status").exit_code == 0
