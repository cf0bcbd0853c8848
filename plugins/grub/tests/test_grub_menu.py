"""GRUB's menus: what is written, and that it is read back."""

import shutil
import subprocess
from dataclasses import replace

import pytest
from grub_disks import (
    BOTH,
    DEBIAN,
    ESP,
    FEDORA,
    GRUB,
    ROOT,
    THEIRS,
    UEFI,
    WITH_BLSUKI,
    bls,
    change,
    disk,
    environment,
    facts,
    letters,
    put,
    text,
    uki,
)
from grub_files import modules

from cfs_core.plugin import (
    BootError,
    BootMenu,
    BytesContent,
    Location,
    Volume,
    WriteFile,
    read_all,
)
from cfs_grub.environment import edit as edit_environment


def test_entry_files_are_bootcs_byte_for_byte():
    target = disk()
    change(target, bls("a"))
    name = "bootc_composefs-" + "a" * 128
    assert text(target, "/boot/loader/entries/bootc_debian-13-1.conf") == (
        f"title System a\nversion 13\nlinux /boot/{name}/vmlinuz\ninitrd /boot/{name}/initrd\n"
        f"options quiet composefs={'a' * 128}\nsort-key bootc-debian-0\n"
    )
    assert target.read(Location(ROOT, f"/boot/{name}/vmlinuz")) == b"kernel"
    assert len(target.read(Location(ROOT, "/boot/grub2/grubenv"))) == 1024


def test_paths_are_those_grub_sees():
    target = disk(boot=True)
    change(target, bls("a"), of=facts(volumes=frozenset({Volume.BOOT})))
    assert "linux /bootc_composefs-" in text(target, "/loader/entries/bootc_debian-13-1.conf", Volume.BOOT)
    target = disk(filesystem="btrfs")
    menu = change(target, bls("a"), of=facts(root_path="/@", root_filesystem="btrfs"))
    assert "linux /@/boot/bootc_composefs-" in text(target, "/boot/loader/entries/bootc_debian-13-1.conf")
    assert "linux /@/boot/bootc_composefs-" in text(target, "/boot/grub2/grub.cfg")
    assert all(target.exists(file) for file in menu.entries[0].files)


def test_grub_that_cannot_count_on_btrfs_says_so():
    target = disk(filesystem="btrfs")
    with pytest.raises(BootError, match="btrfs"):
        change(target, bls("a", tries_left=3), of=facts(root_filesystem="btrfs"))


@pytest.mark.parametrize(
    ("files", "firmware", "line"),
    [
        (WITH_BLSUKI, BOTH, "blscfg --path /boot/loader/entries"),
        (FEDORA, UEFI, "set blsdir=/boot/loader/entries\nblscfg\n"),
        (DEBIAN, BOTH, f"menuentry 'System a' --id bootc_{'a' * 32} {{"),
        ({**FEDORA, **modules("i386-pc")}, BOTH, f"menuentry 'System a' --id bootc_{'a' * 32} {{"),
    ],
)
def test_entries_are_written_out_only_for_a_grub_that_cannot_read_them(files, firmware, line):
    target = disk()
    menu = change(target, bls("a"), of=facts(files, firmware=firmware))
    script = text(target, "/boot/grub2/grub.cfg")
    assert line in script
    assert ("menuentry" in script) != ("blscfg" in script)
    assert letters(menu) == "a"


UNUSUAL = ("a=$x", 'b="c d"', "e={;|&<>#}", "ü=€")


@pytest.mark.parametrize("files", [WITH_BLSUKI, DEBIAN])
def test_unusual_arguments_are_written_out_for_every_grub(files):
    target = disk()
    menu = change(target, bls("a", *UNUSUAL), of=facts(files))
    assert "'a=$x' 'b=c d' 'e={;|&<>#}' 'ü=€'" in text(target, "/boot/grub2/grub.cfg")
    assert 'options quiet a=$x b="c d" ' in text(target, "/boot/loader/entries/bootc_debian-13-1.conf")
    assert menu.entries[0].arguments == ("quiet", *UNUSUAL, "composefs=" + "a" * 128)
    assert GRUB.plan_menu(target, menu, BootMenu(entries=menu.entries), facts(files)) == []


QUOTES = ('a="b c"', "d=e\\f", "g='h'", 'i="j"', "$k")


@pytest.mark.parametrize("files", [WITH_BLSUKI, DEBIAN])
def test_quotes_and_backslashes_go_to_the_kernel_as_an_efi_program(files):
    target = disk()
    menu = change(target, bls("a", *QUOTES), of=facts(files))
    folder = Location(ESP, "/EFI/Linux/bootc_composefs-" + "a" * 128)
    assert target.read(folder / "vmlinuz") == b"kernel"
    assert target.read(folder / "initrd") == b"initrd"
    script = text(target, "/boot/grub2/grub.cfg")
    assert "search --no-floppy --set=root --fs-uuid ABCD-1234\n" in script
    path = folder.path.replace("/", "\\")
    assert f"chainloader {folder.path}/vmlinuz 'initrd={path}\\initrd' 'quiet a=" in script
    assert "linux /" not in script
    assert menu.entries[0].arguments == ("quiet", *QUOTES, "composefs=" + "a" * 128)
    assert menu.entries[0].files == (folder / "vmlinuz", folder / "initrd")
    assert GRUB.plan_menu(target, menu, BootMenu(entries=menu.entries), facts(files)) == []
    # kept, while another becomes the default; then gone
    menu = change(target, bls("b", kernel=b"other"), *menu.entries, of=facts(files))
    assert letters(menu) == "ba"
    assert target.exists(folder / "vmlinuz")
    change(target, menu.entries[0], of=facts(files))
    assert not target.exists(folder)


def test_bios_cannot_hand_them_over():
    with pytest.raises(BootError, match="backslash"):
        change(disk(), bls("a", "x=a\\b"), of=facts(firmware=BOTH))
    target = disk()
    menu = change(target, bls("a", 'x="a b"'), of=facts(firmware=BOTH))
    script = text(target, "/boot/grub2/grub.cfg")
    assert "chainloader" in script
    assert "linux /boot/bootc_composefs-" + "a" * 128 + "/vmlinuz quiet 'x=a b'" in script
    assert menu.entries[0].arguments[1] == 'x="a b"'


def test_arguments_that_nothing_of_grubs_hands_over_are_refused():
    with pytest.raises(BootError, match="backslash"):
        change(disk(), bls("a", "x=a\\b", "ä=ö"))
    with pytest.raises(BootError, match="not closed"):
        change(disk(), bls("a", 'x="a'))


@pytest.mark.parametrize("files", [WITH_BLSUKI, FEDORA, DEBIAN])
@pytest.mark.parametrize("versions", [("12", "13"), ("13", "12"), ("13", "13"), ("1-2", "1-10")])
def test_one_wanted_menu_gives_one_result(files, versions):
    target, of = disk(), facts(files)
    menu = change(target, bls("a", version=versions[0]), of=of)
    menu = change(target, bls("b", version=versions[1]), *menu.entries, of=of)
    assert letters(menu) == "ba"
    menu = change(target, bls("c", version=versions[0], os_id="other"), *menu.entries, of=of)
    assert letters(menu) == "cba"
    menu = change(target, *reversed(menu.entries), of=of)
    assert letters(menu) == "abc"
    assert menu.default is None
    assert GRUB.plan_menu(target, menu, BootMenu(entries=menu.entries), of) == []


def test_ukis_are_bootcs_menu_entries():
    target = disk()
    menu = change(target, uki("a"))
    menu = change(target, uki("b"), *menu.entries)
    assert letters(menu) == "ba"
    assert text(target, "/boot/grub2/efiuuid.cfg") == 'set EFI_PART_UUID="ABCD-1234"'
    expected = "\nif [ -f ${config_directory}/efiuuid.cfg ]; then\n"
    expected += "        source ${config_directory}/efiuuid.cfg\nfi\n"
    for letter in "ba":
        expected += (
            f'menuentry "Sealed {letter}: ({letter * 128})" {{\ninsmod fat\ninsmod chain\n'
            'search --no-floppy --set=root --fs-uuid "${EFI_PART_UUID}"\n'
            f"chainloader /EFI/Linux/bootc/bootc_composefs-{letter * 128}.efi\n}}\n"
        )
    assert text(target, "/boot/grub2/user.cfg") == expected
    assert target.read(Location(ESP, f"/EFI/Linux/bootc/bootc_composefs-{'b' * 128}.efi")) == b"b"
    menu = change(target, menu.entries[1])
    assert not target.exists(Location(ESP, f"/EFI/Linux/bootc/bootc_composefs-{'b' * 128}.efi"))
    menu = change(target, bls("c"))
    assert letters(menu) == "c"
    assert not target.exists(Location(ROOT, "/boot/grub2/user.cfg"))


def test_kinds_can_be_mixed():
    target = disk()
    menu = change(target, bls("a"))
    menu = change(target, uki("b"), *menu.entries)
    assert letters(menu) == "ba"
    assert menu.default is None
    menu = change(target, *reversed(menu.entries))
    assert letters(menu) == "ab"


def test_default_once_and_tries_are_in_the_environment_block():
    target = disk()
    menu = change(target, bls("a"))
    menu = change(target, bls("b", tries_left=3), *menu.entries, once="a" * 128)
    assert environment(target) == {"next_entry": "bootc_" + "a" * 32, "cfs_tries_bbbbbbbbbbbbbbbb": "3"}
    assert menu.once == "a" * 128
    assert menu.entries[0].tries_left == 3
    script = text(target, "/boot/grub2/grub.cfg")
    assert 'elif [ "${cfs_tries_bbbbbbbbbbbbbbbb}" != "0" ]; then' in script
    # what GRUB writes while it counts
    block = Location(ROOT, "/boot/grub2/grubenv")
    failed = edit_environment(target.read(block), {"cfs_tries_bbbbbbbbbbbbbbbb": "0", "next_entry": ""})
    target.apply(WriteFile(location=block, data=failed, why="GRUB"))
    menu = GRUB.read_menu(target)
    assert (menu.default, menu.once, menu.entries[0].tries_left) == ("a" * 128, None, 0)
    menu = change(target, replace(menu.entries[0], tries_left=None), menu.entries[1])
    assert menu.default is None
    assert not environment(target).keys() & {"cfs_tries_bbbbbbbbbbbbbbbb"}
    menu = change(target, *menu.entries, default="a" * 128)
    assert environment(target)["saved_entry"] == "bootc_" + "a" * 32
    assert menu.default == "a" * 128


def test_a_named_default_is_counted_and_then_passed_over():
    target = disk()
    menu = change(target, bls("a"))
    menu = change(target, bls("b", tries_left=1), *menu.entries)
    menu = change(target, *reversed(menu.entries), default="b" * 128)
    assert letters(menu) == "ab"
    assert menu.default == "b" * 128
    assert environment(target) == {"saved_entry": "bootc_" + "b" * 32, "cfs_tries_bbbbbbbbbbbbbbbb": "1"}
    block = Location(ROOT, "/boot/grub2/grubenv")
    failed = edit_environment(target.read(block), {"cfs_tries_bbbbbbbbbbbbbbbb": "0"})
    target.apply(WriteFile(location=block, data=failed, why="GRUB"))
    menu = GRUB.read_menu(target)
    assert [menu.default, menu.entries[1].tries_left] == [None, 0]
    with pytest.raises(BootError, match="no tries left"):
        change(target, *menu.entries, default="b" * 128)
    with pytest.raises(BootError, match="no tries left"):
        change(target, *reversed(menu.entries), default="b" * 128)


def test_without_tries_left_nothing_counts():
    target = disk()
    menu = change(target, bls("b", tries_left=0), bls("a", tries_left=0))
    assert "cfs_count_down" not in text(target, "/boot/grub2/grub.cfg")
    assert menu.default is None


@pytest.mark.parametrize("files", [DEBIAN, WITH_BLSUKI, FEDORA])
@pytest.mark.parametrize("order", ["aBc", "AbC", "aBcD", "BaDc", "abCdE"])
def test_kinds_come_in_any_order(files, order):
    """Capitals are UKIs."""
    target, of = disk(), facts(files)
    wanted = {letter: (uki if letter.isupper() else bls)(letter.lower()) for letter in order}
    menu = change(target, *wanted.values(), of=of)
    assert letters(menu) == order.lower()
    assert menu.default is None
    assert GRUB.plan_menu(target, menu, BootMenu(entries=menu.entries), of) == []
    for again in (order[::-1], order[1:] + order[0], order[1:], order[-1]):
        there = {entry.deployment_id[0]: entry for entry in GRUB.read_menu(target).entries}
        menu = change(target, *(there.get(x.lower()) or wanted[x] for x in again), of=of)
        assert letters(menu) == again.lower()
        assert menu.default is None
        assert all(target.exists(file) for entry in menu.entries for file in entry.files)


def test_facts_that_say_nothing_of_a_subvolume_keep_it():
    target = disk(filesystem="btrfs")
    of = facts(root_path="/@", root_filesystem="btrfs")
    menu = change(target, bls("a"), of=of)
    later = facts(root_filesystem="btrfs")
    menu = change(target, bls("b", kernel=b"other"), *menu.entries, of=later)
    script = text(target, "/boot/grub2/grub.cfg")
    assert "# volume-root: /@\n" in script
    assert script.count("linux /@/boot/bootc_composefs-") == 2
    for action in GRUB.plan_install(target, later):
        target.apply(action)
    assert "'/@/boot/grub2'" in text(target, "/EFI/BOOT/grub.cfg", ESP)


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="grub-script-check is not installed")
@pytest.mark.parametrize("files", [DEBIAN, WITH_BLSUKI, FEDORA])
def test_grub_accepts_what_we_write(files, tmp_path):
    target, of = disk(), facts(files)
    put(target, "/boot/loader/entries/zzz-6.1.conf", THEIRS)
    menu = change(target, bls("a", *UNUSUAL, title='It\'s "quoted" $x {'), of=of)
    menu = change(target, bls("c", *QUOTES), *menu.entries, of=of)
    menu = change(target, uki("b", tries_left=5, title="Sealed 'x'"), *menu.entries, of=of)
    for name in ("grub.cfg", "user.cfg"):
        path = tmp_path / name
        path.write_bytes(read_all(BytesContent(target.read(Location(ROOT, f"/boot/grub2/{name}")))))
        subprocess.run(["grub-script-check", path], check=True)
