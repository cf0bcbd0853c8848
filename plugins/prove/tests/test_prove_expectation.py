"""What a disk should do when it is started, and what the command says of it."""

from __future__ import annotations

import pytest
from prove_guests import GOOD, LOGIN, REPORT, a_menu

from cfs_core.plugin import BootError, BootMenu, DiskError, Firmware, OutputFormat
from cfs_prove.commands import make_prove
from cfs_prove.expectation import default_entry, expect, missing_arguments
from cfs_prove.machine import FirmwareImage
from cfs_testkit.context import RecordedOutput, command_context


def test_the_disks_own_menu_says_loader_and_arguments(emulator, disk, tmp_path):
    report = REPORT + "cfs-prove cmdline BOOT_IMAGE=/x root=a quiet x=b\n" + GOOD
    emulator(f"report({report!r})\ntime.sleep(60)")
    output, events = RecordedOutput(OutputFormat.JSON), []
    command = make_prove(command_context(tmp_path, output=output, menus=[a_menu()], events=events))
    arguments = [str(disk), "--firmware", "bios", "--arch", "amd64", "--accelerator", "tcg"]
    command.main(arguments, standalone_mode=False)
    assert output.said == output.told[1:] == []
    assert output.shown[0]["bootloader"] == "loader"
    assert output.shown[0]["arguments"] == ("root=a", "x=b")
    assert output.shown[0]["proven"] is True
    emulator(f"report({report.replace('x=b', 'x=')!r})\nwrite('console', {LOGIN!r})\ntime.sleep(60)")
    with pytest.raises(BootError) as caught:
        command.main(arguments, standalone_mode=False)
    assert caught.value.facts["failure"] == "arguments-differ"
    assert "x=b" in caught.value.message
    assert "kernel" in {event.facts["stage"] for event in events if event.name == "prove.stage"}


def test_both_firmwares_are_two_boots_in_one_document(emulator, disk, tmp_path, monkeypatch):
    monkeypatch.setattr("cfs_prove.machine.find_firmware", lambda _architecture: FirmwareImage(disk, disk))
    emulator(f"report({(REPORT + GOOD)!r})\nwrite('console', 'Linux version 6\\r\\n')\ntime.sleep(60)")
    output = RecordedOutput(OutputFormat.JSON)
    command = make_prove(command_context(tmp_path, output=output))
    log = tmp_path / "log"
    words = [str(disk), "--firmware", "both", "--arch", "amd64", "--accelerator", "tcg", "--console-log", str(log)]
    command.main(words, standalone_mode=False)
    assert output.shown[0]["proven"] is True
    assert [proof["firmware"] for proof in output.shown[0]["proofs"]] == ["uefi", "bios"]
    assert all("Linux" in log.with_name(name).read_text() for name in ("log.uefi", "log.bios"))


@pytest.mark.parametrize("fields", [{}, {"default": "one"}, {"default": "two", "once": "one"}])
def test_the_entry_that_is_started_when_nobody_chooses(fields):
    assert default_entry(a_menu(**fields).menu).deployment_id == "one"
    assert default_entry(a_menu(default="two").menu).deployment_id == "two"
    assert default_entry(BootMenu(entries=())) is None


def test_what_a_disk_should_do_is_read_off_it(disk):
    def asked(*menus, **options):
        return expect(disk, lambda _disk: menus, **({"firmware": Firmware.BIOS} | options))

    assert asked(a_menu()).arguments == ("root=a", "x=b")
    assert asked(a_menu()).notes == ()
    efi = a_menu("efi", firmware=(Firmware.UEFI,), arguments=("y",))
    assert asked(a_menu(), efi).loader == "loader"
    assert asked(a_menu(), efi, firmware=Firmware.UEFI).loader == "efi"
    assert asked(a_menu(), efi, loader="efi").arguments == ("y",)
    assert asked(a_menu("a"), a_menu("b")).loader is None
    assert asked(a_menu("a"), a_menu("b")).arguments == ("root=a", "x=b")
    assert asked(a_menu("a"), a_menu("b", arguments=("z",))).arguments is None
    assert "a and b" in asked(a_menu("a"), a_menu("b")).notes[0]
    assert "no installed bootloader" in asked().notes[0]
    assert "names none" in asked(a_menu(arguments=())).notes[0]


def test_a_disk_that_cannot_be_read_is_booted_all_the_same(disk):
    def refuse(_disk):
        message = "no partition table"
        raise DiskError(message, hint="look")

    found = expect(disk, refuse, firmware=Firmware.BIOS, loader="grub")
    assert (found.loader, found.arguments) == ("grub", None)
    assert "no partition table" in found.notes[0]


@pytest.mark.parametrize(
    ("planned", "line", "missing"),
    [
        (("a", "b"), "a b", ()),
        (("a", "b"), "BOOT_IMAGE=/x a quiet b initrd=y", ()),
        (("a", "b"), "b a", ("b",)),
        (("a", "a"), "a", ("a",)),
        (("a", "b"), "", ("a", "b")),
        (('a="b c"',), '"a=b c"', ()),
        (('a="b c"',), "a=b c", ('a="b c"',)),
        (("a=b\\c",), "a=bc", ("a=b\\c",)),
        (("a=$x",), "a=", ("a=$x",)),
        (('a="b"',), "a=b", ()),
        (("a='b c'",), "a='b c'", ("a='b c'",)),
        (("ab",), "abc", ("ab",)),
    ],
)
def test_arguments_are_compared_as_the_kernel_reads_them(planned, line, missing):
    assert missing_arguments(planned, line) == missing
