"""What the judge of initramfs says, and why."""

from __future__ import annotations

import dataclasses
import lzma
import struct

import pytest

from cfs_core.plugin import Architecture, BootArtifacts, BytesContent, EntryKind, ImageError
from cfs_initramfs.examine import EarlyBoot
from cfs_testkit.initrds import cpio
from cfs_testkit.programs import program
from cfs_testkit.trees import image_of

VERSION = "6.12.0-test"
UNITS = "usr/lib/systemd/system"
INIT = {"init": "-> usr/lib/systemd/systemd", "usr/lib/systemd/systemd": program()}
MODULES = {
    f"usr/lib/modules/{VERSION}/kernel/fs/erofs/erofs.ko.xz": "m",
    f"usr/lib/modules/{VERSION}/kernel/fs/overlayfs/overlay.ko.xz": "m",
}
CFS = {
    "usr/lib/cfs/cfs-setup-root": "#!/bin/sh\n# CFS_SETUP_ROOT_VERSION=1\n",
    f"{UNITS}/initrd-root-fs.target.requires/cfs-setup-root.service": "-> ../cfs-setup-root.service",
    **INIT,
    **MODULES,
}
BOOTC = {
    "usr/lib/bootc/initramfs-setup": "ELF",
    f"{UNITS}/initrd-root-fs.target.wants/bootc-root-setup.service": "-> ../bootc-root-setup.service",
    **INIT,
    **MODULES,
}
COMPOSEFS_RS = {
    "bin/composefs-setup-root": "ELF",
    "etc/systemd/system/initrd-root-fs.target.wants/composefs-setup-root.service": "-> x",
    **INIT,
    **MODULES,
}
CONFIG = "/usr/lib/composefs/setup-root-conf.toml"
NOTHING = {"/usr/lib/os-release": "ID=x\n"}


def artifacts(files, **changes):
    made = BootArtifacts(
        kind=EntryKind.BLS,
        kernel_version=VERSION,
        boot_digest="",
        kernel=BytesContent(b"k"),
        initrd=None if files is None else BytesContent(cpio(files)),
    )
    return dataclasses.replace(made, **changes)


def verdict(files, image=NOTHING, storage="composefs", **changes):
    return EarlyBoot().examine(artifacts(files, **changes), image_of(image), storage)


def without(files, word):
    kept = {path: content for path, content in files.items() if word not in path}
    assert len(kept) < len(files)
    return kept


@pytest.mark.parametrize(
    ("files", "handler", "arguments"),
    [(CFS, "cfs", ()), (BOOTC, "bootc", ("rw",)), (COMPOSEFS_RS, "composefs-rs", ("rw",)), (BOOTC | CFS, "cfs", ())],
)
def test_who_will_mount_the_root(files, handler, arguments):
    said = verdict(files)
    assert (said.supported, said.handler, said.arguments) == (True, handler, arguments)


@pytest.mark.parametrize(
    "hook", ["var/lib/dracut/hooks/pre-pivot/20-pre-pivot.sh", "hooks/cfs", "scripts/local-bottom/cfs",
             "usr/lib/dracut/hooks/pre-pivot/20-pre-pivot.sh", "lib/dracut/hooks/pre-pivot/20-pre-pivot.sh"]
)  # fmt: skip
def test_initramfs_without_systemd(hook):
    assert verdict(without(CFS, "cfs-setup-root.service") | {hook: "x"}).supported


@pytest.mark.parametrize("files", [CFS, BOOTC, COMPOSEFS_RS])
def test_code_that_nothing_starts_is_refused(files):
    said = verdict(without(files, ".service"))
    assert said.supported is False
    assert "nothing starts it" in said.reason
    assert said.hint


def test_a_link_at_the_wrong_place_starts_nothing():
    wrong = without(CFS, "cfs-setup-root.service") | {"initrd-root-fs.target.wants/cfs-setup-root.service": "-> x"}
    assert verdict(wrong).supported is False


def test_a_script_of_another_version_is_refused():
    said = verdict(CFS | {"usr/lib/cfs/cfs-setup-root": "#!/bin/sh\n"})
    assert said.supported is False
    assert "another version" in said.reason


@pytest.mark.parametrize("module", ["erofs", "overlay"])
def test_missing_modules_are_named_unless_built_in(module):
    files = without(CFS, f"{module}.ko")
    said = verdict(files)
    assert said.supported is False
    assert module in said.reason
    folder = {"erofs": "erofs", "overlay": "overlayfs"}[module]
    listing = f"kernel/fs/ext4/ext4.ko\nkernel/fs/{folder}/{module}.ko\n"
    assert verdict(files, {f"/usr/lib/modules/{VERSION}/modules.builtin": listing}).supported


def test_modules_of_another_kernel_are_refused():
    said = verdict(CFS, kernel_version="6.13.0")
    assert said.supported is False
    assert VERSION in said.reason
    assert "6.13.0" in said.reason


def test_unusual_places_of_modules():
    files = {path.replace("usr/lib/modules", "lib/modules").replace(".xz", ".zst"): data for path, data in CFS.items()}
    assert verdict(files).supported


def test_nothing_recognised_is_no_opinion():
    assert verdict({"init": "x"}).supported is None
    assert verdict(CFS, storage="plain").supported is None


def test_no_initramfs_is_refused():
    said = verdict(None)
    assert said.supported is False
    assert "no initramfs" in said.reason


def test_a_compression_that_cannot_be_read_is_refused_with_advice():
    said = verdict(CFS, initrd=BytesContent(b"\x89LZO\0\r\n\x1a\n" + bytes(64)))
    assert said.supported is False
    assert "lzo" in said.reason


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"init": "-> usr/lib/systemd/nothing"}, "/init of the initramfs cannot be started: it is a link to usr/lib"),
        ({"init": "just words\n"}, "neither an ELF file nor a script"),
        ({"init": ""}, "neither an ELF file nor a script"),
        ({"init": "#!/bin/sh\n"}, "its interpreter /bin/sh: it is not there"),
        (
            {"init": "#!/bin/sh\n", "bin": "-> usr/bin", "usr/bin/sh": program("arm64")},
            "for arm64, and the kernel is for",
        ),
        (
            {"usr/lib/systemd/systemd": program(interpreter="/lib64/ld.so")},
            "its interpreter /lib64/ld.so: it is not there",
        ),
        ({"init": "-> other", "other": "-> init"}, "cannot be started"),
    ],
)
def test_an_init_that_no_kernel_starts_is_refused(files, problem):
    said = verdict(CFS | files, architecture=Architecture.AMD64)
    assert said.supported is False
    assert problem in said.reason
    assert said.hint


def test_links_and_interpreters_of_an_init_are_followed():
    loader = {"lib64": "-> usr/lib64", "usr/lib64/ld.so": "-> ../lib/ld.so", "usr/lib/ld.so": program()}
    assert verdict(CFS | {"usr/lib/systemd/systemd": program(interpreter="/lib64/ld.so"), **loader}).supported
    shell = {"init": "#! /bin/sh -e\n", "bin/sh": "-> busybox", "bin/busybox": program()}
    assert verdict(CFS | shell).supported


def test_no_init_at_all():
    said = verdict({path: data for path, data in CFS.items() if path != "init"})
    assert (said.supported, "/init of the initramfs cannot be started: it is not there" in said.reason) == (False, True)
    other = {"usr/sbin/start": program()}
    assert verdict(CFS | other, sealed_arguments=("rdinit=/sbin/start", "rdinit=/usr/sbin/start")).supported
    assert verdict(CFS | other, sealed_arguments=("rdinit=/sbin/start",)).supported is False


@pytest.mark.parametrize("place", ["/usr/lib/modules/{}/config", "/boot/config-{}"])
def test_every_part_must_be_compressed_as_the_kernel_knows(place):
    packed = BytesContent(cpio({"kernel/x.bin": "x"}) + lzma.compress(cpio(CFS), check=lzma.CHECK_CRC32))
    config = "CONFIG_RD_GZIP=y\n# CONFIG_RD_XZ is not set\n"
    said = verdict(CFS, {place.format(VERSION): config}, initrd=packed)
    assert said.supported is False
    assert "compressed with xz" in said.reason
    assert "CONFIG_RD_XZ" in said.hint
    assert verdict(CFS, {place.format(VERSION): "CONFIG_RD_XZ=y\n"}, initrd=packed).supported
    assert verdict(CFS, initrd=packed).supported


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ('[etc]\nmount = "transient"\n', True),
        ("[root]\ntransient = true\n", True),
        ("[etc]\nmount = 3\n", False),
        ('[var]\nmount = "sideways"\n', False),
        ('etc = { mount = "none" }\n', False),
        ("[etc\n", False),
        ("\xff", False),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_settings_that_would_stop_the_boot_are_found_before(text, fine, inside):
    data = text.encode("latin-1")
    said = verdict(CFS | ({CONFIG[1:]: data} if inside else {}), NOTHING if inside else {CONFIG: data})
    assert said.supported is fine


def pe(sections):
    """Build a PE file of these sections, as far as anybody looks."""
    table, body = b"", b""
    start = 64 + 24 + 40 * len(sections)
    for name, data in sections.items():
        table += struct.pack("<8sIIII16x", name.encode(), len(data), 0, len(data), start + len(body))
        body += data
    head = b"MZ" + bytes(58) + struct.pack("<I", 64)
    return head + struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, 0, 0) + table + body


def test_the_initramfs_of_a_unified_kernel_image():
    uki = pe({".osrel": b"ID=x\n", ".initrd": cpio(CFS), ".linux": b"MZ"})
    assert verdict(None, kind=EntryKind.UKI, uki=BytesContent(uki)).supported
    assert verdict(None, uki=BytesContent(pe({".linux": b"MZ"}))).supported is False


@pytest.mark.parametrize("cut", [1, 63, 70, 100, 150])
def test_a_unified_kernel_image_cut_short_is_no_yes(cut):
    data = pe({".initrd": cpio(CFS)})[:cut]
    try:
        assert verdict(None, uki=BytesContent(data)).supported is False
    except ImageError as error:
        assert "UKI" in str(error)  # noqa: PT017 - either answer is right
