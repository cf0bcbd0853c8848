"""What outweighs what: console, report, secret, arguments. Whole runs with a program in QEMU's place."""

from __future__ import annotations

import json

import pytest
from prove_guests import GOOD, LOADER, LOGIN, REPORT, run

from cfs_prove.expectation import Expectation
from cfs_prove.proof import CONSOLE_BYTES
from cfs_prove.report import FailureKind, Stage


def test_lost_arguments_are_no_proof(emulator, disk):
    expected = Expectation(loader="loader", loaders=(LOADER,), arguments=("root=a", "b=c d"))
    emulator(f"report({(REPORT + 'cfs-prove cmdline root=a b=c' + chr(10) + GOOD)!r})\ntime.sleep(60)")
    report = run(disk, expected=expected)
    assert report.failure.kind is FailureKind.ARGUMENTS
    assert "loader was to hand the kernel b=c d" in report.failure.message
    assert report.command_line == "root=a b=c"
    emulator(f"report({(REPORT + GOOD)!r})\ntime.sleep(60)")
    assert run(disk, expected=expected).failure.kind is FailureKind.ARGUMENTS  # it told none


SCARY = (
    "Access Denied\r\nUnable to locate\r\nUEFI Interactive Shell v2.2\r\nerror: x not found.\r\n"
    "You are in emergency mode. x\r\ncfs-setup-root: no image\r\nNo bootable device.\r\ngrub rescue> "
)


@pytest.mark.parametrize("before", [True, False])
def test_what_the_console_says_does_not_outweigh_a_complete_report(emulator, disk, before):
    acts = [f"write('console', {SCARY!r})", "time.sleep(0.3)", f"report({(REPORT + GOOD)!r})", "time.sleep(0.3)"]
    emulator("\n".join([*acts, acts[0]][0 if before else 1 :]) + "\ntime.sleep(60)")
    report = run(disk, quiet_seconds=2, expected=Expectation(loaders=(LOADER,)))
    assert report.proven
    assert any("failure" in note for note in report.notes)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[    9.0] Kernel panic - not syncing: x", FailureKind.PANIC),
        ("[    9.0] fs-verity (vda2, inode 7): FILE CORRUPTED! pos=0", FailureKind.CORRUPTED),
    ],
)
def test_a_panic_or_a_corrupted_file_after_a_complete_report_does(emulator, disk, line, kind):
    acts = f"report({(REPORT + GOOD)!r})\ntime.sleep(0.5)\nwrite('console', {line + chr(13) + chr(10)!r})"
    emulator(f"{acts}\ntime.sleep(60)")
    assert run(disk).failure.kind is kind


def test_a_corrupted_file_before_the_report_counts_where_the_system_could_not_read_its_log(emulator, disk):
    line = "[    9.0] fs-verity (vda2, inode 7): FILE CORRUPTED! pos=0\r\n"
    for good, proven in ((GOOD, True), (GOOD.replace("cfs-prove kernel-log-read yes\n", ""), False)):
        emulator(f"write('console', {line!r})\ntime.sleep(0.3)\nreport({(REPORT + good)!r})\ntime.sleep(60)")
        assert run(disk, quiet_seconds=2).proven is proven


def test_a_sign_of_failure_ends_nothing_while_the_machine_goes_on(emulator, disk):
    told = "".join(f"write('console', 'part {n}\\r\\n')\ntime.sleep(0.4)\n" for n in range(5))
    emulator(f"write('console', 'No bootable device.\\r\\n')\n{told}report({(REPORT + GOOD)!r})\ntime.sleep(60)")
    assert run(disk, quiet_seconds=1.5).proven


def test_a_report_that_has_begun_is_waited_for(emulator, disk):
    emulator(
        f"write('console', 'cfs-setup-root: x\\r\\n')\nreport({REPORT!r})\ntime.sleep(2)\n"
        f"report({GOOD!r})\ntime.sleep(60)"
    )
    assert run(disk, quiet_seconds=0.2).proven


def test_a_boot_sector_that_prints_the_right_lines_is_no_proof(emulator, disk):
    forged = (REPORT + GOOD).replace("cfs-prove ", "cfs-prove " + "0" * 32 + " ")
    for text in (REPORT + GOOD, forged):
        emulator(f"write('console', {LOGIN!r})\nwrite('report', {text!r})\ntime.sleep(60)")
        report = run(disk)
        assert report.failure.kind is FailureKind.UNPROVEN
        assert (report.evidence, report.system_state) == ("console", None)
        assert any("secret" in note for note in report.notes)


def test_every_run_has_another_secret(emulator, disk):
    emulator("sys.exit(0)")
    run(disk)
    run(disk)
    first, second = (next(word for word in call[1] if "script=" in word) for call in emulator.calls())
    assert first != second


def test_a_console_without_end_is_kept_in_part(emulator, disk, tmp_path):
    emulator(
        "write('console', 'the first line\\r\\n')\n"
        "for _ in range(300):\n    write('console', ('y' * 99 + chr(10)) * 1000)\n"
        "write('console', 'the last line\\r\\n')\nsys.exit(0)"
    )
    report = run(disk, console_log=tmp_path / "log", timeout_seconds=60)
    kept = (tmp_path / "log").read_text()
    assert CONSOLE_BYTES * 2 <= len(kept) < CONSOLE_BYTES * 2 + 200
    assert kept.startswith("the first line")
    assert "bytes are left out here" in kept
    assert report.console_tail[-1] == "the last line"
    assert any("too long" in note for note in report.notes)


def test_a_report_without_end_is_none(emulator, disk):
    emulator("for _ in range(3000):\n    report('cfs-prove failed ' + 'u' * 999 + chr(10))\ntime.sleep(60)")
    report = run(disk, timeout_seconds=60)
    assert report.failure.kind is FailureKind.UNPROVEN
    assert "larger than any report" in report.failure.message
    assert len(json.dumps(report.as_json())) < 100_000


def test_a_loaders_words_count_for_its_own_disks_only(emulator, disk):
    emulator("write('console', 'Loader 1\\r\\nargs: error: x\\r\\nerror: no kernel\\r\\n')\ntime.sleep(60)")
    report = run(disk, expected=Expectation(loader="loader", loaders=(LOADER,)))
    assert report.failure.kind is FailureKind.LOADER
    assert report.findings == ("error: no kernel",)
    assert report.stage(Stage.LOADER).reached
    assert run(disk, timeout_seconds=2).failure.kind is FailureKind.TIMEOUT
