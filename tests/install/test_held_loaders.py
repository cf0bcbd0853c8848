"""Bootloaders are held to what they declare, and to what their plans promise, before anything is written or fetched."""

import dataclasses
import json

import pytest
from builders import bootable
from builders.distributions import Site
from builders.pe import pe_bytes

from cfs_core.config.settings import Layer, Rank, Settings
from cfs_core.deploy.loader import CapabilityError, FirmwareError, check_filled, examine_firmware, refuse_early
from cfs_core.errors import PluginError
from cfs_core.model.action import WriteFile
from cfs_core.model.boot import Architecture, BootEntry, BootMenu, EntryKind, Firmware
from cfs_core.model.disk import Location, Volume
from cfs_core.plugin import BootArtifacts, BootFacts, BootloaderProvider, BytesContent, Capability
from cfs_core.pluginhost.registry import PluginId
from cfs_core.target.memory import MemoryTarget

OWNER = PluginId(name="bad", distribution="outsider", version="3.14")
UEFI, BIOS = Firmware.UEFI, Firmware.BIOS
PROGRAM = Architecture.AMD64.removable_program
KERNEL = Location(Volume.ESP, "/vmlinuz")
ENTRY = BootEntry(
    deployment_id="a" * 64, kind=EntryKind.BLS, title="A", version="1", os_id="x", arguments=("root=x", "quiet"),
    files=(KERNEL,),
)  # fmt: skip
MENU = BootMenu(entries=(ENTRY,))


def provider(**more):
    values = {"firmware": frozenset({UEFI}), "entries": frozenset(EntryKind), "can": frozenset(Capability)}
    return BootloaderProvider(name="bad", summary="bad", factory=print, **(values | more))


def filled(menu=MENU, wanted=MENU, program=None, firmware=UEFI, **facts):
    target = MemoryTarget()
    if program is None:
        program = pe_bytes([(".text", b"x")], 0x8664)
    files = {PROGRAM: program, KERNEL: b"kernel"}
    for location, data in files.items():
        if data:
            target.apply(WriteFile(location=location, data=data, why="t"))

    class Loader:
        def read_menu(self, _target):
            return menu

    given = BootFacts(architecture=Architecture.AMD64, firmware=frozenset({firmware}), **facts)
    check_filled(target, wanted, given, Loader(), ("bad", OWNER))


def test_what_starts_and_reads_back_passes():
    filled()
    filled(program=b"", firmware=BIOS)
    filled(program=b"", generic=False)
    foreign = dataclasses.replace(ENTRY, deployment_id="other.conf", foreign=True)
    filled(menu=BootMenu(entries=(foreign, ENTRY)))


TWO_INITRDS = BootArtifacts(
    kind=EntryKind.BLS, kernel_version="6", boot_digest="", kernel=BytesContent(b"k"), initrd=BytesContent(b"i"),
    extra_initrds=(BytesContent(b"j"),),
)  # fmt: skip
WITH_TWO_INITRDS = dataclasses.replace(ENTRY, artifacts=TWO_INITRDS)
ARM = pe_bytes([(".text", b"x")], 0xAA64)
GONE = Location(Volume.ESP, "/gone")


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ({"program": b""}, "ESP:/EFI/BOOT/BOOTX64.EFI is not there"),
        ({"program": b"MZ"}, "BOOTX64.EFI is no EFI program"),
        ({"program": ARM}, "BOOTX64.EFI is for arm64"),
        ({"menu": BootMenu(entries=())}, "its menu has 0 entries of 1"),
        (
            {"menu": BootMenu(entries=(dataclasses.replace(ENTRY, deployment_id="b" * 64),))},
            "offers bbbbbbbbbbbbbbbb in the place of aaaaaaaaaaaaaaaa",
        ),
        (
            {"menu": BootMenu(entries=(dataclasses.replace(ENTRY, arguments=("quiet",)),))},
            "other kernel arguments than planned (root=x)",
        ),
        ({"menu": BootMenu(entries=(dataclasses.replace(ENTRY, files=()),))}, "names no boot files"),
        (
            {"menu": BootMenu(entries=(dataclasses.replace(ENTRY, files=(GONE,)),))},
            "names ESP:/gone, which is not there",
        ),
        ({"wanted": BootMenu(entries=(WITH_TWO_INITRDS,))}, "names 1 boot files of 3: not every initrd"),
        ({"wanted": dataclasses.replace(MENU, timeout_seconds=7)}, "shown for None seconds, not for 7"),
    ],
)
def test_what_does_not_start_is_the_plugins_fault(faults, told):
    with pytest.raises(PluginError) as caught:
        filled(**faults)
    assert caught.value.message.startswith("the bootloader 'bad' of bad (outsider 3.14) planned what does not start: ")
    assert told in caught.value.message
    assert "outsider" in caught.value.hint


@pytest.mark.parametrize(
    ("declared", "asked", "missing"),
    [
        ({UEFI}, {UEFI}, None),
        ({UEFI}, {BIOS}, "bios"),
        ({UEFI}, {UEFI, BIOS}, "bios"),
        ({UEFI, BIOS}, {UEFI, BIOS}, None),
        ({BIOS}, {UEFI, Firmware.UBOOT}, "u-boot and uefi"),
    ],
)
def test_firmware_is_what_was_declared(declared, asked, missing):
    found = list(examine_firmware(provider(firmware=frozenset(declared)), frozenset(asked)))
    assert [finding.code for finding in found] == (["boot.firmware-unsupported"] if missing else [])
    if missing:
        assert f"does not start from {missing};" in found[0].message


class Host:
    """Plugins of which one is installed."""

    def __init__(self, offered):
        self.offered = {offered.name: offered}

    def collect(self, _family):
        registry = type("Registry", (dict,), {"get": dict.__getitem__})
        return registry(self.offered)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"install.bootloader": "bad", "install.firmware": "both"}, FirmwareError),
        ({"install.bootloader": "bad", "install.timeout": 3}, CapabilityError),
        ({"install.bootloader": "bad", "install.firmware": "uefi"}, None),
        ({"install.timeout": 3}, None),
        ({"install.bootloader": "unknown", "install.timeout": 3}, None),
    ],
)
def test_what_a_loader_cannot_do_is_refused_before_anything_is_fetched(settings, error):
    layers = Settings((Layer("command line", settings, Rank.COMMAND_LINE),))
    host = Host(provider(can=frozenset()))
    if error is None:
        refuse_early(layers, host)
        return
    with pytest.raises(error) as caught:
        refuse_early(layers, host)
    assert "bad" in caught.value.message
    assert "--bootloader" in caught.value.hint


def test_a_disk_whose_loader_nobody_reads_says_which(cfs, tmp_path):
    source = bootable.layout(tmp_path / "oci", latest=bootable.image()) + ":latest"
    disk = tmp_path / "disk.img"
    assert cfs.install(source, disk).returncode == 0
    told = "was installed with the bootloader 'systemd-boot' of cfs-systemd-boot, which no installed plugin reads"
    done = cfs("--disable-plugin", "systemd-boot", "status", disk, "--format", "json")
    assert done.returncode == 12
    assert [problem["message"] for problem in json.loads(done.stdout)["cfs"]["problems"]] == [told]
    done = cfs("--disable-plugin", "systemd-boot", "repo", "fsck", "--disk", disk)
    assert done.returncode != 0
    assert told in done.stdout + done.stderr


SLOPPY = """
from cfs_core.plugin import *
CFS_PLUGIN_API = (2, 0)

class Bad(Bootloader):
    def needs(self, facts):
        return [VolumeNeed(volume=Volume.ESP, bytes_needed=1 << 20, filesystems=("vfat",), why="test")]
    def check(self, facts):
        return []
    def plan_install(self, target, facts):
        return []
    def read_menu(self, target):
        return BootMenu(entries=())
    def plan_menu(self, target, current, wanted, facts):
        return []

@hookimpl
def cfs_register_bootloaders():
    yield BootloaderProvider(
        name="bad", summary="bad", factory=lambda context: Bad(), firmware=frozenset({Firmware.UEFI}),
        entries=frozenset(EntryKind), settings=(ProviderSetting(name="fast", kind="flag", summary="fast"),),
    )
"""


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "site")
    made.install("outsider", "3.14", {"bad": "bad_plugin"}, {"bad_plugin.py": SLOPPY})
    return made


def plan(site, tmp_path, *options):
    """Have an install with the sloppy loader planned; *options* are those of `cfs` itself."""
    source = bootable.layout(tmp_path / "oci", latest=bootable.image()) + ":latest"
    words = ("install", "to-disk", "--source-imgref", source, "--bootloader", "bad", "--dry-run")
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "CFS_DISABLE_PLUGINS": ""}
    return site.cfs(*options, *words, str(tmp_path / "disk.img"), **environ)


def test_a_loader_that_puts_nothing_where_firmware_looks_is_refused_by_name(site, tmp_path):
    done = plan(site, tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert "the bootloader 'bad' of bad (outsider 3.14) planned what does not start" in done.stderr
    assert "check the host" not in done.stderr


def test_settings_of_a_provider_are_those_it_declares(site, tmp_path):
    file = tmp_path / "cfs.toml"
    file.write_text("[bootloader.bad]\nfast = true\n[bootloader.bade]\nx = 1\n")
    done = site.cfs("--config", str(file), "config", "show", "--origin", CFS_DISABLE_PLUGINS="")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["bootloader.bad.fast", "True", str(file)] in [row[:3] for row in rows]
    assert "transport.registry.read-timeout" in done.stdout
    assert "bootloader.bade" in done.stderr
    assert "no bootloader has that name" in done.stderr
    for text, told in (("slow = 1", "is not a setting of the bootloader 'bad'"), ("fast = 1", "must be true or false")):
        file.write_text(f"[bootloader.bad]\n{text}\n")
        done = plan(site, tmp_path, "--config", str(file))
        assert done.returncode == 3
        assert told in done.stderr
        assert str(file) in done.stderr
