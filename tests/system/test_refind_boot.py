"""Debian, started by rEFInd: the example plugin, installed as an outsider would, in an environment of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import time
from dataclasses import fields
from pathlib import Path

import pytest
from builders import kernels, ovmf
from builders.kept import kept
from builders.outsiders import EXAMPLES, Outside, core_and_default_plugins

from cfs_core.plugin import Architecture, Firmware, Volume
from cfs_disk.gpt.layout import GptLayout
from cfs_prove import machine
from cfs_prove.guest import make_nonce
from cfs_prove.report import Accelerator

pytestmark = [pytest.mark.vm, pytest.mark.slow]

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = "usr/share/refind/refind/refind_x64.efi"
EPOCH = 1_750_000_000
OTHER = "0" * 128
"""A deployment that the menu offers and the disk does not have: choosing it can be seen, and does not boot."""

BOOT_SECONDS = 240
UNUSUAL = ("a=$root${x}$(y)", "c={;|&<>#*?!}~^`%[]", 'd="two words"', "e=p(1),q", "f=\\b/c")


@pytest.fixture(scope="module")
def refind():
    """rEFInd of Debian's package, kept between runs."""

    def make(folder):
        why = kernels.download(folder, "trixie", "amd64", "refind", kernel=False)
        if why is not None:
            pytest.skip(f"Debian's package refind cannot be had: {why}")

    return kept("refind-tree", make) / PROGRAM


@pytest.fixture(scope="module")
def images(demo_image, refind, workspace):
    """The demo image, and the sealed one, with rEFInd in one more layer. The sealed one has it below /boot."""
    images = workspace / "debian-refind"
    shutil.copytree(demo_image, images)
    layer = workspace / "refind.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for parent in reversed(Path(PROGRAM).parents[:-1]):
            info = tarfile.TarInfo(str(parent))
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            tar.addfile(info)
        info = tarfile.TarInfo(PROGRAM)
        info.size, info.mode, info.mtime = refind.stat().st_size, 0o644, EPOCH
        with refind.open("rb") as file:
            tar.addfile(info, file)
    subprocess.run(["umoci", "tag", "--image", f"{images}:debian", "refind"], check=True)
    subprocess.run(
        ["umoci", "raw", "add-layer", "--image", f"{images}:refind", "--history.created_by", "rEFInd", layer],
        check=True,
    )
    for path in images.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return images


@pytest.fixture(scope="module")
def outside(workspace):
    """An environment with cfs and the plugin from wheels."""
    return Outside.make(workspace / "outside", [*core_and_default_plugins(), EXAMPLES / "cfs-refind"])


@pytest.fixture(scope="module")
def disk(outside, images, workspace):
    """A disk with rEFInd, whose kernel has arguments that are hard to quote."""
    disk = workspace / "refind.img"
    arguments = [word for argument in UNUSUAL for word in ("--karg", argument)]
    outside.ok(
        "cfs", "install", "to-disk", "--source-imgref", f"oci:{images}:refind", "--composefs-native", "--bootloader",
        "refind", "--yes", "--seed", "refind", "--repo", workspace / "refind-repo", *arguments, disk,
    )  # fmt: skip
    return disk


def test_debian_boots_with_refind(outside, disk, workspace):
    console = workspace / "refind.log"
    said = outside.ok("cfs", "prove", disk, "--timeout", "240", "--console-log", console, timeout=600)
    assert "composefs, fs-verity required" in said
    assert "systemd: running" in said
    line = re.search(rb"Command line: ([^\r\n]*)", console.read_bytes())[1].decode()
    for argument in UNUSUAL:
        assert f" {argument} " in f" {line} "
    assert re.search(r"initrd=\\EFI\\Linux\\bootc_composefs-[0-9a-f]{128}\\initrd", line)


def with_two_entries(outside, disk, copy, wanted):
    """Put an entry that cannot boot before the one there is; what the plugin planned for the wanted choice."""
    found = next(part for part in GptLayout().read(disk) if part.volume is Volume.ESP)
    partition = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "volume"}
    subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
    esp = f"{copy}@@{partition['start']}"
    config = subprocess.run(["mtype", "-i", esp, "::EFI/BOOT/refind.conf"], capture_output=True, check=True).stdout
    facts = copy.with_suffix(".json")
    facts.write_text(json.dumps({"config": config.decode(), "partition": partition, "other": OTHER}))
    plan = json.loads(outside.ok("python", CHECKOUT / "tests/builders/refind_menu.py", facts, wanted))
    for name, data in plan["files"].items():
        fresh = copy.with_suffix(".file")
        fresh.write_bytes(bytes.fromhex(data))
        subprocess.run(["mcopy", "-o", "-i", esp, fresh, f"::EFI/BOOT/{name}"], check=True)
    return plan


def test_the_default_may_be_the_second_entry(outside, disk, workspace):
    copy, console = workspace / "refind-default.img", workspace / "refind-default.log"
    plan = with_two_entries(outside, disk, copy, "default")
    said = outside.ok("cfs", "prove", copy, "--timeout", "240", "--console-log", console, timeout=600)
    assert "systemd: running" in said
    assert f"composefs={plan['real']}".encode() in console.read_bytes()


def test_the_choice_for_the_next_boot_holds_once(outside, disk, workspace):
    copy, variables = workspace / "refind-once.img", workspace / "refind-once.fd"
    plan = with_two_entries(outside, disk, copy, "once")
    chosen = {(guid, name): bytes.fromhex(data) for guid, name, data in plan["variables"]}
    template = machine.find_firmware(Architecture.AMD64).variables.read_bytes()
    variables.write_bytes(ovmf.with_variables(template, chosen))
    assert booted(copy, variables, "root is composefs") == plan["real"]
    # Nothing of that deployment is on the disk, so its kernel ends where it looks for its initrd.
    assert booted(copy, variables, "Using load options ") == OTHER


def booted(disk, variables, until):
    """Boot with firmware variables that stay, until the console says *until*; the digest that rEFInd hands over."""
    emulator = machine.find_emulator(Architecture.AMD64)
    files = machine.MachineFiles(
        console=variables.with_suffix(".console"), report=variables.with_suffix(".report"), variables=variables
    )
    files.console.write_bytes(b"")
    words = machine.qemu_argv(
        emulator, disk, files, form="raw", firmware=Firmware.UEFI, uefi=machine.find_firmware(Architecture.AMD64),
        accelerator=Accelerator.TCG, memory_mib=1024, nonce=make_nonce(),
    )  # fmt: skip
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + BOOT_SECONDS
        while until not in (text := files.console.read_text(errors="replace")) and time.monotonic() < end:
            assert process.poll() is None, text[-3000:]
            time.sleep(0.2)
        time.sleep(1)  # the line goes on
    finally:
        process.kill()
        process.wait()
    text = files.console.read_text(errors="replace")
    assert until in text, text[-3000:]
    return re.search(r"Using load options [^\r\n]*\bcomposefs=([0-9a-f]{128})", text)[1]
