"""GRUB's menus: what is written, what is read back, what belongs to others."""

import hashlib
import shutil
import struct
import subprocess
from dataclasses import replace

import pytest
from grub_files import Image, modules, program, shim

from cfs_core.plugin import (
    Architecture,
    BootArtifacts,
    BootEntry,
    BootError,
    BootFacts,
    BootMenu,
    BytesContent,
    EntryKind,
    Firmware,
    Location,
    Partition,
    RunCommand,
    Severity,
    Volume,
    WriteBlocks,
    WriteFile,
    read_all,
)
from cfs_core.testing import MemoryTarget
from cfs_grub.bootloader import Grub
from cfs_grub.environment import edit as edit_environment
from cfs_grub.environment import parse as parse_environment

ROOT, ESP = Volume.ROOT, Volume.ESP


class Commands:
    """A host with these commands."""

    def __init__(self, *names):
        self.names = names

    def find(self, name):
        return f"/usr/bin/{name}" if name in self.names else None


DEBIAN = {"/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": program(), **modules("i386-pc")}
WITH_BLSUKI = {**modules("x86_64-efi", "blsuki"), **modules("i386-pc", "blsuki")}
FEDORA = {"/usr/lib/ostree-boot/efi/EFI/fedora/grubx64.efi": program("blscfg")}
UEFI = frozenset({Firmware.UEFI})
BOTH = frozenset({Firmware.UEFI, Firmware.BIOS})


def disk(*, boot=False, filesystem="ext4"):
    volumes = {Volume.BIOS_BOOT: None, ESP: "vfat", ROOT: filesystem} | ({Volume.BOOT: "ext4"} if boot else {})
    return MemoryTarget(
        [
            Partition(
                number=number,
                volume=volume,
                start=number << 20,
                size=1 << 30,
                type_guid="",
                uuid="",
                name=volume,
                filesystem=kind,
                fs_uuid="ABCD-1234" if volume is ESP else f"uuid-of-{volume}",
            )
            for number, (volume, kind) in enumerate(volumes.items(), 1)
        ],
        volumes=[Volume.DISK],
    )


def facts(files=DEBIAN, *, firmware=UEFI, **more):
    values = {
        "architecture": Architecture.AMD64,
        "firmware": firmware,
        "image": Image(files),
        "root_filesystem": "ext4",
    }
    return BootFacts(**(values | more))


def bls(letter, *arguments, kernel=b"kernel", **more):
    artifacts = BootArtifacts(
        kind=EntryKind.BLS,
        kernel_version="6",
        boot_digest=hashlib.sha256(kernel + b"initrd").hexdigest(),
        kernel=BytesContent(kernel),
        initrd=BytesContent(b"initrd"),
    )
    values = {
        "deployment_id": letter * 128,
        "kind": EntryKind.BLS,
        "title": f"System {letter}",
        "version": "13",
        "os_id": "debian",
        "arguments": ("quiet", *arguments, f"composefs={letter * 128}"),
        "artifacts": artifacts,
    }
    return BootEntry(**(values | more))


def uki(letter, **more):
    artifacts = BootArtifacts(
        kind=EntryKind.UKI, kernel_version="6", boot_digest="0" * 64, uki=BytesContent(letter.encode())
    )
    values = {
        "deployment_id": letter * 128,
        "kind": EntryKind.UKI,
        "title": f"Sealed {letter}",
        "version": "13",
        "os_id": "debian",
        "artifacts": artifacts,
    }
    return BootEntry(**(values | more))


GRUB = Grub(Commands("grub-mkimage"))


def change(target, *entries, of=None, **more):
    wanted = BootMenu(entries=entries, **more)
    for action in GRUB.plan_menu(target, GRUB.read_menu(target), wanted, of or facts()):
        target.apply(action)
    return GRUB.read_menu(target)


def letters(menu):
    return "".join(entry.deployment_id[0] for entry in menu.entries)


def text(target, path, volume=ROOT):
    return target.read(Location(volume, path)).decode()


def environment(target):
    return parse_environment(target.read(Location(ROOT, "/boot/grub2/grubenv")))


# --- installing ---------------------------------------------------------------------------------------


def test_a_prebuilt_program_goes_to_the_removable_path_with_stubs():
    target = disk()
    for action in GRUB.plan_install(target, facts()):
        target.apply(action)
    assert target.read(Location(ESP, "/EFI/BOOT/BOOTX64.EFI")) == program()
    stub = "search.fs_uuid uuid-of-root root\nset prefix=($root)'/boot/grub2'\nconfigfile $prefix/grub.cfg\n"
    assert text(target, "/EFI/debian/grub.cfg", ESP) == stub
    assert text(target, "/EFI/BOOT/grub.cfg", ESP) == stub


SIGNED = program(signed=True)
FAMILIES = {
    "Debian": ("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "/usr/lib/shim/{}.efi.signed", "shimx64", "mmx64"),
    "Fedora with ostree": (
        "/usr/lib/ostree-boot/efi/EFI/fedora/grubx64.efi",
        "/usr/lib/ostree-boot/efi/EFI/fedora/{}.efi",
        "shimx64",
        "mmx64",
    ),
    "Fedora with bootupd": (
        "/usr/lib/bootupd/updates/EFI/fedora/grubx64.efi",
        "/usr/lib/bootupd/updates/EFI/fedora/{}.efi",
        "shimx64",
        "mmx64",
    ),
    "Fedora 43": (
        "/usr/lib/efi/grub2/1:2.12-40.fc43/EFI/fedora/grubx64.efi",
        "/usr/lib/efi/shim/15.8-3/EFI/fedora/{}.efi",
        "shimx64",
        "mmx64",
    ),
    "openSUSE": ("/usr/share/efi/x86_64/grub.efi", "/usr/share/efi/x86_64/{}.efi", "shim", "MokManager"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_shim_starts_a_signed_program(family):
    grub, beside, first, manager = FAMILIES[family]
    loader = "grub.efi" if family == "openSUSE" else "grubx64.efi"
    files = {grub: SIGNED, beside.format(first): shim(loader), beside.format(manager): b"manager"}
    target = disk()
    for action in GRUB.plan_install(target, facts(files)):
        target.apply(action)
    folder = Location(ESP, "/EFI/BOOT")
    assert target.names(folder) == tuple(sorted(["BOOTX64.EFI", "grub.cfg", loader, f"{manager}.efi"]))
    assert target.read(folder / "BOOTX64.EFI") == shim(loader)
    assert target.read(folder / loader) == SIGNED
    assert target.read(folder / f"{manager}.efi") == b"manager"


def test_a_program_without_signature_needs_no_shim():
    files = {"/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": program(), "/usr/lib/shim/shimx64.efi": shim()}
    target = disk()
    for action in GRUB.plan_install(target, facts(files)):
        target.apply(action)
    assert target.read(Location(ESP, "/EFI/BOOT/BOOTX64.EFI")) == program()


def test_bios_gets_boot_code_and_a_core_image_made_by_a_declared_command():
    target = disk()
    actions = GRUB.plan_install(target, facts(firmware=BOTH))
    (command,) = [action for action in actions if isinstance(action, RunCommand)]
    assert command.argv[:2] == ("grub-mkimage", "-d")
    assert command.writes == (Location(Volume.BIOS_BOOT, "/"),)
    assert set(command.argv) >= {"boot", "normal", "linux", "search_fs_uuid"}
    assert "relocator" not in command.argv
    assert isinstance(actions[-1], WriteBlocks)
    assert actions[-1].location == Location(Volume.DISK, "/")
    assert struct.unpack_from("<Q", actions[-1].data, 0x5C) == ((1 << 20) // 512,)
    for action in actions:
        target.apply(action)
    first = target.read(Location(ROOT, "/boot/grub2/i386-pc/diskboot.img"))
    assert struct.unpack_from("<Q", first, 500) == ((1 << 20) // 512 + 1,)
    assert text(target, "/boot/grub2/i386-pc/early.cfg").startswith("search.fs_uuid uuid-of-root root\n")


ARM_PROGRAM = "/usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed"


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({ARM_PROGRAM: SIGNED, "/usr/lib/shim/shimaa64.efi.signed": shim("grubaa64.efi")}, False),
        ({"/usr/lib/grub/arm64-efi/monolithic/grubaa64.efi": program()}, False),
        (modules("arm64-efi", "blsuki"), True),
    ],
)
def test_arm64_has_the_same_by_its_own_names(files, command):
    of = facts(files, architecture=Architecture.ARM64, artifacts=bls("a").artifacts)
    assert not [finding for finding in GRUB.check(of) if finding.severity is Severity.ERROR]
    target = disk()
    actions = GRUB.plan_install(target, of)
    made = [action for action in actions if isinstance(action, RunCommand)]
    assert bool(made) is command
    assert all({"-O", "arm64-efi"} <= set(action.argv) for action in made)
    for action in actions:
        target.apply(action)
    assert "BOOTAA64.EFI" in target.names(Location(ESP, "/EFI/BOOT"))
    assert ("grubaa64.efi" in target.names(Location(ESP, "/EFI/BOOT"))) is (ARM_PROGRAM in files)
    menu = change(target, bls("a"), of=of)
    assert letters(menu) == "a"
    # initrd= is an option of arm64 kernels, so nothing is started as an EFI program
    with pytest.raises(BootError, match="backslash"):
        change(target, bls("b", "x=a\\b", kernel=b"other"), *menu.entries, of=of)
    found = GRUB.check(facts(files, architecture=Architecture.ARM64, firmware=BOTH))
    assert "boot.firmware-unsupported" in [finding.code for finding in found]


def test_without_a_program_one_is_made_of_modules():
    actions = GRUB.plan_install(disk(), facts(WITH_BLSUKI))
    (command,) = [action for action in actions if isinstance(action, RunCommand)]
    assert command.writes == (Location(ESP, "/EFI/BOOT/BOOTX64.EFI"),)
    assert "blsuki" in command.argv


def built_without(name):
    return {"/usr/lib/ostree-boot/efi/EFI/fedora/grubx64.efi": program(without=[name], signed=True)}


@pytest.mark.parametrize(
    ("files", "more", "code"),
    [
        ({}, {}, "boot.loader-missing"),
        (DEBIAN, {"architecture": Architecture.RISCV64}, "boot.loader-missing"),
        (DEBIAN, {"firmware": BOTH, "artifacts": uki("a").artifacts}, "boot.firmware-unsupported"),
        (DEBIAN, {"root_filesystem": "zfs"}, "boot.filesystem-unreadable"),
        (
            {"/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": program(without=["xfs"], signed=True)},
            {"root_filesystem": "xfs"},
            "boot.filesystem-unreadable",
        ),
        (built_without("ext2"), {}, "boot.filesystem-unreadable"),
        (built_without("linux"), {}, "boot.loader-damaged"),
        (built_without("loadenv"), {}, "boot.loader-damaged"),
        (built_without("configfile"), {}, "boot.loader-damaged"),
        (built_without("part_gpt"), {}, "boot.loader-damaged"),
        (built_without("chain"), {"artifacts": uki("a").artifacts}, "boot.loader-damaged"),
        (built_without("fat"), {"artifacts": uki("a").artifacts}, "boot.loader-damaged"),
        ({k: v for k, v in WITH_BLSUKI.items() if "loadenv" not in k}, {}, "boot.loader-damaged"),
    ],
)
def test_what_cannot_boot_is_found_before(files, more, code):
    found = [finding for finding in GRUB.check(facts(files, **more)) if finding.severity is Severity.ERROR]
    assert [finding.code for finding in found] == [code]
    assert found[0].hint


def test_what_a_program_needs_not_have_is_no_error():
    assert not GRUB.check(facts(built_without("chain")))
    assert not GRUB.check(facts(built_without("xfs")))
    found = GRUB.check(facts({"/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": b"MZ\0ext2\0linux\0"}))
    assert [finding.code for finding in found] == ["boot.filesystem-unreadable", "boot.loader-damaged"]


def test_modules_make_up_for_what_an_unsigned_program_lacks():
    files = {"/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": program(without=["loadenv"]), **modules("x86_64-efi")}
    assert any(isinstance(action, RunCommand) for action in GRUB.plan_install(disk(), facts(files)))
    assert [finding.severity for finding in GRUB.check(facts(files))] == [Severity.NOTE]


def test_a_host_without_grub_mkimage_is_an_error_only_where_it_is_needed():
    bare = Grub(Commands())
    assert not bare.check(facts())
    (finding,) = bare.check(facts(firmware=BOTH))
    assert finding.code == "boot.tool-missing"
    assert Grub(Commands("grub2-mkimage")).check(facts(WITH_BLSUKI))[0].severity is Severity.NOTE


def test_needs_follow_the_firmware():
    volumes = [need.volume for need in GRUB.needs(facts(firmware=BOTH, artifacts=bls("a").artifacts))]
    assert volumes == [ESP, Volume.BIOS_BOOT, ROOT]
    separate = GRUB.needs(facts(firmware=frozenset({Firmware.BIOS}), volumes=frozenset({Volume.BOOT})))
    assert [need.volume for need in separate] == [Volume.BIOS_BOOT, Volume.BOOT]


@pytest.mark.parametrize("volume", [Volume.BOOT, Volume.XBOOTLDR])
def test_a_boot_volume_has_the_filesystem_that_was_checked(volume):
    of = facts(built_without("ext2"), volumes=frozenset({volume}), root_filesystem="xfs")
    need = next(need for need in GRUB.needs(of) if need.volume is volume)
    assert need.filesystems[0] == "ext4"  # layouts take the first
    assert [finding.code for finding in GRUB.check(of)] == ["boot.filesystem-unreadable"]
    assert not GRUB.check(facts(built_without("fat"), volumes=frozenset({volume})))


def test_kernels_that_may_be_copied_to_the_esp_have_room_there():
    small, large = (facts(artifacts=bls("a", kernel=bytes(size)).artifacts) for size in (1, 40 << 20))
    esp = [next(need for need in GRUB.needs(of) if need.volume is ESP).bytes_needed for of in (small, large)]
    assert esp[1] - esp[0] >= 39 << 20


# --- menus we write -----------------------------------------------------------------------------------


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


# --- menus of others ----------------------------------------------------------------------------------

FEDORAS = """\
set default="${saved_entry}"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
fi
insmod blscfg
blscfg
if [ -f $prefix/user.cfg ]; then
  source $prefix/user.cfg
fi
menuentry 'UEFI Firmware Settings' --id 'uefi-firmware' {
	fwsetup
}
"""
THEIRS = (
    "title Fedora\nversion 6.1\nlinux /vmlinuz\ninitrd /initrd $tuned_initrd\noptions $kernelopts $tuned_params\n\n"
)


def put(target, path, data):
    target.apply(WriteFile(location=Location(ROOT, path), data=data.encode(), why="theirs"))


def test_a_grub_cfg_of_others_that_reads_entries_is_left_alone():
    target = disk()
    put(target, "/boot/grub2/grub.cfg", FEDORAS)
    put(target, "/boot/loader/entries/abc-6.1.conf", THEIRS)
    before = GRUB.read_menu(target)
    assert [(entry.deployment_id, entry.foreign) for entry in before.entries] == [
        ("abc-6.1.conf", True),
        ("uefi-firmware", True),
    ]
    menu = change(target, bls("b"))
    assert text(target, "/boot/grub2/grub.cfg") == FEDORAS
    assert text(target, "/boot/loader/entries/abc-6.1.conf") == THEIRS
    assert [entry.foreign for entry in menu.entries] == [False, True, True]
    menu = change(target, *menu.entries, default="uefi-firmware")
    assert environment(target)["saved_entry"] == "uefi-firmware"
    assert menu.default == "uefi-firmware"
    with pytest.raises(BootError, match="count"):
        change(target, bls("c", tries_left=2))
    menu = change(target, uki("d"), *menu.entries)
    assert letters(menu)[0] == "b"
    assert menu.default == "d" * 128


def test_a_grub_cfg_of_others_that_reads_no_entries_is_refused():
    target = disk()
    put(target, "/boot/grub/grub.cfg", "menuentry 'Debian' { linux /vmlinuz root=/dev/sda1 }\n")
    assert GRUB.read_menu(target).entries[0].title == "Debian"
    with pytest.raises(BootError, match=r"/boot/grub/grub\.cfg was written by another program"):
        change(target, bls("a"))


@pytest.mark.parametrize("files", [DEBIAN, WITH_BLSUKI])
def test_entries_of_others_are_offered_with_their_variables(files):
    target = disk()
    put(target, "/boot/loader/entries/zzz-6.1.conf", THEIRS)
    menu = change(target, bls("a"), of=facts(files))
    assert [entry.deployment_id for entry in menu.entries if entry.foreign] == ["zzz-6.1.conf"]
    default = menu.default or menu.entries[0].deployment_id
    assert default == "a" * 128
    script = text(target, "/boot/grub2/grub.cfg")
    written = "linux /vmlinuz ${kernelopts} ${tuned_params}\n  initrd /initrd ${tuned_initrd}\n"
    assert "blscfg" in script or written in script
    assert text(target, "/boot/loader/entries/zzz-6.1.conf") == THEIRS


NUMBERED = """\
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="NUMBER"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function never {
  menuentry 'never' { halt }
}
insmod blscfg
blscfg
menuentry 'Debian' --id d0 { linux /vmlinuz root=/dev/sda1
}
submenu 'Advanced' --id adv {
  menuentry 'old' --id d1 { linux /vmlinuz.old root=/dev/sda1
  }
}
menuentry 'Other' --id o { linux /x
}
"""


@pytest.mark.parametrize(
    ("number", "saved", "default"),
    [
        ("0", "", None),
        ("1", "", "d1"),
        ("2", "", "o"),
        ("adv>d1", "", "d1"),
        ("1>0", "", "d1"),
        ("Advanced>old", "", "d1"),
        ("9", "", None),
        ("${saved_entry}", "adv>d1", "d1"),
        ("${saved_entry}", "2", "o"),
        ("${saved_entry}", "Other", "o"),
        ("0", "o", None),
    ],
)
def test_defaults_of_others_are_read_as_grub_does(number, saved, default):
    target = disk()
    put(target, "/boot/grub/grub.cfg", NUMBERED.replace("NUMBER", number))
    put(target, "/boot/grub/grubenv", edit_environment(None, {"saved_entry": saved}).decode())
    menu = GRUB.read_menu(target)
    assert [entry.deployment_id for entry in menu.entries] == ["d0", "d1", "o"]
    assert menu.default == default


def test_a_grub_cfg_that_only_mentions_saved_entry_does_not_obey_it():
    target = disk()
    put(target, "/boot/grub2/grub.cfg", NUMBERED.replace("NUMBER", "0"))
    menu = change(target, bls("a"))
    assert menu.default is None
    with pytest.raises(BootError, match="does not obey saved_entry"):
        change(target, *menu.entries, default="o")
    change(target, *menu.entries, once="o")
    assert environment(target)["next_entry"] == "o"


def test_an_entry_in_a_submenu_is_chosen_by_its_path():
    target = disk()
    put(target, "/boot/grub2/grub.cfg", NUMBERED.replace("NUMBER", "${saved_entry}"))
    menu = change(target, bls("a"))
    menu = change(target, *menu.entries, default="d1")
    assert environment(target)["saved_entry"] == "adv>d1"
    assert menu.default == "d1"


def test_a_function_that_is_called_shows_its_entries():
    target = disk()
    script = "function f {\nmenuentry 'once' { halt }\n}\nfunction g {\nmenuentry 'never' { halt }\n}\nf\n"
    put(target, "/boot/grub2/grub.cfg", script)
    assert [entry.title for entry in GRUB.read_menu(target).entries] == ["once"]


@pytest.mark.parametrize("files", [DEBIAN, WITH_BLSUKI])
def test_of_several_lines_of_options_grub_takes_the_first(files):
    target = disk()
    put(target, "/boot/loader/entries/zzz.conf", "title Z\nlinux /z\noptions one\noptions two\n")
    menu = change(target, bls("a"), of=facts(files))
    assert next(entry for entry in menu.entries if entry.foreign).arguments == ("one",)


def test_user_cfg_keeps_what_is_not_ours():
    target = disk()
    put(target, "/boot/grub2/user.cfg", "GRUB2_PASSWORD=grub.pbkdf2\nmenuentry 'mine' { halt }\n")
    menu = change(target, uki("a"))
    assert text(target, "/boot/grub2/user.cfg").startswith("GRUB2_PASSWORD=grub.pbkdf2\nmenuentry 'mine' { halt }\n")
    change(target, uki("b"), *[entry for entry in menu.entries if not entry.foreign])
    change(target, bls("c"))
    assert text(target, "/boot/grub2/user.cfg").startswith("GRUB2_PASSWORD=grub.pbkdf2\nmenuentry 'mine' { halt }\n")
    assert "Sealed" not in text(target, "/boot/grub2/user.cfg")


def test_the_environment_block_keeps_what_is_not_ours():
    target = disk()
    put(target, "/boot/grub2/grubenv", "# GRUB Environment Block\nkernelopts=a b\nboot_success=1\n".ljust(1024, "#"))
    change(target, bls("a"))
    assert environment(target) == {"kernelopts": "a b", "boot_success": "1"}


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
