"""Upgrading a machine of directories: staging, finalizing, what is on disk after each."""

from __future__ import annotations

from builders.lifecycle_kit import finalized, staged, version

from cfs_core.lifecycle.document import document


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
