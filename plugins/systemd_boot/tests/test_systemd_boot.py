"""systemd-boot: what it writes, what it reads, and that no instant is without a complete default."""

import fnmatch
import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    RenamePath,
    SetEfiVariable,
    UkiAddon,
    Volume,
    read_all,
)
from cfs_core.testing import MemoryTarget
from cfs_systemd_boot import plugin
from cfs_systemd_boot.bootloader import SystemdBoot
from cfs_systemd_boot.order import Shown, in_order
from cfs_testkit.context import plugin_context
from cfs_testkit.disks import files_of, put
from cfs_testkit.trees import image_of

ESP = Volume.ESP
ENTRIES = "/loader/entries"


LOADER = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"


def disk_with(files=(), *, volumes=(ESP,)):
    """A disk with these files on its ESP, by path."""
    disk = MemoryTarget(volumes=volumes)
    add(disk, files)
    return disk


def add(disk, files):
    for path, data in dict(files).items():
        put(disk, Location(ESP, path), data)


def on(disk, volume=ESP):
    """The files of a volume, by path."""
    return {location.path: data for location, data in files_of(disk).items() if location.volume is volume}


def rename(disk, old, new):
    """What the loader does when it counts."""
    source, location = (Location(ESP, f"{ENTRIES}/{name}") for name in (old, new))
    disk.apply(RenamePath(source=source, location=location, why="counts"))


def loader(version, machine=0x8664):
    head = bytearray(128)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 64)
    head[64:68] = b"PE\0\0"
    struct.pack_into("<H", head, 68, machine)
    return bytes(head) + f"#### LoaderInfo: systemd-boot {version}-1 ####".encode()


IMAGE = image_of({LOADER: loader(257)})


def facts(image=IMAGE, **more):
    return BootFacts(
        image=image,
        architecture=Architecture.AMD64,
        firmware=frozenset({Firmware.UEFI}),
        root_filesystem="ext4",
        **more,
    )


def deployment(letter, *, kernel=b"kernel", initrd=b"initrd", version="13", os_id="debian", **more):
    artifacts = BootArtifacts(
        kind=EntryKind.BLS,
        kernel_version="6.12",
        boot_digest=hashlib.sha256(kernel + initrd).hexdigest(),
        kernel=BytesContent(kernel),
        initrd=BytesContent(initrd),
    )
    values = {
        "deployment_id": letter * 128,
        "kind": EntryKind.BLS,
        "title": "Debian 13",
        "version": version,
        "os_id": os_id,
        "arguments": ("quiet", f"composefs={letter * 128}"),
        "artifacts": artifacts,
    }
    return BootEntry(**(values | more))


def uki(letter, data=b"uki", addons=(), **more):
    artifacts = BootArtifacts(
        kind=EntryKind.UKI,
        kernel_version="6.12",
        boot_digest="0" * 64,
        uki=BytesContent(data),
        addons=addons,
        sealed_arguments=("quiet",),
    )
    values = {
        "deployment_id": letter * 128,
        "kind": EntryKind.UKI,
        "title": "Sealed",
        "version": "1",
        "os_id": "debian",
        "artifacts": artifacts,
    }
    return BootEntry(**(values | more))


FACTS = facts()


def plan(disk, *entries, facts=FACTS, **more):
    boot = SystemdBoot()
    return boot.plan_menu(disk, boot.read_menu(disk), BootMenu(entries=entries, **more), facts)


def change(disk, *entries, **more):
    for action in plan(disk, *entries, **more):
        disk.apply(action)
    return SystemdBoot().read_menu(disk)


def letters(menu):
    return "".join(entry.deployment_id[0] for entry in menu.entries)


def default_of(disk):
    """The entry that starts by itself, and whether everything it needs is there."""
    menu = SystemdBoot().read_menu(disk)
    entry = next(
        (e for e in menu.entries if e.deployment_id == menu.default), menu.entries[0] if menu.entries else None
    )
    return entry, entry is not None and all(disk.exists(file) for file in entry.files)


def entry_files(disk):
    return {path.rpartition("/")[2]: data for path, data in on(disk).items() if path.startswith(ENTRIES + "/")}


def test_the_provider_says_what_it_can(tmp_path):
    (provider,) = plugin.cfs_register_bootloaders()
    assert provider.name == "systemd-boot"
    assert provider.firmware == {Firmware.UEFI}
    assert any(fnmatch.fnmatch("/usr/lib/systemd/boot/efi/systemd-bootx64.efi", p) for p in provider.marker_paths)
    assert isinstance(provider.factory(plugin_context(tmp_path)), SystemdBoot)


def test_install_puts_the_loader_in_both_places():
    disk = disk_with()
    for action in SystemdBoot().plan_install(disk, facts()):
        disk.apply(action)
    binary = loader(257)
    assert on(disk) == {
        "/EFI/systemd/systemd-bootx64.efi": binary,
        "/EFI/BOOT/BOOTX64.EFI": binary,
        "/loader/entries.srel": b"type1\n",
    }
    assert SystemdBoot().plan_install(disk, facts()) == []
    newer = facts(image_of({LOADER: loader(258)}))
    assert len(SystemdBoot().plan_install(disk, newer)) == 2
    older = facts(image_of({LOADER: loader(250)}))
    assert SystemdBoot().plan_install(disk, older) == []


def test_a_signed_loader_is_preferred():
    image = image_of({LOADER: loader(257), f"{LOADER}.signed": loader(256)})
    actions = SystemdBoot().plan_install(disk_with(), facts(image))
    assert read_all(actions[0].source) == loader(256)


@pytest.mark.parametrize(
    ("image", "firmware", "code"),
    [
        (image_of({}), {Firmware.UEFI}, "boot.loader-missing"),
        (image_of({LOADER: b"MZ"}), {Firmware.UEFI}, "boot.loader-damaged"),
        (
            image_of({LOADER: loader(257, 0xAA64)}),
            {Firmware.UEFI},
            "boot.loader-damaged",
        ),
        (IMAGE, {Firmware.BIOS}, "boot.firmware-unsupported"),
        (IMAGE, {Firmware.BIOS, Firmware.UEFI}, "boot.firmware-unsupported"),
    ],
)
def test_what_cannot_boot_is_found_before(image, firmware, code):
    what = BootFacts(image=image, architecture=Architecture.AMD64, firmware=frozenset(firmware))
    (finding,) = SystemdBoot().check(what)
    assert finding.code == code
    assert finding.hint
    assert SystemdBoot().check(facts()) == []


def test_first_entry_is_bootcs_byte_for_byte():
    disk = disk_with()
    change(disk, deployment("a"))
    name = "bootc_composefs-" + "a" * 128
    assert on(disk) == {
        f"/EFI/Linux/{name}/vmlinuz": b"kernel",
        f"/EFI/Linux/{name}/initrd": b"initrd",
        "/loader/entries/bootc_debian-13-1.conf": (
            f"title Debian 13\nversion 13\nlinux /EFI/Linux/{name}/vmlinuz\ninitrd /EFI/Linux/{name}/initrd\n"
            f"options quiet composefs={'a' * 128}\nsort-key bootc-debian-0\n"
        ).encode(),
        "/loader/loader.conf": b"timeout 5\n",
    }


@pytest.mark.parametrize(("version", "key"), [(257, "efi"), (258, "uki"), (262, "uki")])
def test_a_uki_is_named_as_the_loader_knows_it(version, key):
    disk = disk_with()
    image = image_of({LOADER: loader(version)})
    addon = UkiAddon(name="debug.addon.efi", content=BytesContent(b"addon"))
    change(disk, uki("a", addons=(addon,)), facts=facts(image))
    path = "/EFI/Linux/bootc/bootc_composefs-" + "a" * 128 + ".efi"
    assert on(disk)[path] == b"uki"
    assert on(disk)[path + ".extra.d/debug.addon.efi"] == b"addon"
    text = entry_files(disk)["bootc_debian-1-1.conf"]
    assert text == f"title Sealed\nversion 1\n{key} {path}\nsort-key bootc-debian-0\n".encode()
    (entry,) = SystemdBoot().read_menu(disk).entries
    assert (entry.deployment_id, entry.kind, entry.foreign) == ("a" * 128, EntryKind.UKI, False)


def test_the_oldest_loader_on_the_disk_decides_about_the_uki_key():
    disk = disk_with({"/EFI/BOOT/BOOTX64.EFI": loader(252)})
    image = image_of({LOADER: loader(262)})
    change(disk, uki("a"), facts=facts(image))
    assert b"\nefi /EFI" in entry_files(disk)["bootc_debian-1-1.conf"]


def test_arguments_cannot_be_added_to_a_uki():
    with pytest.raises(BootError, match="debug"):
        plan(disk_with(), uki("a", arguments=("quiet", "debug")))
    disk = disk_with()
    menu = change(disk, uki("a", arguments=("quiet",)))
    assert plan(disk, *menu.entries) == []
    with pytest.raises(BootError, match="debug"):
        plan(disk, replace(menu.entries[0], arguments=("debug",)))


def test_an_upgrade_shares_kernel_files_and_keeps_the_old_entry_second():
    disk = disk_with()
    menu = change(disk, deployment("a"))
    menu = change(disk, deployment("b"), *menu.entries)
    assert letters(menu) == "ba"
    assert sorted(entry_files(disk)) == ["bootc_debian-13-0.conf", "bootc_debian-13-1.conf"]
    kernels = {path for path in on(disk) if path.endswith("vmlinuz")}
    assert kernels == {"/EFI/Linux/bootc_composefs-" + "a" * 128 + "/vmlinuz"}
    # the owner of the shared files goes: they stay
    menu = change(disk, menu.entries[0])
    assert letters(menu) == "b"
    assert default_of(disk)[1]
    menu = change(disk, deployment("c", kernel=b"other"), *menu.entries)
    menu = change(disk, menu.entries[0])
    kernels = {path for path in on(disk) if path.endswith("vmlinuz")}
    assert kernels == {"/EFI/Linux/bootc_composefs-" + "c" * 128 + "/vmlinuz"}


def test_files_of_a_crashed_run_are_written_again_and_not_shared():
    disk = disk_with({"/EFI/Linux/bootc_composefs-" + "a" * 128 + "/vmlinuz": b"ker"})
    change(disk, deployment("b"))
    assert default_of(disk)[1]
    assert "/EFI/Linux/bootc_composefs-" + "a" * 128 + "/vmlinuz" not in on(disk)


def test_rollback_is_another_wanted_menu():
    disk = disk_with()
    menu = change(disk, deployment("a", version="12"))
    menu = change(disk, deployment("b", version="13"), *menu.entries)
    menu = change(disk, *reversed(menu.entries))
    assert letters(menu) == "ab"
    menu = change(disk, *reversed(menu.entries))
    assert letters(menu) == "ba"


def test_a_renamed_system_keeps_its_order():
    disk = disk_with()
    menu = change(disk, deployment("a", os_id="aurora"))
    menu = change(disk, deployment("b", os_id="zirconium"), *menu.entries)
    assert letters(menu) == "ba"


def test_many_deployments_keep_their_order():
    disk = disk_with()
    menu = BootMenu(entries=())
    for letter in "0123456789ab":
        menu = change(disk, deployment(letter), *menu.entries)
    assert letters(menu) == "ba9876543210"


def test_the_plan_for_what_is_there_is_empty():
    disk = disk_with()
    menu = change(disk, deployment("a"))
    menu = change(disk, deployment("b"), *menu.entries)
    assert plan(disk, *menu.entries) == []


def test_boot_counters_are_in_the_name_and_survive():
    disk = disk_with()
    menu = change(disk, deployment("a"))
    menu = change(disk, deployment("b", tries_left=3), *menu.entries)
    assert "bootc_debian-13-1+3.conf" in entry_files(disk)
    assert [entry.tries_left for entry in menu.entries] == [3, None]
    # the loader counts down by renaming
    rename(disk, "bootc_debian-13-1+3.conf", "bootc_debian-13-1+1-2.conf")
    assert plan(disk, *SystemdBoot().read_menu(disk).entries) == []
    rename(disk, "bootc_debian-13-1+1-2.conf", "bootc_debian-13-1+0-3.conf")
    menu = SystemdBoot().read_menu(disk)
    assert letters(menu) == "ab"
    assert menu.default is None
    # blessed
    menu = change(disk, replace(menu.entries[1], tries_left=None), menu.entries[0])
    assert letters(menu) == "ba"
    assert "bootc_debian-13-1.conf" in entry_files(disk)


FOREIGN = b"title Other\r\n#comment\nlinux /k\noptions a  b $c \xff\nsort-key aaa"


def test_foreign_entries_stay_byte_for_byte_and_do_not_take_over():
    disk = disk_with({ENTRIES + "/other.conf": FOREIGN, "/k": b"k", "/loader/loader.conf": b"# mine\ntimeout 3\n"})
    menu = change(disk, deployment("a"))
    assert entry_files(disk)["other.conf"] == FOREIGN
    assert [entry.foreign for entry in menu.entries] == [True, False]
    assert menu.default == "a" * 128
    assert on(disk)["/loader/loader.conf"] == b"# mine\ntimeout 3\ndefault bootc_*\n"
    menu = change(disk, deployment("b"), *menu.entries)
    assert default_of(disk)[0].deployment_id == "b" * 128
    menu = change(disk, *menu.entries, default="other.conf")
    assert default_of(disk)[0].foreign


def test_a_default_that_is_not_first_is_named():
    disk = disk_with()
    menu = change(disk, deployment("a"))
    menu = change(disk, deployment("b"), *menu.entries, default="a" * 128)
    assert letters(menu) == "ba"
    assert menu.default == "a" * 128
    menu = change(disk, *menu.entries)
    assert menu.default is None
    with pytest.raises(BootError, match="no entry"):
        plan(disk, *menu.entries, default="nobody")


def test_kernels_that_a_foreign_entry_uses_stay():
    disk = disk_with()
    change(disk, deployment("a"))
    text = entry_files(disk)["bootc_debian-13-1.conf"].replace(b"quiet", b"debug")
    add(disk, {ENTRIES + "/my-copy.conf": text})
    change(disk, deployment("b", kernel=b"new"))
    assert on(disk)["/EFI/Linux/bootc_composefs-" + "a" * 128 + "/vmlinuz"] == b"kernel"
    assert entry_files(disk)["my-copy.conf"] == text


def test_what_an_entry_says_besides_is_kept():
    disk = disk_with()
    change(disk, deployment("a", machine_id="0" * 32))
    name = ENTRIES + "/bootc_debian-13-1.conf"
    add(disk, {name: on(disk)[name] + b"devicetree /x.dtb\n# note\n"})
    menu = change(disk, deployment("b"), *SystemdBoot().read_menu(disk).entries)
    old = entry_files(disk)["bootc_debian-13-0.conf"]
    assert b"devicetree /x.dtb\n# note\n" in old
    assert b"sort-key bootc-debian-1\n" in old
    change(disk, menu.entries[0], replace(menu.entries[1], arguments=("one", "composefs=" + "a" * 128)))
    assert b"options one composefs=a" in entry_files(disk)["bootc_debian-13-0.conf"]


def test_once_is_a_firmware_variable_and_no_image_has_one():
    disk = disk_with()
    menu = change(disk, deployment("a"))
    menu = change(disk, deployment("b"), *menu.entries)
    with pytest.raises(BootError, match="next boot"):
        plan(disk, *menu.entries, once="a" * 128)
    (action,) = plan(disk, *menu.entries, once="a" * 128, facts=facts(generic=False))
    assert isinstance(action, SetEfiVariable)
    assert action.name == "LoaderEntryOneShot"
    assert action.data == "bootc_debian-13-0.conf\0".encode("utf-16-le")


@pytest.mark.parametrize(
    "arguments", [('"a b"=c', "composefs=" + "a" * 128, 'x="y z"'), ('"q"',), ("ä=€", "\\$x", "'")]
)
def test_arguments_come_back_as_they_were(arguments):
    disk = disk_with()
    first, *rest = arguments
    wanted = (first, "composefs=" + "a" * 128, *rest)
    menu = change(disk, deployment("a", arguments=wanted))
    assert menu.entries[0].arguments == wanted


def test_a_separate_boot_volume_takes_entries_and_kernels():
    disk = disk_with(volumes=(ESP, Volume.XBOOTLDR))
    change(disk, deployment("a"))
    assert set(on(disk)) == {"/loader/loader.conf"}
    assert ENTRIES + "/bootc_debian-13-1.conf" in on(disk, Volume.XBOOTLDR)
    assert default_of(disk)[1]


def test_needs_grow_with_the_files():
    small = SystemdBoot().needs(facts())
    entry = deployment("a", kernel=b"k" * 10_000_000)
    (need,) = SystemdBoot().needs(facts(artifacts=entry.artifacts))
    assert need.volume is ESP
    assert need.filesystems == ("vfat",)
    assert need.bytes_needed >= small[0].bytes_needed + 10_000_000


START = [
    (),
    ("a",),
    ("b", "a"),
    ("a", "b"),
    ("c", "b", "a"),
]


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("end", [s for s in START if s])
@pytest.mark.parametrize("kind", [deployment, uki])
@pytest.mark.parametrize("foreign", [False, True])
def test_after_every_action_the_default_is_complete(start, end, kind, foreign):
    disk = disk_with()
    if foreign:
        add(disk, {ENTRIES + "/other.conf": FOREIGN, "/k": b"k"})
    for action in SystemdBoot().plan_install(disk, facts()):
        disk.apply(action)

    def make(letter):
        return kind(letter, version=str(ord(letter) % 2)) if kind is uki else kind(letter, kernel=letter.encode())

    if start:
        change(disk, *map(make, start))
    by_id = {entry.deployment_id[0]: entry for entry in SystemdBoot().read_menu(disk).entries if not entry.foreign}
    wanted = [by_id.get(letter) or make(letter) for letter in end]
    actions = plan(disk, *wanted)
    for count in range(len(actions) + 1):
        crashed = disk.copy()
        for action in actions[:count]:
            crashed.apply(action)
        if start:
            entry, complete = default_of(crashed)
            assert complete, (count, actions[:count])
            if not foreign:
                assert entry.deployment_id[0] in {*start, *end}
            for letter in set(start) & set(end):
                assert letter * 128 in {e.deployment_id for e in SystemdBoot().read_menu(crashed).entries}
        # a second run from wherever the first one died ends where it should
        by_now = {e.deployment_id[0]: e for e in SystemdBoot().read_menu(crashed).entries if not e.foreign}
        menu = change(crashed, *(by_now.get(letter) or make(letter) for letter in end))
        assert "".join(e.deployment_id[0] for e in menu.entries if not e.foreign) == "".join(end)
        assert default_of(crashed)[1]
        assert not [path for path in entry_files(crashed) if "swap" in path]


SHOWN = st.builds(
    Shown,
    key=st.just("k"),
    id=st.sampled_from(["a.conf", "b.conf", "a-2.conf", "a-10.conf"]),
    sort_key=st.sampled_from([None, "a", "b"]),
    machine_id=st.sampled_from(["", "1"]),
    version=st.sampled_from(["", "1", "2~rc1", "2", "10"]),
    tries_left=st.sampled_from([None, 0, 1, 3]),
    tries_done=st.integers(0, 2),
)


@given(st.lists(SHOWN, max_size=6), st.randoms())
def test_order_does_not_depend_on_the_order_found(entries, random):
    mixed = list(entries)
    random.shuffle(mixed)
    counted = [entry for entry in in_order(entries) if entry.tries_left != 0]
    assert in_order(entries)[: len(counted)] == counted

    def compared(ordered):
        return [(e.sort_key, e.version if e.sort_key else "", e.id) for e in ordered]

    assert compared(in_order(mixed)) == compared(in_order(entries))
