"""Images that would not start are refused before anything is written, and `cfs image check` says so without a disk.

Every image is installed too: what the check says and what the install does are the same.
"""

from __future__ import annotations

import gzip
import json
import mmap
from xml.etree import ElementTree as ET

import pytest
from builders import bootable
from builders.pe import pe_bytes, uki_bytes
from grub_files import program as grub

from cfs_testkit.builders.oci import File, Image, Link, layer
from cfs_testkit.programs import kernel, optional_header, program

M = bootable.MODULES
KERNEL, INITRD = f"{M}/vmlinuz", f"{M}/initramfs.img"
LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
GRUB = {LOADER: None, "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": File(grub())}
UKI = "boot/EFI/Linux/test.efi"


def uki(**sections):
    return File(uki_bytes("x=1", version=bootable.KERNEL_VERSION, initrd=bootable.initramfs(), **sections))


def executable(data):
    return File(data, mode=0o755)


REFUSED = {
    "empty kernel": ({KERNEL: b""}, "boot.kernel", "it is empty"),
    "pointer instead of a kernel": (
        {KERNEL: "version https://example.com/spec/v1\noid sha256:00\nsize 1\n"}, "boot.kernel", "large-file store"
    ),
    "kernel cut in its header": ({KERNEL: File(kernel()[:100])}, "boot.kernel", "ends in its section table"),
    "kernel cut at its end": ({KERNEL: File(kernel()[:-512])}, "boot.kernel", "ends outside of the file"),
    "text for GRUB": (GRUB | {KERNEL: "not a kernel\n"}, "boot.kernel", "text file that begins with"),
    "no EFI stub": ({KERNEL: File(kernel(stub=False))}, "boot.kernel-form", "systemd-boot starts programs for UEFI"),
    "no bzImage for GRUB": (
        GRUB | {KERNEL: File(pe_bytes([(".text", b"x")]))}, "boot.kernel-form", "GRUB on amd64 starts bzImages only"
    ),
    "empty initramfs": ({INITRD: b""}, "boot.initrd", "it is empty"),
    "initramfs of another kind": (
        {INITRD: b"\x04\x22\x4d\x18" + bytes(99)}, "boot.initrd", "begins with the bytes 04 22"
    ),
    "initramfs without init": (
        {INITRD: File(bootable.initramfs().replace(b"init\0", b"inix\0", 1))}, "boot.initramfs", "/init of the"
    ),
    "initramfs of another CPU": (
        {INITRD: File(bootable.initramfs("arm64"))}, "boot.initramfs", "program for arm64, and the kernel is for amd64"
    ),
    "initramfs named as Debian does": (
        {INITRD: None, f"{M}/initrd.img": File(bootable.initramfs())}, "boot.initramfs", f"/{M}/initrd.img is"
    ),
    "initramfs in /boot of another kernel": (
        {INITRD: None, "boot/initrd.img-6.9": File(bootable.initramfs())}, "boot.initramfs", "has no initramfs"
    ),
    "kernel in /boot of which there are no modules": (
        {KERNEL: None, INITRD: None, "boot/vmlinuz-6.9": File(kernel())}, "image.no-kernel",
        "/boot/vmlinuz-6.9 is there",
    ),
    "/usr that is not merged": (
        {KERNEL: None, INITRD: None, f"{M}/modules.builtin": None, "lib/modules/6.9/vmlinuz": File(kernel())},
        "image.no-kernel", "neither /usr/lib/modules/VERSION/vmlinuz",
    ),
    "no /sysroot, as in every package of a distribution": (
        {"sysroot": None}, "image", "the image has no /sysroot: the root is read-only",
    ),
    "no mount points": (
        dict.fromkeys(("run", "proc", "sys", "dev", "tmp")), "image", "the image has no /dev, /proc, /run, /sys, /tmp:"
    ),
    "/var is a link": ({"var/lib/state": None, "var": Link("run/var")}, "image", "/var of the image is no directory"),
    "no /var": ({"var/lib/state": None}, "image", "the image has no /var:"),
    "no /boot, and /tmp is a link": (
        {"boot": None, "tmp": Link("var/tmp")}, "image", "the image has no /boot and /tmp of the image is no directory"
    ),
    "init leads nowhere": (
        {"usr/sbin/init": Link("../lib/systemd/systemd")},
        "boot.init",
        "/sbin/init of the image cannot be started: it is a "
    ),
    "no init": ({"usr/sbin/init": None}, "boot.init", "the image has no init: none of /usr/lib/systemd/systemd, "),
    "init is no program": ({"usr/sbin/init": executable(b"x")}, "boot.init", "it is no program"),
    "init is not executable": ({"usr/sbin/init": File(program())}, "boot.init", "it is not executable (mode 0644)"),
    "init of another CPU": ({"usr/sbin/init": executable(program("arm64"))}, "boot.init", "it is a program for arm64"),
    "no interpreter": (
        {"usr/sbin/init": executable(program(interpreter="/lib64/ld.so"))}, "boot.init", "/lib64/ld.so: it is not there"
    ),
    "no shell": ({"usr/sbin/init": executable(b"#!/bin/sh\n")}, "boot.init", "interpreter /bin/sh: it is not there"),
    "no os-release": ({"usr/lib/os-release": None, "etc/os-release": None}, "image.no-os-release", "switch-root"),
    "flags of another filesystem": (
        {"usr/lib/bootc/kargs.d/20.toml": 'kargs = ["rootflags=subvol=@"]\n'}, "boot.karg-root", "an option of btrfs"
    ),
    "another image on the command line": (
        {"usr/lib/bootc/kargs.d/20.toml": f'kargs = ["composefs={"0" * 128}"]\n'},
        "boot.karg-composefs",
        "would mount another image",
    ),
    "no image on the command line": (
        {"usr/lib/bootc/kargs.d/20.toml": 'kargs = ["composefs=0"]\n'}, "boot.karg-composefs", "mount another image"
    ),
    "loader cut at its end": (
        {LOADER: File(pe_bytes([(".sd", b"#### LoaderInfo: systemd-boot 257 ####"), (".text", b"x" * 900)])[:-512])},
        "boot.loader-damaged",
        "ends outside of the file",
    ),
    "loader that is no program for UEFI": (
        {LOADER: File(pe_bytes([(".s", b"#### LoaderInfo: systemd-boot 257 ####")], optional=optional_header(3)))},
        "boot.loader-damaged",
        "its subsystem is 3",
    ),
    "UKI without an EFI stub inside": ({UKI: uki(linux=kernel(stub=False))}, "boot.uki", "has no EFI stub"),
    "UKI with text inside": ({UKI: uki(linux=b"text\n")}, "boot.uki", "it is a text file"),
    "UKI with another initramfs": (
        {UKI: File(uki_bytes("x=1", version="6.12", initrd=b"initrd"))}, "boot.initrd", "the initramfs in /boot/EFI"
    ),
    "addon for another CPU": (
        {UKI: uki(), f"{UKI}.extra.d/a.addon.efi": File(pe_bytes([(".cmdline", b"a=1\0")], 0xAA64))},
        "image.architecture",
        "the addon a.addon.efi of the image is for arm64",
    ),
}  # fmt: skip

TAKEN = {
    "everything right": ({}, None, ""),
    "GRUB": (GRUB, None, ""),
    "an id for every machine": ({"etc/machine-id": f"{'0123456789abcdef' * 2}\n"}, "image.machine-id", "every machine"),
    "an id to be made": ({"etc/machine-id": "uninitialized\n"}, None, ""),
    "a shell script as init": (
        {"usr/sbin/init": executable(b"#! /usr/bin/sh -e\n"), "usr/bin/sh": executable(program())}, None, ""
    ),
    "an init of another CPU beside one that fits": (
        {"usr/lib/systemd/systemd": executable(program("arm64"))}, "boot.init", "/usr/lib/systemd/systemd of the image"
    ),
    "devices that are not there": (
        {"etc/fstab": "# x\nUUID=deadbeef-0000-0000-0000-000000000000 / ext4 defaults 0 1\n/dev/sda9 none swap sw\n"
                      "LABEL=x /mnt ext4 nofail 0 0\ntmpfs /tmp tmpfs\n/dev/mapper/a /srv xfs defaults 0 0\n"},
        "image.fstab",
        "line 2: UUID=deadbeef-0000-0000-0000-000000000000 on /; line 3: /dev/sda9 on none; line 6: /dev/mapper/a on",
    ),
    "a newer kernel without initramfs": (
        {"usr/lib/modules/6.13.0-new/vmlinuz": File(kernel())}, "boot.kernel-left-out",
        "kernel 6.13.0-new is left out: /usr/lib/modules/6.13.0-new/initramfs.img is not there",
    ),
    "a newer kernel that is none": (
        {"usr/lib/modules/6.13.0-new/vmlinuz": "text", "usr/lib/modules/6.13.0-new/initramfs.img": b"x"},
        "boot.kernel-left-out",
        "/usr/lib/modules/6.13.0-new/vmlinuz: it is no kernel: it is a text file",
    ),
    "a newer kernel in /boot without initramfs": (
        {"usr/lib/modules/6.13.0/modules.dep": "", "boot/vmlinuz-6.13.0": File(kernel())}, "boot.kernel-left-out",
        "kernel 6.13.0 is left out: /usr/lib/modules/6.13.0/initramfs.img is not there",
    ),
    "a newer kernel under another name": (
        {"usr/lib/modules/6.13.0/Image": File(kernel())}, "boot.kernel-left-out",
        "/usr/lib/modules/6.13.0/vmlinuz is not there (/usr/lib/modules/6.13.0/Image is)",
    ),
    "an older kernel": (
        {f"usr/lib/modules/6.9/{name}": bootable.tree()[f"{M}/{name}"] for name in ("vmlinuz", "initramfs.img")},
        "boot.kernel-left-out",
        "kernel 6.9 is left out: kernel 6.12.1-test is started",
    ),
    "no EFI stub, for GRUB": (GRUB | {KERNEL: File(kernel(stub=False))}, None, ""),
    "flags of its filesystem": (
        {"usr/lib/bootc/kargs.d/20.toml": 'kargs = ["rootflags=commit=30,noatime"]\n'}, None, ""
    ),
}  # fmt: skip


def layout(tmp_path, files, architecture="amd64", **choices):
    made = Image([layer(bootable.tree(architecture, **choices, **files))], architecture=architecture)
    return bootable.layout(tmp_path / "oci", t=made) + ":t"


def judged(cli, tmp_path, source, *options):
    """Return the judgement, after it was compared with what an install does."""
    status, out, _ = cli("image", "check", source, "--format", "json", *options)
    (judgement,) = json.loads(out)["judgements"]
    done, _, err = cli("install", "to-disk", "--source-imgref", source, *options, tmp_path / "disk.img")
    assert (judgement["exit_status"], done) == (status, status), err
    code = f"[{judgement['code']}]" if status else ""
    assert code in err
    for finding in judgement["findings"]:
        assert (
            f"[{finding['code']}]" in err
            or f"more: {finding['code']}" in err
            or status
            or finding["severity"] == "note"
        )
    assert (tmp_path / "disk.img").exists() is (status == 0)
    return judgement


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_start_is_refused(cli, tmp_path, name):
    files, code, message = REFUSED[name]
    judgement = judged(cli, tmp_path, layout(tmp_path, files))
    assert judgement["result"] == "refused"
    errors = [finding for finding in judgement["findings"] if finding["severity"] == "error"]
    found = {finding["code"]: finding for finding in reversed(errors)}
    assert code in found
    assert message in found[code]["message"]
    assert found[code]["hint"]


@pytest.mark.parametrize("name", TAKEN)
def test_what_starts_is_taken_and_what_is_odd_is_told(cli, tmp_path, name):
    files, code, message = TAKEN[name]
    judgement = judged(cli, tmp_path, layout(tmp_path, files))
    assert judgement["result"] == "bootable"
    assert [finding["code"] for finding in judgement["findings"]] == ([code] if code else [])
    assert message in (judgement["findings"] or [{"message": ""}])[0]["message"]
    assert judgement["kernel"] == f"/{KERNEL}"


def test_a_compressed_kernel_is_for_loaders_that_unpack_it(cli, tmp_path):
    packed = {KERNEL: File(gzip.compress(kernel("arm64")))}
    judgement = judged(cli, tmp_path, layout(tmp_path, packed, "arm64"))
    assert judgement["code"] == "boot.kernel-form"
    (finding,) = judgement["findings"]
    assert "this kernel has the form gzip" in finding["message"]
    assert "--bootloader" in finding["hint"]


def test_an_image_for_another_cpu_is_judged_as_such(cli, tmp_path):
    assert judged(cli, tmp_path, layout(tmp_path, {}, "arm64"))["result"] == "bootable"


def test_a_kernel_for_another_cpu(cli, tmp_path):
    assert judged(cli, tmp_path, layout(tmp_path, {}, kernel="arm64"))["code"] == "image.architecture"


def test_what_init_names_must_be_there(cli, tmp_path):
    source = layout(tmp_path, {"usr/bin/shell": executable(program())})
    judgement = judged(cli, tmp_path, source, "--karg", "init=/usr/bin/nothing")
    assert judgement["code"] == "boot.init"
    assert "'init=/usr/bin/nothing' of --karg" in judgement["findings"][0]["message"]
    assert judged(cli, tmp_path, source, "--karg", "init=/usr/bin/shell")["result"] == "bootable"


def test_an_image_without_a_kernel_says_what_it_has(cli, tmp_path):
    files = {KERNEL: None, "boot/TEST.EFI": uki(), "efi/b.efi": uki()}
    judgement = judged(cli, tmp_path, layout(tmp_path, files))
    assert judgement["code"] == "image.no-kernel"
    assert "/efi/b.efi" in judgement["findings"][0]["message"]


def test_combinations_are_judged_one_by_one(cli, tmp_path):
    source = layout(tmp_path, {"usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": File(grub())})
    names = [word for name in ("grub", "systemd-boot") for word in ("--bootloader", name)]
    status, out, err = cli(
        "image", "check", source, *names, "--firmware", "uefi", "--firmware", "bios", "--format", "json"
    )
    result = json.loads(out)
    found = [(each["bootloader"], *each["firmware"], each["code"]) for each in result["judgements"]]
    assert found == [
        ("grub", "uefi", None),
        ("grub", "bios", "boot.loader-missing"),
        ("systemd-boot", "uefi", None),
        ("systemd-boot", "bios", "boot.firmware-unsupported"),
    ]
    assert (status, result["result"]) == (11, "refused")
    assert "[boot.loader-missing]" in err


def test_the_result_as_junit_and_as_sarif(cli, tmp_path):
    source = layout(tmp_path, {"etc/machine-id": f"{'0' * 32}\n", "usr/sbin/init": executable(b"\x1b[31m\0")})
    status, out, _ = cli("image", "check", source, "--format", "junit")
    suite = ET.fromstring(out.encode())
    assert (status, suite.get("tests"), suite.get("failures")) == (11, "1", "1")
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "boot.init"
    (others,) = suite.iter("system-out")
    assert "[image.machine-id]" in others.text
    status, out, _ = cli("image", "check", source, "--format", "sarif")
    (sarif,) = json.loads(out)["runs"]
    assert {result["ruleId"]: result["level"] for result in sarif["results"]} == {
        "boot.init": "error", "image.machine-id": "warning"
    }  # fmt: skip
    assert {rule["id"] for rule in sarif["tool"]["driver"]["rules"]} == {"boot.init", "image.machine-id"}


def test_the_plan_names_the_kernel(cli, tmp_path):
    newer = {"usr/lib/modules/6.13/vmlinuz": bootable.tree()[KERNEL]}
    plan = ("install", "to-disk", "--source-imgref", layout(tmp_path, newer), "--dry-run", tmp_path / "disk.img")
    _, out, _ = cli(*plan)
    assert f"kernel    {bootable.KERNEL_VERSION} (/{KERNEL})" in out
    _, out, _ = cli(*plan, "--format", "json")
    assert (json.loads(out)["kernel"], json.loads(out)["kernel_version"]) == (f"/{KERNEL}", bootable.KERNEL_VERSION)


def test_a_uki_leaves_its_own_kernel_out_without_a_word(cli, tmp_path):
    judgement = judged(cli, tmp_path, layout(tmp_path, {UKI: uki()}))
    assert judgement["kernel"] == f"/{UKI}"
    assert "boot.kernel-left-out" not in {finding["code"] for finding in judgement["findings"]}


def test_the_result_as_text(cli, tmp_path):
    source = layout(tmp_path, {})
    status, out, err = cli("image", "check", source)
    assert status == 0
    assert out == (f"{source} (systemd-boot, uefi, ext4): bootable\n  kernel {bootable.KERNEL_VERSION} (/{KERNEL})\n")
    assert err == ""


def test_what_cannot_be_judged_is_an_error(cli, tmp_path):
    status, out, err = cli("image", "check", f"oci:{tmp_path}/nothing:t", "--format", "json")
    assert (status != 0, out) == (True, "")
    assert "error: " in err


def overwrite(disk, what, text):
    """Put *text* where *what* is first."""
    with disk.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = data.find(what)
        data[at : at + len(text)] = text


@pytest.mark.parametrize(
    ("damage", "code"),
    [(("vmlinuz", b"x" * 600), "boot.kernel"), (("initrd", b"not an initrd"), "boot.initrd")],
)
def test_boot_files_are_read_on_the_disk_too(cli, tmp_path, damage, code):
    source, disk = layout(tmp_path, {}), tmp_path / "disk.img"
    assert cli("install", "to-disk", "--source-imgref", source, disk)[0] == 0
    name, text = damage
    overwrite(disk, bootable.tree()[KERNEL if name == "vmlinuz" else INITRD].data[:512], text)
    status, out, _ = cli("repo", "fsck", "--disk", disk)
    assert status == 9
    assert f"{code}: ESP:/EFI/Linux/" in out
    assert "it is" in out


def test_a_loader_is_read_on_the_disk_too(cli, tmp_path):
    source, disk = layout(tmp_path, {}), tmp_path / "disk.img"
    assert cli("install", "to-disk", "--source-imgref", source, disk)[0] == 0
    for _ in range(2):  # its own place, and the removable path
        overwrite(disk, bootable.tree()[LOADER].data[:512], b"x" * 512)
    status, out, _ = cli("repo", "fsck", "--disk", disk)
    assert status == 9
    assert "boot.loader-damaged: ESP:/EFI/BOOT/BOOTX64.EFI: it is no program for UEFI" in out


PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


@pytest.mark.parametrize(
    "text",
    [
        f"{PUBLIC} me@here\n",
        f"# c\n\n{PUBLIC}\r\n",
        f'no-pty,command="echo \\"a b\\"" {PUBLIC} me\n',
        f"restrict {PUBLIC}",
    ],
)
def test_public_keys_are_taken(cli, tmp_path, text):
    keys = tmp_path / "keys"
    keys.write_bytes(text.encode())
    source = layout(tmp_path, {})
    assert (
        cli("install", "to-disk", "--source-imgref", source, "--root-ssh-authorized-keys", keys, tmp_path / "d.img")[0]
        == 0
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n", "holds a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nc2VjcmV0\n", "holds a private key"),
        (f"{PUBLIC}\nword\n", "line 2 of the file"),
        (PUBLIC.replace("ed25519", "rsa"), "line 1 of the file"),
        (f"{PUBLIC}\0", "is no text"),
        ("\udcff", "is no text"),
        ("# c2VjcmV0\n", "holds no key"),
        ("", "holds no key"),
    ],
)
def test_what_is_no_public_key_is_refused_before_anything_is_fetched(cli, tmp_path, text, problem):
    keys = tmp_path / "keys"
    keys.write_bytes(text.encode("utf-8", "surrogateescape"))
    status, _, err = cli(
        "install", "to-disk", "--source-imgref", "oci:nowhere", "--root-ssh-authorized-keys", keys, tmp_path / "d.img"
    )
    assert status == 2
    assert problem in err
    assert ".pub" in err
    assert "c2VjcmV0" not in err
