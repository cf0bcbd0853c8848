"""The console watcher, with what real machines wrote."""

from __future__ import annotations

import pytest

from cfs_prove.console import ConsoleWatch, clean, findings, last_lines
from cfs_prove.report import FailureKind, Stage

ID = "5ab4" * 32
GOOD = (
    b'\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HBdsDxe: loading Boot0002 "UEFI Misc Device"\r\n'
    b'BdsDxe: starting Boot0002 "UEFI Misc Device" from PciRoot(0x0)\r\n'
    b"[    0.000000] Linux version 6.12.107+deb13-cloud-amd64 (debian-kernel@lists.debian.org)\r\n"
    b"[   12.280979] cfs-setup-root[328]: cfs-setup-root: root is composefs " + ID.encode() + b", verity required\r\n"
    b"\r\nDebian GNU/Linux 13 cfs-demo ttyS0\r\n\r\ncfs-demo login: "
)


def watched(data, size=None):
    watch = ConsoleWatch()
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


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", FailureKind.PANIC),
        (b"You are in emergency mode. After logging in, type", FailureKind.EMERGENCY),
        (b"Entering emergency mode. Exit the shell to continue.", FailureKind.EMERGENCY),
        (b"[ 38.0] fs-verity (vda2, inode 1725): FILE CORRUPTED! pos=0, level=-1", FailureKind.CORRUPTED),
        (b"[ 3.0] overlayfs: lower file 'b4' has no fs-verity digest", FailureKind.ROOT_REFUSED),
        (b"[ 3.0] overlayfs: lower file 'b4' has the wrong fs-verity digest", FailureKind.ROOT_REFUSED),
        (b"cfs-setup-root: the image 5a is not in the repository", FailureKind.ROOT_REFUSED),
        (b"BdsDxe: failed to load Boot0001 from PciRoot: Access Denied", FailureKind.REFUSED),
        (b"BdsDxe: No bootable option or device was found.", FailureKind.NOT_BOOTABLE),
        (b"No bootable device.", FailureKind.NOT_BOOTABLE),
        (b"UEFI Interactive Shell v2.2", FailureKind.NOT_BOOTABLE),
        (b"Error loading \\EFI\\Linux\\x\\vmlinuz: Not found", FailureKind.LOADER),
        (b"error: file `/boot/vmlinuz' not found.", FailureKind.LOADER),
    ],
)
@pytest.mark.parametrize("size", [None, 5])
def test_failures_are_named(line, kind, size):
    watch = watched(b"before\r\n" + line + b"\r\nafter\r\n", size)
    assert watch.failure is not None
    assert watch.failure.kind is kind


def test_a_read_only_root_partition_is_no_failure():
    assert watched(b"cfs-setup-root: the root partition stays read-only: mount failed\r\n").failure is None


def test_findings_are_each_told_once_and_in_order():
    data = b"cfs-setup-root: b\r\n" + b"fs-verity (v, inode 1): FILE CORRUPTED! x\r\n" * 500 + b"cfs-setup-root: a\r\n"
    assert findings(data) == (
        "cfs-setup-root: b",
        "fs-verity (v, inode 1): FILE CORRUPTED! x",
        "cfs-setup-root: a",
    )


def test_escape_sequences_and_control_characters_do_not_reach_the_terminal():
    assert clean(b"\x1b[0;32m  OK  \x1b[0m a\x07b\x00\r\n") == "  OK   a?b?\n"
    assert "\x1b" not in clean(bytes(range(256)) * 3)


def test_the_last_lines_are_bounded():
    lines = last_lines(b"x" * 100_000 + b"\n" + b"\n".join(b"line %d" % n for n in range(1000)))
    assert len(lines) == 25
    assert lines[-1] == "line 999"
    assert all(len(line) <= 300 for line in last_lines(b"y" * 10_000))
