"""The status document: bootc's, field by field, of machines that bootc and cfs left behind."""

from __future__ import annotations

import json
import os

import pytest
from builders.machines import bootc_machine, running, write_origin

from cfs_core.app.app import App
from cfs_core.lifecycle.access import machine_below
from cfs_core.lifecycle.document import document
from cfs_core.report.yaml import to_yaml

A, B, C = ("a" * 128, "b" * 128, "c" * 128)


def found(root):
    with App(os.environ) as app:
        made = document(machine_below(root, app))
    return made, made["status"], made["cfs"]


@pytest.mark.parametrize("kind", ["bls", "uki"])
def test_a_machine_that_was_just_installed(tmp_path, kind):
    made, status, ours = found(bootc_machine(tmp_path, [A], booted=A, kind=kind))
    assert (made["apiVersion"], made["kind"], made["metadata"]) == (
        "org.containers.bootc/v1", "BootcHost", {"name": "host"},
    )  # fmt: skip
    assert made["spec"] == {"bootOrder": "default", "image": {"image": "quay.io/x/y:a", "transport": "registry"}}
    booted = status.pop("booted")
    assert status == {
        "staged": None, "rollback": None, "rollbackQueued": False, "type": None, "usrOverlay": None, "readOnly": False,
    }  # fmt: skip
    assert booted == {
        "image": {
            "image": {"image": "quay.io/x/y:a", "transport": "registry"},
            "version": None, "timestamp": None, "imageDigest": f"sha256:{A[:64]}", "architecture": None,
        },
        "cachedUpdate": None, "incompatible": False, "pinned": False, "softRebootCapable": False,
        "downloadOnly": False, "store": None, "ostree": None,
        "composefs": {
            "verity": A, "bootType": {"bls": "Bls", "uki": "Uki"}[kind], "bootloader": "systemd",
            "bootDigest": "f6" * 32, "missingVerityAllowed": False,
        },
    }  # fmt: skip
    assert (ours["problems"], ours["bootloader"], ours["default"]) == ((), "systemd-boot", A)


@pytest.mark.parametrize("kind", ["bls", "uki"])
def test_staged(tmp_path, kind):
    made, status, ours = found(bootc_machine(tmp_path, [A], booted=A, kind=kind, staged=B))
    assert made["spec"]["image"]["image"] == "quay.io/x/y:b"
    assert [status[name] and status[name]["composefs"]["verity"] for name in ("staged", "booted", "rollback")] == [
        B, A, None,
    ]  # fmt: skip
    assert (status["staged"]["downloadOnly"], status["staged"]["softRebootCapable"]) == (False, True)
    assert ours["problems"] == ()
    running(tmp_path, A, staged=B, locked=True)
    assert found(tmp_path)[1]["staged"]["downloadOnly"] is True


@pytest.mark.parametrize("kind", ["bls", "uki"])
def test_a_rollback_is_queued_when_the_loader_would_start_it(tmp_path, kind):
    made, status, _ = found(bootc_machine(tmp_path, [A, B], booted=B, kind=kind, os_id="bootc"))
    assert (made["spec"]["bootOrder"], status["rollbackQueued"]) == ("rollback", True)
    assert (status["booted"]["composefs"]["verity"], status["rollback"]["composefs"]["verity"]) == (B, A)
    running(tmp_path, A)
    made, status, _ = found(tmp_path)
    assert (made["spec"]["bootOrder"], status["rollbackQueued"]) == ("default", False)


def test_a_third_deployment_leaves_state_of_the_first_behind(tmp_path):
    """The kernel is in the directory of the first, which is in no menu any more."""
    bootc_machine(tmp_path, [C, B], booted=C, kernel=A)
    write_origin(tmp_path, A)
    _, status, ours = found(tmp_path)
    assert ours["problems"] == ()
    assert "otherDeployments" not in status
    assert [(each["id"][0], each["live"]) for each in ours["deployments"]] == [("c", True), ("b", True), ("a", False)]


def test_more_than_two_are_told(tmp_path):
    _, status, _ = found(bootc_machine(tmp_path, [A, B, C], booted=A))
    assert [each["composefs"]["verity"] for each in status["otherDeployments"]] == [C]


def test_an_overlay_over_usr(tmp_path):
    bootc_machine(tmp_path, [A], booted=A)
    line = "99 1 0:77 / /usr {} - overlay overlay rw,lowerdir=/usr\n"
    for options, access in (("rw,relatime", "readWrite"), ("ro,relatime", "readOnly")):
        (tmp_path / "proc/self/mountinfo").write_text(line.format(options))
        assert found(tmp_path)[1]["usrOverlay"] == {"accessMode": access, "persistence": "transient"}


def test_after_a_soft_reboot_the_mount_says_what_runs(tmp_path):
    bootc_machine(tmp_path, [A, B], booted=A)
    for source in (f"composefs:{B}", f"transient:composefs={B}"):
        (tmp_path / "proc/self/mountinfo").write_text(f"47 1 0:35 / / ro - overlay {source} ro\n")
        assert found(tmp_path)[1]["booted"]["composefs"]["verity"] == B
    (tmp_path / "proc/self/mountinfo").write_text("47 1 0:35 / / ro - ext4 /dev/vda ro\n")
    assert found(tmp_path)[1]["booted"]["composefs"]["verity"] == A


def test_what_runs_and_is_not_there_is_told(tmp_path):
    _, status, ours = found(bootc_machine(tmp_path, [A], booted=B))
    assert status["booted"] is None
    assert [problem.code for problem in ours["problems"]] == ["state.missing"]
    running(tmp_path, A, staged=C)
    assert [problem.code for problem in found(tmp_path)[2]["problems"]] == ["state.staged"]


def test_the_command(tmp_path):
    """Through the command line: JSON, YAML, only what runs, for people; exit statuses."""
    from click.testing import CliRunner

    from cfs_core.cli.main import cli

    bootc_machine(tmp_path, [A, B], booted=A)

    def run(*words):
        with App(os.environ) as app:
            done = CliRunner().invoke(cli, ["status", "--root", str(tmp_path), *words], obj=app, standalone_mode=False)
        assert done.exception is None, done.output
        return done

    assert json.loads(run("--json").stdout)["status"]["booted"]["composefs"]["verity"] == A
    assert json.loads(run("--format", "json", "--booted").stdout)["composefs"]["verity"] == A
    text = run("--format", "humanreadable").stdout
    assert ("booted" in text, "rollback" in text, "made" in text) == (True, True, False)
    assert f"composefs={A}" in run("-v").stdout
    yaml = run("--format", "yaml").stdout
    assert 'apiVersion: "org.containers.bootc/v1"\n' in yaml
    assert f'    composefs:\n      verity: "{A}"\n' in yaml


def test_yaml_is_read_back_the_same():
    yaml = pytest.importorskip("yaml")
    value = {"a": [1, {"b": [], "c": {"d": None, "yes": "no"}}, ["x", "y: z"]], "1": "é\n\"'", "e": {}, "f": True}
    assert yaml.safe_load(to_yaml(value)) == value
