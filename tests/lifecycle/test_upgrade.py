"""Upgrading a machine of directories: staging, finalizing, going back; what is on disk after each."""

from __future__ import annotations

import json
import shutil

import pytest
from builders.lifecycle_kit import finalized, kernel, run, staged, upgraded, version
from builders.pe import pe_bytes

from cfs_core.errors import DiskFullError, NotFoundError, RefusedError, StateError, UsageError
from cfs_core.lifecycle import room
from cfs_core.lifecycle.document import document
from cfs_core.lifecycle.etc_merge.rules import OnConflict
from cfs_core.target.mounted import MountedTarget
from cfs_testkit.builders.oci import File


def test_version_two(machine, versions):
    before = machine.read()
    (machine.etc / "hostname").write_text("mine\n")
    (machine.etc / "added").write_text("local\n")
    versions.publish(version(2))
    done = staged(machine)
    assert (done.result, done.version, done.image) == ("staged", "v2", versions.reference)
    waiting = machine.read()
    assert waiting.default == before.default
    assert waiting.menu == before.menu
    made = document(waiting)
    assert made["status"]["staged"]["image"]["version"] == "v2"
    assert made["status"]["staged"]["softRebootCapable"] is True
    assert waiting.status.problems == ()

    assert finalized(machine).result == "finalized"
    new = machine.reboot()
    after = machine.read()
    assert (after.running.booted, after.booted.origin.version) == (new, "v2")
    assert after.rollback.id == before.default
    assert after.running.staged is None
    etc = machine.etc
    assert [(etc / name).read_text() for name in ("hostname", "added", "release")] == ["mine\n", "local\n", "2\n"]
    assert not (etc.parent / "etc.merging").exists()
    assert [entry.title for entry in after.entries] == ["Test OS 2", "Test OS 1"]
    assert after.entries[0].files == after.entries[1].files, "one kernel serves both"
    assert after.status.problems == ()
    report = json.loads((etc.parent / "etc-merge.json").read_text())
    assert report == {"carried": True, "conflicts": [], "notes": [], "orphans": [], "renumbered": []}


def test_nothing_to_do(machine, versions):
    assert staged(machine).why == "it is running already"
    versions.publish(version(2))
    assert staged(machine).result == "staged"
    assert staged(machine).why == "it is staged already"
    with pytest.raises(RefusedError) as caught:
        staged(machine, target=versions.publish(version(1), "again"), download_only=True)
    assert caught.value.code == "state.same"


def test_what_was_staged_before_is_replaced(machine, versions):
    versions.publish(version(2))
    two = staged(machine).image_id
    versions.publish(version(3))
    three = staged(machine).image_id
    assert machine.read().running.staged.id == three
    finalized(machine)
    assert machine.reboot() == three
    assert two not in {entry.deployment_id for entry in machine.read().entries}


def test_downloading_only(machine, versions):
    before = machine.read().default
    versions.publish(version(2))
    assert staged(machine, download_only=True).result == "downloaded"
    assert document(machine.read())["status"]["staged"]["downloadOnly"] is True
    assert finalized(machine).why == "what is staged was downloaded only"
    versions.folder.rename(versions.folder.with_name("away"))
    try:
        with pytest.raises(NotFoundError):
            staged(machine)
        assert run(machine, "upgrade", "--from-downloaded").exit_code == 0
        assert finalized(machine).result == "finalized"
    finally:
        versions.folder.with_name("away").rename(versions.folder)
    assert machine.reboot() != before


def test_without_anything_downloaded(machine):
    with pytest.raises(StateError):
        run(machine, "upgrade", "--from-downloaded")


def test_a_restart_drops_what_was_not_finalized(machine, versions):
    before = machine.read().default
    versions.publish(version(2))
    left = staged(machine).image_id
    assert machine.reboot() == before
    found = machine.read()
    assert (found.running.staged, found.status.problems) == (None, ())
    assert staged(machine).image_id == left, "what is left over is taken away and made again"


def test_checking_fetches_nothing(machine, versions):
    def objects():
        return sorted(path.name for path in (machine.root / "sysroot/composefs/objects").rglob("*"))

    before = objects()
    assert run(machine, "upgrade", "--check").exit_code == 77
    versions.publish(version(2))
    found = run(machine, "upgrade", "--check", "--format", "json")
    assert (found.exit_code, json.loads(found.stdout)["version"]) == (0, "v2")
    assert objects() == before


def test_a_dry_run_changes_nothing(machine, versions):
    def everything():
        return {path.relative_to(machine.root).as_posix(): path.lstat().st_mtime_ns for path in machine.root.rglob("*")}

    (machine.etc / "release").write_text("mine\n")
    versions.publish(version(2, **{"usr__lib__bootc__kargs.d__20-x.toml": File('kargs = ["new=1"]\n'), **kernel("b")}))
    before = everything()
    found = json.loads(run(machine, "upgrade", "--dry-run", "--format", "json").stdout)
    assert everything() == before
    plan = found["plan"]
    assert plan["etc"]["notes"][0]["path"] == "/etc/release"
    assert "new=1" in plan["kernel_arguments"]["after"]
    assert "new=1" not in plan["kernel_arguments"]["before"]
    assert [each["action"] for each in plan["boot"]][:2] == ["CopyObject", "CopyObject"]
    assert "argument +  new=1" in run(machine, "upgrade", "--dry-run").stdout


def test_kernel_arguments_follow_the_image_and_local_ones_stay(machine, versions):
    run(machine, "kargs", "add", "local=1")
    run(machine, "kargs", "delete", "quiet")
    machine.reboot()
    versions.publish(version(2, **{"usr/lib/bootc/kargs.d/10-test.toml": File('kargs = ["quiet", "new=2"]\n')}))
    before = machine.read().booted.boot_entry.arguments
    new = upgraded(machine)
    after = machine.read().booted.boot_entry.arguments
    assert set(after) - set(before) == {"new=2", f"composefs={new}"}
    assert {word.partition("=")[0] for word in set(before) - set(after)} == {"console", "composefs"}
    assert "local=1" in after


def test_another_kernel_gets_files_of_its_own(machine, versions):
    versions.publish(version(2, **kernel("two")))
    upgraded(machine)
    found = machine.read()
    assert not set(found.entries[0].files) & set(found.entries[1].files)
    assert document(found)["status"]["rollback"]["softRebootCapable"] is False
    versions.publish(version(3, **kernel("three")))
    upgraded(machine)
    assert len(list((machine.root / "boot/EFI/Linux").iterdir())) == 2, "the kernel of the first is gone"


def test_going_back_and_forth(machine, versions):
    one = machine.read().default
    versions.publish(version(2))
    two = upgraded(machine)
    (machine.etc / "of-two").write_text("x")
    assert json.loads(run(machine, "rollback", "--format", "json", "--dry-run").stdout)["image_id"] == one
    assert machine.read().default == two
    run(machine, "rollback")
    assert document(machine.read())["status"]["rollbackQueued"] is True
    run(machine, "rollback")
    assert document(machine.read())["status"]["rollbackQueued"] is False
    run(machine, "rollback")
    assert machine.reboot() == one
    assert not (machine.etc / "of-two").exists()
    assert staged(machine).why.startswith("the machine went back from this image")
    assert run(machine, "upgrade", "--check").exit_code == 77
    assert staged(machine, retry=True).image_id == two
    finalized(machine)
    assert machine.reboot() == two
    assert not (machine.etc / "of-two").exists(), "the /etc that comes along is that of what ran"


def test_going_back_does_not_drop_an_upgrade_without_a_word(machine, versions):
    versions.publish(version(2))
    upgraded(machine)
    versions.publish(version(3))
    three = staged(machine).image_id
    with pytest.raises(RefusedError) as caught:
        run(machine, "rollback")
    assert caught.value.code == "state.staged"
    assert machine.read().running.staged.id == three
    run(machine, "rollback", "--yes")
    assert machine.read().running.staged is None


def test_there_is_nothing_to_go_back_to(machine):
    with pytest.raises(StateError):
        run(machine, "rollback")


CONFLICT = {"etc__conf": File("now a file\n")}


def test_an_etc_that_cannot_be_merged_is_found_when_staging(machine, versions):
    (machine.etc / "conf").mkdir()
    (machine.etc / "conf/local").write_text("mine")
    before = machine.read()
    versions.publish(version(2, **CONFLICT))
    with pytest.raises(StateError) as caught:
        staged(machine)
    assert (caught.value.code, caught.value.facts["conflicts"][0]["path"]) == ("state.etc-conflict", "/etc/conf")
    assert machine.read().running.staged is None
    assert staged(machine, etc_conflicts=OnConflict.LOCAL).plan["etc"]["conflicts"]
    assert finalized(machine, on_conflict=OnConflict.IMAGE).conflicts == 1
    assert machine.reboot() != before.default
    assert (machine.etc / "conf").read_text() == "now a file\n"
    assert (machine.etc.parent / "etc-lost/conf/local").read_text() == "mine"


def test_a_merge_that_fails_at_shutdown_is_told(machine, versions):
    before = machine.read().default
    versions.publish(version(2, **CONFLICT))
    new = staged(machine).image_id
    (machine.etc / "conf").mkdir()
    with pytest.raises(StateError):
        finalized(machine)
    assert machine.reboot() == before
    found = run(machine, "status")
    assert (found.exit_code, f"failed: {new[:16]}: finalizing failed: /etc cannot be merged" in found.stdout) == (
        12, True,
    )  # fmt: skip
    (machine.etc / "conf").rmdir()
    assert upgraded(machine) == new
    assert run(machine, "status").exit_code == 0


def test_finalizing_again_merges_again(machine, versions):
    versions.publish(version(2))
    staged(machine)
    file = machine.root / "run/composefs/staged-deployment"
    kept = file.read_bytes()
    finalized(machine)
    (machine.etc / "late").write_text("late")
    file.write_bytes(kept)
    assert finalized(machine).result == "finalized"
    machine.reboot()
    assert (machine.etc / "late").read_text() == "late"
    assert machine.read().status.problems == ()


def test_content_from_elsewhere(machine, versions, tmp_path):
    versions.publish(version(2))
    shutil.copytree(versions.folder, tmp_path / "stick")
    versions.publish(version(1))
    assert staged(machine, content_from=f"oci:{tmp_path}/stick:os").version == "v2"
    finalized(machine)
    machine.reboot()
    assert machine.read().booted.image == versions.reference


def test_switching_to_another_image(machine, versions):
    other = versions.publish(version(7, **{"usr/lib/os-release": File("ID=other\nPRETTY_NAME=Other\n")}), "other")
    assert staged(machine, target=other).result == "staged"
    finalized(machine)
    machine.reboot()
    found = machine.read()
    assert (found.booted.image, [entry.title for entry in found.entries]) == (other, ["Other", "Test OS 1"])
    assert found.status.problems == ()


def test_switching_never_loosens_by_accident(machine, versions):
    (origin,) = (machine.root / "sysroot/state/deploy").glob("*/*.origin")
    origin.write_text(origin.read_text().replace("[cfs]\n", "[cfs]\nverified = signed: by somebody\n"))
    other = versions.publish(version(7), "other")
    with pytest.raises(RefusedError) as caught:
        staged(machine, target=other)
    assert (caught.value.code, machine.read().running.staged) == ("state.weaker", None)
    done = staged(machine, target=other, allow_weaker=True)
    assert "was judged" in done.plan["weaker"][0]


def test_no_room_for_another_kernel(machine, versions, monkeypatch):
    """Refused before anything is fetched; where the kernel's layer is the same, nothing is to be copied."""
    objects = machine.root / "sysroot/composefs/objects"
    before = sum(1 for _ in objects.rglob("*"))
    monkeypatch.setattr(room, "free_bytes", lambda _path: 1000)
    versions.publish(version(2))
    assert staged(machine, download_only=True).result == "downloaded"
    different = version(3)
    different.layers[0] = different.layers[1]
    fetched = sum(1 for _ in objects.rglob("*"))
    assert fetched > before
    versions.publish(version(3, **kernel("other")))
    with pytest.raises(DiskFullError):
        staged(machine)
    assert machine.read().running.staged is not None, "what was there before is still there"


def test_more_than_two_and_pins(machine, versions):
    one = machine.read().default
    run(machine, "deployments", "pin", one[:12])
    for number in (2, 3, 4):
        versions.publish(version(number))
        last = upgraded(machine)
    found = machine.read()
    assert [entry.title for entry in found.entries] == ["Test OS 4", "Test OS 3", "Test OS 1"]
    assert found.entries[0].deployment_id == last
    with pytest.raises(RefusedError):
        run(machine, "deployments", "remove", one)
    with pytest.raises(RefusedError):
        run(machine, "deployments", "remove", "booted")
    with pytest.raises(StateError):
        run(machine, "deployments", "remove", "")
    run(machine, "deployments", "unpin", one)
    run(machine, "deployments", "remove", one)
    assert len(machine.read().entries) == 2
    assert "rollback" in run(machine, "deployments", "list").stdout


def test_garbage(machine, versions):
    one = machine.read().default
    versions.publish(version(2, **kernel("two")))
    two = upgraded(machine)
    versions.publish(version(3, **kernel("three")))
    three = upgraded(machine)
    state = machine.root / "sysroot/state/deploy"
    (state / "not-ours").mkdir()
    assert {path.name for path in state.iterdir()} == {one, two, three, "not-ours"}
    planned = json.loads(run(machine, "gc", "--dry-run", "--format", "json").stdout)
    assert planned["states"] == [one]
    assert {each["id"]: each["why"] for each in planned["kept"]} == {two: "in the boot menu", three: "running"}
    done = json.loads(run(machine, "gc", "--format", "json").stdout)
    assert (done["states"], done["tags"], done["kept"]) == (planned["states"], planned["tags"], planned["kept"])
    assert done["objects_removed"] > planned["objects_removed"]
    assert {path.name for path in state.iterdir()} == {two, three, "not-ours"}
    run(machine, "rollback")
    assert machine.reboot() == two
    again = json.loads(run(machine, "gc", "--format", "json").stdout)
    assert (again["states"], again["objects_removed"]) == ([], 0)


def test_config_diff(machine):
    (machine.etc / "hostname").unlink()
    (machine.etc / "more").mkdir()
    (machine.etc / "release").chmod(0o600)
    assert run(machine, "config-diff").stdout.splitlines() == [
        "removed   hostname", "added     more", "modified  release (mode)",
    ]  # fmt: skip


def test_kernel_arguments_of_what_is_staged(machine, versions):
    versions.publish(version(2))
    staged(machine)
    run(machine, "kargs", "add", "late=1")
    with pytest.raises(StateError):
        run(machine, "kargs", "delete", "nothing")
    finalized(machine)
    machine.reboot()
    found = machine.read()
    assert ["late=1" in entry.arguments for entry in found.entries] == [True, False]


def test_following_another_image(machine, versions, tmp_path):
    other = versions.publish(version(5), "other")
    run(machine, "edit", "--image", other)
    assert machine.read().booted.image == other
    document_ = json.loads(run(machine, "status", "--json").stdout)
    document_["spec"]["image"]["image"] = document_["spec"]["image"]["image"].replace(":other", ":os")
    (tmp_path / "host.json").write_text(json.dumps(document_))
    run(machine, "edit", "--filename", tmp_path / "host.json")
    assert machine.read().booted.image == versions.reference


def test_one_writer_at_a_time(machine):
    from cfs_core.lifecycle.lock import locked

    with locked(machine.root / "run/cfs.lock", "test"), pytest.raises(RefusedError) as caught:
        run(machine, "gc")
    assert "cfs test" in caught.value.message
    run(machine, "gc")


def test_units_of_a_boot_wait_for_each_other(machine):
    from threading import Timer

    from cfs_core.lifecycle.lock import locked

    held = locked(machine.root / "run/cfs.lock", "test")
    held.__enter__()
    timer = Timer(1.0, held.__exit__, (None, None, None))
    timer.start()
    assert run(machine, "boot", "check").exit_code == 0
    timer.join()


def test_what_bootc_staged_is_finalized(machine, versions):
    """Nothing of ours is there: no details below /run, no section of ours in the origin files."""
    versions.publish(version(2, **{"usr/lib/bootc/kargs.d/20-more.toml": File('kargs = ["more=2"]\n')}))
    new = staged(machine).image_id
    shutil.rmtree(machine.root / "run/cfs")
    for origin in (machine.root / "sysroot/state/deploy").glob("*/*.origin"):
        text = origin.read_text()
        origin.write_text(text[: text.index("[cfs]")])
    before = machine.read().booted.boot_entry.arguments
    assert finalized(machine).result == "finalized"
    assert machine.reboot() == new
    after = machine.read().booted.boot_entry.arguments
    assert set(after) - set(before) == {"more=2", f"composefs={new}"}


def test_entries_are_what_bootc_expects(machine, versions):
    versions.publish(version(2))
    new = upgraded(machine)
    found = {path.name: path.read_text() for path in (machine.root / "boot/loader/entries").iterdir()}
    assert sorted(found) == ["bootc_test-1-0.conf", "bootc_test-2-1.conf"]
    lines = found["bootc_test-2-1.conf"].splitlines()
    assert [line.split(" ")[0] for line in lines] == ["title", "version", "linux", "initrd", "options", "sort-key"]
    assert (lines[1], lines[-1]) == ("version 2", "sort-key bootc-test-0")
    assert f"composefs={new}" in lines[4].split(" ")
    assert "sort-key bootc-test-1" in found["bootc_test-1-0.conf"]
    tags = {path.name for path in (machine.root / "sysroot/composefs/streams/refs/oci").iterdir()}
    digest = machine.read().booted.manifest_digest
    assert f"localhost%2Fbootc-{digest}" in tags


LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
PLACES = ("boot/EFI/systemd/systemd-bootx64.efi", "boot/EFI/BOOT/BOOTX64.EFI")


def loader(number):
    magic = f"#### LoaderInfo: systemd-boot {number} ####\0".encode()
    return {LOADER: File(pe_bytes([(".text", b"loader" * 50), (".sdmagic", magic)], 0x8664))}


def test_a_newer_loader_comes_along_and_an_older_one_does_not(machine, versions):
    before = [(machine.root / place).read_bytes() for place in PLACES]
    versions.publish(version(2, **loader("256.1")))
    staged(machine)
    assert finalized(machine).loader.result == "none"
    machine.reboot()
    assert [(machine.root / place).read_bytes() for place in PLACES] == before
    newer = loader("999.1")
    versions.publish(version(3, **newer))
    staged(machine)
    done = finalized(machine).loader
    assert (done.result, len(done.files), done.files[-1]) == ("done", 2, "ESP:/EFI/BOOT/BOOTX64.EFI")
    machine.reboot()
    assert [(machine.root / place).read_bytes() for place in PLACES] == [newer[LOADER].data] * 2


def test_a_loader_that_cannot_be_refreshed_stops_nothing(machine, versions, monkeypatch):
    versions.publish(version(2, **loader("999.1")))
    new = staged(machine).image_id
    real = MountedTarget.apply

    def apply(target, action):
        if "BOOTX64" in str(getattr(action, "location", "")):
            msg = "no room"
            raise DiskFullError(msg)
        real(target, action)

    monkeypatch.setattr(MountedTarget, "apply", apply)
    done = finalized(machine).loader
    assert (done.result, done.why) == ("failed", "no room")
    assert machine.reboot() == new
    assert machine.read().status.problems == ()


def test_an_image_without_a_loader_is_no_fault(machine, versions):
    versions.publish(version(2, **{LOADER: None}))
    done = staged(machine)
    assert [finding.code for finding in done.plan["findings"]] == ["boot.loader-missing"]
    assert finalized(machine).loader.result == "none"
    assert machine.reboot() == done.image_id
    assert (machine.root / PLACES[1]).exists()


def test_a_soft_reboot_needs_the_same_kernel(machine, versions):
    versions.publish(version(2, **kernel("two")))
    with pytest.raises(RefusedError) as caught:
        run(machine, "upgrade", "--soft-reboot", "required")
    assert (caught.value.code, "its kernel or initramfs differs" in caught.value.message) == ("state.soft-reboot", True)
    versions.publish(version(3, **{"usr/lib/bootc/kargs.d/10-test.toml": File('kargs = ["new=2"]\n')}))
    with pytest.raises(RefusedError, match="its kernel arguments differ"):
        run(machine, "upgrade", "--soft-reboot", "required")
    assert document(machine.read())["status"]["staged"]["softRebootCapable"] is False
    versions.publish(version(4))
    assert run(machine, "upgrade", "--soft-reboot", "required").exit_code == 0
    assert document(machine.read())["status"]["staged"]["softRebootCapable"] is True
    with pytest.raises(UsageError):
        run(machine, "upgrade", "--apply")
