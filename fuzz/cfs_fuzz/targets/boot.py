"""What loaders read: entries, menus, environment blocks; and what cfs and bootc keep about deployments."""

from __future__ import annotations

import contextlib
import itertools

from cfs_core.bls.entry import edit_entry, parse_entry, split_arguments
from cfs_core.bls.version import compare_versions
from cfs_core.deploy.authorized_keys import check_authorized_keys
from cfs_core.image.artifacts import kernel_order, parse_os_release
from cfs_core.lifecycle.records import RECORDS, Records
from cfs_core.model.origin import OriginFile
from cfs_core.plugin import BootError, CfsError, Location, Volume, WriteFile
from cfs_core.testing import MemoryTarget
from cfs_fuzz.target import target
from cfs_grub import environment
from cfs_grub.order import Sorting, best_first
from cfs_grub.state import State
from cfs_prove.guest import parse_mountinfo, parse_report
from cfs_systemd_boot.menu import read_menu
from cfs_testkit.disks import put

HEX = "ab" * 64
KERNEL = f"/EFI/Linux/bootc_composefs-{HEX}/vmlinuz"
ENTRY = f"title Debian\nversion 13\nlinux {KERNEL}\ninitrd /EFI/Linux/a/initrd\noptions rw composefs={HEX} quiet\n"
_KEYS = (
    b"title ",
    b"linux ",
    b"initrd ",
    b"options ",
    b"efi ",
    b"uki ",
    b"sort-key ",
    b"machine-id ",
    b"version ",
    b"architecture ",
    b"composefs=",
    b"timeout ",
    b"default ",
    b"\r\n",
    b"+3-1.conf",
    "٣".encode(),
)


def entries() -> list[bytes]:
    """Return an entry, and loader.conf behind it."""
    unified = f"title x\nefi /EFI/Linux/bootc/bootc_composefs-{HEX}.efi\nsort-key a\nmachine-id 0\narchitecture x64\n"
    return [f"{ENTRY}\0timeout 5\ndefault bootc_*\n".encode(), f"{unified}\0timeout menu-force\n".encode()]


@target("bls", entries, (*_KEYS, b"\0"), largest=8192)
def read_entries(data: bytes) -> None:
    """An entry file and loader.conf, as systemd-boot's menu; the entry is edited too, and its name is what it says."""
    entry, _, conf = data.partition(b"\0")
    fields = parse_entry(entry)
    split_arguments(fields.first("options") or "")
    edit_entry(entry, {"options": "a b", "title": None})
    words = entry.decode("utf-8", "replace").split()[:8]
    for a, b in itertools.pairwise(words):
        compare_versions(a, b)
        kernel_order(a)
    for sorting in Sorting:
        best_first(words, sorting)
    disk = MemoryTarget(volumes=[Volume.ESP])
    put(disk, Location(Volume.ESP, KERNEL), b"kernel")
    put(disk, Location(Volume.ESP, "/loader/entries/bootc_debian-1-2+3-1.conf"), entry)
    put(disk, Location(Volume.ESP, "/loader/entries/other.conf"), entry[::-1])
    put(disk, Location(Volume.ESP, "/loader/loader.conf"), conf)
    read_menu(disk)


GRUB_CFG = """set default="0"
if [ -s $prefix/grubenv ]; then load_env; fi
menuentry 'Debian' --class os --id a { search --fs-uuid x; linux /boot/vmlinuz root=x "a b" \\
  quiet; initrd /boot/initrd }
submenu 'More' --id m { menuentry "old" { linux /old } }
blscfg
function f { echo $1; }
"""


def scripts() -> list[bytes]:
    """Return grub.cfg with an entry that it reads and an environment block, and one of ours."""
    env = environment.edit(None, {"saved_entry": "a", "boot_success": "1"})
    return [b"\0".join([GRUB_CFG.encode(), ENTRY.encode(), env]), b"\0".join([b"set default=x", ENTRY.encode(), env])]


@target(
    "grub",
    scripts,
    (
        b"menuentry ",
        b"submenu ",
        b"{",
        b"}",
        b"'",
        b'"',
        b"\\",
        b"$",
        b"${",
        b"if ",
        b"fi",
        b"blscfg",
        b"set default=",
        b"--id ",
        b"# GRUB Environment Block\n",
        b"{ " * 2000,
        b"if x; then " * 2000,
    ),
    largest=16384,
)
def read_grub(data: bytes) -> None:
    """GRUB's menu: grub.cfg, an entry and the environment block."""
    script, entry, env = [*data.split(b"\0"), b"", b""][:3]
    with contextlib.suppress(BootError):
        environment.edit(env, {"saved_entry": "b", "next_entry": None})
    disk = MemoryTarget(volumes=[Volume.ESP, Volume.BOOT])
    for volume in (Volume.ESP, Volume.BOOT):
        for folder in ("/grub2", "/grub"):
            put(disk, Location(volume, f"{folder}/grub.cfg"), script)
            put(disk, Location(volume, f"{folder}/grubenv"), env)
        put(disk, Location(volume, "/loader/entries/bootc_debian-1-2+3-1.conf"), entry)
    state = State.read(disk)
    state.choices()
    state.menu()
    state.fixed_default  # noqa: B018 - a property that reads
    state.other_texts()


def origins() -> list[bytes]:
    """Return an origin file and what cfs keeps about a machine."""
    origin = OriginFile(image="docker://a/b:c", boot_digest=HEX, manifest_digest=f"sha256:{'0' * 64}")
    action = Records().with_pin(HEX, pinned=True).with_left("sha256:0").action()
    assert isinstance(action, WriteFile)
    more = b'{"version": 1, "pinned": ["a"], "failed": {"x": {"manifest_digest": "y", "tries": 2, "reason": "z"}}}'
    return [b"\0".join([origin.format().encode(), action.data]), b"\0".join([b"[origin]\n[cfs]\nfile.0=x\n", more])]


@target(
    "state",
    origins,
    (
        b"[origin]",
        b"[boot]",
        b"[cfs]",
        b"file.0 = ",
        b" ESP:/",
        b'"tries": ',
        b'"failed"',
        b"[" * 2000,
        b"1e999",
        b"\0",
        b"=%(a)s",
    ),
    largest=8192,
)
def read_state(data: bytes) -> None:
    """An origin file and the records of a machine: what is malformed says nothing, or is no origin file."""
    origin, _, records = data.partition(b"\0")
    with contextlib.suppress(ValueError):
        OriginFile.parse(origin.decode()).format()
    disk = MemoryTarget(volumes=[RECORDS.volume])
    put(disk, RECORDS, records)
    Records.read(disk).action()


_REPORT = b"cfs-prove N state x\ncfs-prove N cmdline a\ncfs-prove N mountinfo 1 1 0:1 / / rw - overlay x lowerdir=/\n"


@target(
    "guest-report",
    lambda: [_REPORT, b'ID=a\nPRETTY_NAME="b c"\n', b"ssh-ed25519 AAAA x\n"],
    (b"cfs-prove N ", b"mountinfo ", b"\r\n", b'NAME="', b"ssh-rsa ", b"verity=require"),
    largest=8192,
)
def read_report(data: bytes) -> None:
    """What a guest reports; os-release; keys that somebody gives for root."""
    parse_report(data, "N")
    text = data.decode("utf-8", "replace")
    for line in text.splitlines():
        parse_mountinfo(line)
    parse_os_release(text)
    with contextlib.suppress(CfsError):
        check_authorized_keys(data)
