"""The console watcher, with what real machines wrote."""

from __future__ import annotations

import pytest

from cfs_core.plugin import LoaderConsole
from cfs_prove.console import ConsoleWatch
from cfs_prove.patterns import patterns_for
from cfs_prove.report import FailureKind, Stage
from cfs_prove.text import clean, last_lines

ID = "5ab4" * 32
FIRMWARE = b'\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HBdsDxe: loading Boot0002 "UEFI Misc Device"\r\n'
LOADER = b'BdsDxe: starting Boot0002 "UEFI Misc Device" from PciRoot(0x0)\r\n'
KERNEL = b"[    0.000000] Linux version 6.12.107+deb13-cloud-amd64 (debian-kernel@lists.debian.org)\r\n"
ROOT = (
    b"[   12.280979] cfs-setup-root[328]: cfs-setup-root: root is composefs " + ID.encode() + b", verity required\r\n"
)
SYSTEM = b"\r\nDebian GNU/Linux 13 cfs-demo ttyS0\r\n\r\ncfs-demo login: "
GOOD = FIRMWARE + LOADER + KERNEL + ROOT + SYSTEM
LOADERS = (
    LoaderConsole(
        name="LOAD",
        started=(r"^LOAD \d",),
        failed=(r"^error: ", r"^rescue> ?$"),
        harmless=(r"^error: font", r"^args: "),
    ),
)

FAILURES = [
    (b"[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", FailureKind.PANIC),
    (b"[    1.000000][    T1] Kernel panic - not syncing: no init", FailureKind.PANIC),
    (b"You are in emergency mode. After logging in, type", FailureKind.EMERGENCY),
    (b"Entering emergency mode. Exit the shell to continue.", FailureKind.EMERGENCY),
    (b"[ 38.0] fs-verity (vda2, inode 1725): FILE CORRUPTED! pos=0, level=-1", FailureKind.CORRUPTED),
    (b"[ 3.0] overlayfs: lower file 'b4' has no fs-verity digest", FailureKind.ROOT_REFUSED),
    (b"[ 3.0] overlayfs: lower file 'b4' has the wrong fs-verity digest", FailureKind.ROOT_REFUSED),
    (b"cfs-setup-root: the image 5a is not in the repository", FailureKind.ROOT_REFUSED),
    (b"[    9.1] cfs-setup-root[300]: cfs-setup-root: the image does not verify", FailureKind.ROOT_REFUSED),
    (b"Begin: Running /scripts/init-bottom ... cfs-setup-root: no such image", FailureKind.ROOT_REFUSED),
    (b"BdsDxe: failed to load Boot0001 from PciRoot: Access Denied", FailureKind.REFUSED),
    (b"BdsDxe: No bootable option or device was found.", FailureKind.NOT_BOOTABLE),
    (b"No bootable device.", FailureKind.NOT_BOOTABLE),
    (b"UEFI Interactive Shell v2.2", FailureKind.NOT_BOOTABLE),
    (b'BdsDxe: starting Boot0003 "EFI Internal Shell" from Fv(7CB8)', FailureKind.NOT_BOOTABLE),
    (b"error: file `/boot/vmlinuz' not found.", FailureKind.LOADER),
]
EARLIEST = {
    FailureKind.PANIC: FIRMWARE + LOADER + KERNEL,
    FailureKind.CORRUPTED: FIRMWARE + LOADER + KERNEL,
    FailureKind.ROOT_REFUSED: FIRMWARE + LOADER + KERNEL,
    FailureKind.EMERGENCY: FIRMWARE + LOADER + KERNEL,
}
FINAL = (FailureKind.PANIC, FailureKind.CORRUPTED)


def watched(data, size=None):
    watch = ConsoleWatch(patterns=patterns_for(LOADERS))
    for index, at in enumerate(range(0, len(data), size or len(data))):
        watch.feed(data[at : at + (size or len(data))], float(index))
    return watch


@pytest.mark.parametrize("size", [None, 1, 7, 100])
def test_every_stage_is_found_however_the_output_is_cut(size):
    watch = watched(GOOD, size)
    assert list(watch.reached) == [Stage.FIRMWARE, Stage.LOADER, Stage.KERNEL, Stage.ROOT, Stage.SYSTEM]
    assert watch.failure is None
    assert watch.bytes_seen == len(GOOD)


def test_the_roots_image_and_verity_are_read_off_the_console():
    assert watched(GOOD).details[Stage.ROOT] == (ID, "required")
    assert watched(GOOD).details[Stage.KERNEL] == ("6.12.107+deb13-cloud-amd64",)


@pytest.mark.parametrize(("line", "kind"), FAILURES)
@pytest.mark.parametrize("size", [None, 5])
def test_failures_are_named(line, kind, size):
    before = EARLIEST.get(kind, FIRMWARE)
    watch = watched(before + line + b"\r\nafter\r\n", size)
    assert watch.failure is not None
    assert watch.failure.kind is kind
    assert watch.failure.message in clean(line)
    assert watch.findings == [watch.failure.message]


@pytest.mark.parametrize(("line", "kind"), FAILURES)
def test_a_later_stage_takes_a_failure_back_but_for_a_panic_or_a_corrupted_file(line, kind):
    before = EARLIEST.get(kind, FIRMWARE)
    watch = watched(before + line + b"\r\n" + LOADER + KERNEL + ROOT + SYSTEM)
    if kind in FINAL:
        assert watch.failure.kind is kind
        assert watch.overtaken == []
    else:
        assert watch.failure is None
        assert watch.overtaken == watch.findings != []


@pytest.mark.parametrize(("line", "kind"), FAILURES)
def test_after_a_complete_report_only_a_panic_or_a_corrupted_file_counts(line, kind):
    watch = watched(GOOD)
    watch.report_is_complete()
    watch.feed(b"\r\n" + line + b"\r\n", 50.0)
    assert watch.failure is None
    assert (watch.after_report is not None) == (kind in FINAL)
    assert bool(watch.overtaken) == (kind not in FINAL)


@pytest.mark.parametrize(("line", "kind"), FAILURES)
def test_no_kernel_argument_is_a_failure(line, kind):
    quoted = line.rpartition(b"] ")[2]
    for told in (b"[    0.000000] Command line: root=a x=", b"[    0.010000] Kernel command line: root=a "):
        watch = watched(FIRMWARE + LOADER + KERNEL + told + b'"' + quoted + b'"\r\n' + told + quoted + b"\r\n")
        assert watch.failure is None, kind
        assert watch.findings == []


@pytest.mark.parametrize("line", [line for line, kind in FAILURES])
def test_what_a_program_quotes_is_no_failure_of_the_kernel(line):
    watch = watched(FIRMWARE + LOADER + KERNEL + b"[    4.2] app[77]: text: " + line.rpartition(b"] ")[2] + b"\r\n")
    assert watch.failure is None


def test_escapes_within_a_word_do_not_hide_it():
    watch = watched(FIRMWARE + b"No boot\x1b[0m\x1b[1mable dev\x1b[0mice\r\n")
    assert watch.failure.kind is FailureKind.NOT_BOOTABLE


def test_a_move_of_the_cursor_ends_a_line():
    watch = watched(FIRMWARE + b"menu\x1b[12;01Herror: no such device\x1b[13;01Hmore\r\n")
    assert watch.failure.message == "error: no such device"


def test_what_a_loader_calls_harmless_is_no_failure_and_shows_no_later_stage():
    watch = watched(FIRMWARE + LOADER + b"error: font missing\r\nargs: x login: Access Denied\r\nLOAD 1\r\n")
    assert watch.failure is None
    assert list(watch.reached) == [Stage.FIRMWARE, Stage.LOADER]


def test_a_loader_tells_that_it_was_started_and_that_it_asks_for_somebody():
    watch = watched(b"LOAD 1.0\r\nrescue> ")
    assert list(watch.reached) == [Stage.LOADER]
    assert watch.failure.kind is FailureKind.LOADER
    assert ConsoleWatch().failure is None
    plain = ConsoleWatch()
    plain.feed(b"LOAD 1.0\r\nrescue> ", 1.0)
    assert (plain.reached, plain.failure) == ({}, None)


def test_a_second_try_of_the_firmware_is_no_failure():
    watch = watched(FIRMWARE + b'BdsDxe: failed to load Boot0001 "UEFI DVD" from x: Not Found\r\n' + LOADER)
    assert watch.failure is None
    assert watch.overtaken == ['BdsDxe: failed to load Boot0001 "UEFI DVD" from x: Not Found']


def test_a_loader_that_returns_to_the_firmware_failed():
    watch = watched(FIRMWARE + LOADER + b'BdsDxe: failed to start Boot0002 "UEFI Misc Device" from x: Aborted\r\n')
    assert watch.failure.kind is FailureKind.NOT_BOOTABLE


def test_a_read_only_root_partition_is_no_failure():
    assert watched(b"cfs-setup-root: the root partition stays read-only: mount failed\r\n").failure is None


def test_findings_are_each_told_once_in_order_and_few():
    data = b"cfs-setup-root: b\r\n" + b"fs-verity (v, inode 1): FILE CORRUPTED! x\r\n" * 500 + b"cfs-setup-root: a\r\n"
    assert watched(data).findings == [
        "cfs-setup-root: b",
        "fs-verity (v, inode 1): FILE CORRUPTED! x",
        "cfs-setup-root: a",
    ]
    many = watched(b"".join(b"cfs-setup-root: %d %s\r\n" % (n, b"x" * 999) for n in range(100)))
    assert len(many.findings) == 12
    assert max(map(len, many.findings)) == 300


def test_a_line_without_end_is_no_burden():
    watch = ConsoleWatch()
    for second in range(50):
        watch.feed(b"x" * 100_000, float(second))
    assert len(watch._begun) <= 100_000


def test_escape_sequences_and_control_characters_do_not_reach_the_terminal():
    assert clean(b"\x1b[0;32m  OK  \x1b[0m a\x07b\x00\r\n") == "  OK   a?b?\n"
    assert "\x1b" not in clean(bytes(range(256)) * 3)


def test_the_last_lines_are_bounded():
    lines = last_lines(b"x" * 100_000 + b"\n" + b"\n".join(b"line %d" % n for n in range(1000)))
    assert len(lines) == 25
    assert lines[-1] == "line 999"
    assert all(len(line) <= 300 for line in last_lines(b"y" * 10_000))
