"""GRUB itself: what is found wrong with an image, and what is put where."""

import struct

import pytest
from grub_disks import (
    BOTH,
    DEBIAN,
    ESP,
    GRUB,
    ROOT,
    WITH_BLSUKI,
    Commands,
    bls,
    change,
    disk,
    facts,
    letters,
    text,
    uki,
)
from grub_files import modules, program, shim

from cfs_core.plugin import (
    Architecture,
    BootError,
    Firmware,
    Location,
    RunCommand,
    Severity,
    Volume,
)
from cfs_grub.bootloader import Grub


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
    told, code, record = actions[-3:]
    assert (told.location, told.offset) == (Location(Volume.BIOS_BOOT, "/"), 500)
    assert code.location == Location(Volume.DISK, "/")
    assert struct.unpack_from("<Q", code.data, 0x5C) == ((1 << 20) // 512,)
    assert record.location == Location(ROOT, "/boot/grub2/i386-pc/made-of")
    for action in actions:
        target.apply(action)
    core = target.read(Location(Volume.BIOS_BOOT, "/"))
    assert struct.unpack_from("<Q", core, 500) == ((1 << 20) // 512 + 1,)
    assert text(target, "/boot/grub2/i386-pc/early.cfg").startswith("search.fs_uuid uuid-of-root root\n")


def test_a_core_image_goes_beside_the_one_that_starts():
    """Each in its half of the partition: the first sector of the disk leads to one that is whole, whatever happens."""
    target = disk()
    starts, halves, records = [], [], []
    for image in (DEBIAN, DEBIAN | {"/usr/lib/grub/i386-pc/normal.mod": b"newer"}, DEBIAN):
        actions = GRUB.plan_install(target, facts(image, firmware=frozenset({Firmware.BIOS})))
        (command,) = [action for action in actions if isinstance(action, RunCommand)]
        told, code, record = actions[-3:]
        assert actions.index(command) == len(actions) - 4
        assert told.offset == command.offset + 500
        starts.append(struct.unpack_from("<Q", code.data, 0x5C)[0])
        halves.append(command.offset)
        records.append(record.data)
        for action in actions:
            target.apply(action)
    assert halves == [0, 1 << 29, 0]
    assert starts == [(1 << 20) // 512, ((1 << 20) + (1 << 29)) // 512, (1 << 20) // 512]
    assert records[0] == records[2] != records[1]


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
