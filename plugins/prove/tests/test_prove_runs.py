"""Whole runs with a program in QEMU's place that writes what a guest would, and the command around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prove_guests import ID, LOGIN, REPORT, ROOT, run

from cfs_core.plugin import Architecture, CommandError, RefusedError
from cfs_prove import machine
from cfs_prove.commands import UnprovenError, make_prove
from cfs_prove.proof import SILENT_REPORTER
from cfs_prove.report import FailureKind, Stage
from cfs_testkit.context import RecordedOutput, command_context

CFS = Path(sys.executable).with_name("cfs")


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}  # who inherits orphans may be slow to bury them


def wait_until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def test_a_report_with_everything_is_a_proof(emulator, disk):
    text = REPORT + "cfs-prove state degraded\ncfs-prove failed a.service\ncfs-prove uptime 2\ncfs-prove end\n"
    emulator(f"write('console', {LOGIN!r})\nreport({text!r})\ntime.sleep(60)")
    report = run(disk)
    assert report.proven
    assert report.evidence == "reporter"
    assert report.root.image_id == ID
    assert report.system_state == "degraded"
    assert report.failed_units == ("a.service",)
    assert [item.reached for item in report.stages] == [True] * 5
    assert not alive(emulator.calls()[0][0])
    assert disk.read_bytes() == b"\x55\xaa" * 512


def test_the_disk_is_named_so_that_it_stays_as_it_is(emulator, disk):
    emulator("sys.exit(0)")
    run(disk)
    drive = next(word for word in emulator.calls()[0][1] if "id=disk" in word)
    assert "snapshot=on" in drive
    assert str(disk).replace(",", ",,") in drive
    assert "format=raw" in drive


@pytest.mark.parametrize(
    ("name", "asked", "form"),
    [
        ("disk.img", None, "raw"),
        ("disk", None, "raw"),
        ("disk.qcow2", None, "qcow2"),
        ("disk.img", "qcow2", "qcow2"),
        ("disk.qcow2", "raw", "raw"),
    ],
)
def test_what_a_disk_holds_does_not_make_it_a_qcow2_file(emulator, tmp_path, name, asked, form):
    path = tmp_path / name
    path.write_bytes(b"QFI\xfb" + bytes(508))
    emulator("sys.exit(0)")
    report = run(path, disk_format=asked)
    assert f"format={form}" in next(word for word in emulator.calls()[0][1] if "id=disk" in word)
    assert any("qcow2" in note for note in report.notes) == (form == "raw" and asked is None)


def test_what_is_named_qcow2_and_is_not_is_raw(emulator, tmp_path):
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"\x55\xaa" * 512)
    emulator("sys.exit(0)")
    run(path)
    assert "format=raw" in next(word for word in emulator.calls()[0][1] if "id=disk" in word)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (ROOT.replace(",verity=require", ""), FailureKind.NO_VERITY),
        ("29 1 8:1 / / rw - ext4 /dev/vda2 rw", FailureKind.NOT_COMPOSEFS),
    ],
)
def test_another_root_is_no_proof(emulator, disk, line, kind):
    text = f"cfs-prove begin\ncfs-prove root {line}\ncfs-prove state running\ncfs-prove end\n"
    emulator(f"report({text!r})\ntime.sleep(60)")
    assert run(disk).failure.kind is kind
    if kind is FailureKind.NO_VERITY:
        assert run(disk, allow_missing_verity=True).proven


def test_a_system_that_does_not_come_up_is_no_proof(emulator, disk):
    text = REPORT + "cfs-prove state maintenance\ncfs-prove end\n"
    emulator(f"report({text!r})\ntime.sleep(60)")
    assert run(disk).failure.kind is FailureKind.SYSTEM_STATE


def test_damage_in_the_kernels_log_outweighs_a_good_report(emulator, disk):
    text = (
        REPORT
        + "cfs-prove state running\ncfs-prove kernel-log fs-verity (vda, inode 1): FILE CORRUPTED!\ncfs-prove end\n"
    )
    emulator(f"report({text!r})\ntime.sleep(60)")
    assert run(disk).failure.kind is FailureKind.CORRUPTED


def test_the_console_alone_is_a_proof_only_where_that_is_allowed(emulator, disk):
    emulator(f"write('console', {LOGIN!r})\ntime.sleep(60)")
    report = run(disk)
    assert report.failure.kind is FailureKind.UNPROVEN
    assert "state of systemd" in report.failure.message
    assert "--allow-console-evidence" in report.failure.hint
    assert report.stage(Stage.ROOT).reached
    report = run(disk, allow_console_evidence=True)
    assert report.proven
    assert (report.evidence, report.root, report.system_state) == ("console", None, None)
    assert any("from the console" in note for note in report.notes)


def test_the_console_cannot_excuse_missing_verity(emulator, disk):
    emulator(f"write('console', {LOGIN.replace('verity required', 'verity off')!r})\ntime.sleep(60)")
    assert run(disk, allow_console_evidence=True).failure.kind is FailureKind.NO_VERITY
    assert run(disk, allow_console_evidence=True, allow_missing_verity=True).proven


def test_a_login_prompt_proves_nothing_about_the_root(emulator, disk):
    emulator("write('console', 'Linux version 6.1\\r\\n\\r\\nhost login: ')\ntime.sleep(60)")
    assert run(disk, allow_console_evidence=True).failure.kind is FailureKind.UNPROVEN


def test_time_runs_out(emulator, disk):
    emulator("write('console', 'Linux version 6.1\\r\\n')\ntime.sleep(60)")
    report = run(disk, timeout_seconds=1)
    assert report.failure.kind is FailureKind.TIMEOUT
    assert "kernel" in report.failure.message
    assert report.stage(Stage.LOADER).reached
    assert not report.stage(Stage.ROOT).reached
    assert not alive(emulator.calls()[0][0])


@pytest.mark.parametrize(("status", "kind"), [(0, FailureKind.RESET), (1, FailureKind.QEMU)])
def test_an_end_before_the_report(emulator, disk, status, kind):
    emulator(f"print('qemu: no such device', file=sys.stderr)\nsys.exit({status})")
    report = run(disk)
    assert report.failure.kind is kind
    if status:
        assert "no such device" in report.failure.message


def test_a_panic_is_named_with_the_consoles_last_lines(emulator, disk, tmp_path):
    emulator("write('console', 'one\\r\\nKernel panic - not syncing: oh\\r\\n')\ntime.sleep(60)")
    started = time.monotonic()
    report = run(disk, console_log=tmp_path / "log")
    assert report.failure.kind is FailureKind.PANIC
    assert report.console_tail == ("one", "Kernel panic - not syncing: oh")
    assert (tmp_path / "log").read_text() == "one\r\nKernel panic - not syncing: oh\r\n".replace("\r\n", "\n")
    assert time.monotonic() - started < 15


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm to try")
@pytest.mark.parametrize(
    "failing",
    ["os.abort()", "print('KVM internal error. Suberror: 1', file=sys.stderr, flush=True)\n    time.sleep(60)"],
)
def test_where_kvm_breaks_emulation_takes_over(emulator, disk, failing):
    text = REPORT + "cfs-prove state running\ncfs-prove end\n"
    emulator(f"if accelerator == 'kvm':\n    {failing}\nreport({text!r})\ntime.sleep(60)")
    report = run(disk, accelerator="auto", architecture=None)
    assert report.proven
    assert report.accelerator == "tcg"
    assert any("KVM" in note for note in report.notes)
    assert run(disk, accelerator="kvm", architecture=None).failure.kind is FailureKind.QEMU


def test_no_qemu(emulator, disk, monkeypatch):
    monkeypatch.setitem(machine.EMULATORS, Architecture.AMD64, "qemu-system-absent")
    with pytest.raises(CommandError, match="is not installed"):
        run(disk)


@pytest.mark.parametrize("path", ["", ":", ".", "bin:", "./bin"])
def test_no_qemu_of_the_current_directory_is_run(emulator, tmp_path, monkeypatch, path):
    """Whoever fills a directory must not have what is in it run by those who are there."""
    emulator("sys.exit(0)", version="99.9.9")
    for folder in (tmp_path, tmp_path / "bin"):
        (folder / "qemu-system-absent").write_bytes((tmp_path / "bin" / "qemu-system-x86_64").read_bytes())
        (folder / "qemu-system-absent").chmod(0o755)
    monkeypatch.setitem(machine.EMULATORS, Architecture.AMD64, "qemu-system-absent")
    monkeypatch.setenv("PATH", path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match="is not installed"):
        machine.find_emulator(Architecture.AMD64)


def test_an_old_qemu_is_refused_for_emulation(emulator, disk):
    emulator("sys.exit(0)", version="7.2.13")
    with pytest.raises(CommandError, match=r"7\.2\.13 panics"):
        run(disk)


@pytest.mark.parametrize("content", [None, b""])
def test_no_disk(emulator, tmp_path, content):
    path = tmp_path / "disk"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RefusedError):
        run(path)


def test_a_log_that_cannot_be_written_is_refused_before_the_boot(emulator, disk, tmp_path):
    emulator("sys.exit(0)")
    with pytest.raises(RefusedError, match="No such file"):
        run(disk, console_log=tmp_path / "none" / "log")
    assert not (tmp_path / "notes").exists()


def test_the_command_tells_programs_in_json_and_people_in_words(emulator, disk, tmp_path):
    text = REPORT + "cfs-prove state running\ncfs-prove end\n"
    emulator(f"report({text!r})\ntime.sleep(60)")
    argv = [CFS, "prove", disk, "--firmware", "bios", "--arch", "amd64", "--accelerator", "tcg"]
    done = subprocess.run([*argv, "--format", "json"], capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["proven"]
    assert facts["root"]["image_id"] == ID
    assert done.stderr == ""
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "fs-verity required" in done.stdout
    emulator("write('console', 'Kernel panic - not syncing: \\x1b[1moh\\r\\n')\nsys.exit(0)")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 11
    assert "NOT proven: panic" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_the_command_tells_the_unproven_from_the_failed(emulator, disk, tmp_path):
    emulator(f"write('console', {LOGIN!r})\ntime.sleep(60)")
    output = RecordedOutput()
    command = make_prove(command_context(tmp_path, output=output))
    arguments = [str(disk), "--firmware", "bios", "--arch", "amd64", "--accelerator", "tcg"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SILENT_REPORTER, "tcg", 0.3)
        with pytest.raises(UnprovenError) as caught:
            command.main(arguments, standalone_mode=False)
        assert "NOT proven: unproven" in output.said
        command.main([*arguments, "--allow-console-evidence"], standalone_mode=False)
    assert caught.value.code == "boot.unproven"
    assert caught.value.exit_status == 11
    assert "--allow-console-evidence" in caught.value.hint
    assert output.said[-1].startswith("proven in ")
    assert any(line.startswith("prove: starting QEMU") for line in output.told)


def test_a_killed_run_takes_the_machine_with_it_and_the_next_run_its_files(emulator, disk, tmp_path):
    emulator("time.sleep(600)")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    argv = [CFS, "prove", disk, "--firmware", "bios", "--arch", "amd64", "--accelerator", "tcg"]
    environ = {**os.environ, "TMPDIR": str(scratch)}
    process = subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: (tmp_path / "notes").exists() and (tmp_path / "notes").stat().st_size)
        machine = emulator.calls()[0][0]
        assert alive(machine)
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not alive(machine))
    assert list(scratch.iterdir()) != []
    emulator("sys.exit(0)")
    subprocess.run(argv, env=environ, capture_output=True, check=False)
    assert list(scratch.iterdir()) == []
