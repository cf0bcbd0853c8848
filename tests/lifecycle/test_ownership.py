"""Users whose numbers change with an image: told by name, changed on request, forth and back, whatever is cut off."""

from __future__ import annotations

import json
import os
import stat
import struct

import pytest
from builders.lifecycle_kit import Killed, PowerCut, finalized, run, staged, upgraded, version

from cfs_core.errors import RefusedError
from cfs_core.lifecycle import ownership
from cfs_testkit.builders.oci import File

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

UNIT = {"usr/lib/systemd/system/cfs-boot-ownership.service": File("[Service]\n")}
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def accounts(web, other):
    """Account files of an image whose users web and other have these numbers."""
    return {
        "etc/passwd": File(f"root:x:0:0::/:\nweb:x:{web}:{web}::/:\nother:x:{other}:{other}::/:\n"),
        "etc/group": File(f"root:x:0:\nweb:x:{web}:\nother:x:{other}:\n"),
    }


@pytest.fixture
def swapped(machine, versions):
    """A machine that runs version 2; in version 3, which is published, two users exchange their numbers."""
    versions.publish(version(2, **accounts(990, 991), **UNIT))
    upgraded(machine)
    var = machine.root / "sysroot/state/os/default/var"
    (var / "lib/web").mkdir(parents=True)
    (var / "lib/other").write_text("other\n")
    os.chown(var / "lib/web", 990, 990)
    os.chown(var / "lib/other", 991, 991)
    (var / "lib/web/tool").write_text("tool\n")
    os.chown(var / "lib/web/tool", 990, 0)
    os.chmod(var / "lib/web/tool", 0o4755)  # noqa: PTH101 - after the owner
    (var / "lib/web/link").symlink_to("/etc/shadow")
    os.lchown(var / "lib/web/link", 990, 991)
    (machine.etc / "web.key").write_text("secret\n")
    os.chown(machine.etc / "web.key", 990, 990)
    versions.publish(version(3, **accounts(991, 990), **UNIT))
    return machine


def owners(machine):
    var = machine.root / "sysroot/state/os/default/var/lib"
    names = ("web", "other", "web/tool", "web/link")
    return [(found.st_uid, found.st_gid) for found in (os.lstat(var / name) for name in names)]


BEFORE = [(990, 990), (991, 991), (990, 0), (990, 991)]
AFTER = [(991, 991), (990, 990), (991, 0), (991, 990)]


def test_told_by_name_and_left_alone(swapped):
    found = staged(swapped).plan["etc"]["renumbered"]
    assert [(each["kind"], each["name"], each["old"], each["new"]) for each in found] == [
        ("group", "other", 991, 990), ("group", "web", 990, 991),
        ("user", "other", 991, 990), ("user", "web", 990, 991),
    ]  # fmt: skip
    finalized(swapped)
    swapped.reboot()
    assert owners(swapped) == BEFORE
    assert run(swapped, "boot", "ownership").stdout.strip() == "nothing"


def test_changed_when_it_starts_and_back_when_the_old_one_does(swapped):
    staged(swapped, fix_ownership=True)
    finalized(swapped)
    assert owners(swapped) == BEFORE, "what still runs keeps its files"
    old = swapped.read().running.booted
    swapped.reboot()
    assert json.loads(run(swapped, "boot", "ownership", "--format", "json").stdout)["files"] == 4
    assert owners(swapped) == AFTER
    tool = os.lstat(swapped.root / "sysroot/state/os/default/var/lib/web/tool")
    assert stat.S_IMODE(tool.st_mode) == 0o4755
    key = os.lstat(swapped.etc / "web.key")
    assert (key.st_uid, key.st_gid) == (991, 991)
    assert run(swapped, "boot", "ownership").stdout.strip() == "nothing"
    var = swapped.root / "sysroot/state/os/default/var/lib"
    (var / "new").write_text("made by version 3\n")
    os.chown(var / "new", 991, 991)
    run(swapped, "rollback")
    assert swapped.reboot() == old
    run(swapped, "boot", "ownership")
    assert owners(swapped) == BEFORE
    assert os.lstat(var / "new").st_uid == 990, "a file that only the newer one knew is web's, too"
    assert os.lstat(swapped.etc / "web.key").st_uid == 990


def test_cut_off_anywhere(swapped, monkeypatch):
    """Two users exchange their numbers: what is begun twice must not be exchanged twice."""
    staged(swapped, fix_ownership=True)
    finalized(swapped)
    swapped.reboot()
    real, left = ownership.change_owner, [0]

    def change(path, uid, gid):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(path, uid, gid)

    monkeypatch.setattr(ownership, "change_owner", change)
    for count in (0, 1, 3):
        left[0] = count
        with pytest.raises(Killed):
            run(swapped, "boot", "ownership")
    monkeypatch.undo()
    for count in range(3):
        with PowerCut(count):
            run(swapped, "boot", "ownership")
    run(swapped, "boot", "ownership")
    assert owners(swapped) == AFTER


def test_an_image_that_could_not_change_them_is_refused(swapped, versions):
    versions.publish(version(3, **accounts(991, 990)))
    with pytest.raises(RefusedError) as caught:
        staged(swapped, fix_ownership=True)
    assert "cfs-boot-ownership.service" in caught.value.message


def test_a_malformed_journal_changes_nothing(swapped):
    journal = swapped.root / "sysroot" / ownership.JOURNAL.path.lstrip("/")
    journal.parent.mkdir(parents=True, exist_ok=True)
    for text in ("", "[]", "{}", '{"version": 1, "of": 1, "numbers": [], "pending": [[1]]}', '{"version": 9}'):
        journal.write_text(text)
        assert run(swapped, "boot", "ownership").stdout.strip() == "nothing"
    assert owners(swapped) == BEFORE


def test_capabilities_stay(tmp_path):
    program = tmp_path / "program"
    program.write_text("x")
    try:
        os.setxattr(program, "security.capability", CAPABILITY)
    except OSError as error:
        pytest.skip(f"no capabilities here: {error}")
    ownership.change_owner(os.fspath(program), 990, 991)
    assert os.getxattr(program, "security.capability") == CAPABILITY
    assert (program.stat().st_uid, program.stat().st_gid) == (990, 991)


def test_what_runs_may_be_retained(swapped):
    before = swapped.read().running.booted
    assert run(swapped, "switch", "--retain", "--transport", "oci", f"{_place(swapped)}:os").exit_code == 0
    assert swapped.read().records.pinned == {before}


def test_a_policy_may_be_demanded(swapped):
    with pytest.raises(RefusedError) as caught:
        run(swapped, "switch", "--enforce-container-sigpolicy", "--transport", "oci", f"{_place(swapped)}:os")
    assert "policy.require" in caught.value.hint


def _place(machine):
    return machine.read().booted.image.removeprefix("oci:").rpartition(":")[0]
