"""Debian, started by GRUB: from UEFI and from BIOS, by entry files, by a menu we write, and by a UKI."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from builders import kernels
from builders.kept import kept

from cfs_core.plugin import Firmware
from cfs_grub.order import Sorting, best_first

pytestmark = [pytest.mark.vm, pytest.mark.slow]

CHECKOUT = Path(__file__).resolve().parents[2]
EPOCH = 1_750_000_000
UNUSUAL = ("a=$root${x}$(y)", "b=äöü€", "c={;|&<>#*?!}~^`%[]", 'd="two words"', "e=p(1),q")


PROC_CMDLINE = b"PROC-CMDLINE:"
FIRST_BOOT = ("--hostname", "box", "--user", "anna:!:adm")


def layer_of(tar_path, files):
    """Write a layer with these files: path in the image, path here."""
    with tarfile.open(tar_path, "w", format=tarfile.PAX_FORMAT) as tar:
        known = set()
        for name, path in sorted(files.items()):
            for parent in reversed(Path(name).parents[:-1]):
                if parent not in known:
                    known.add(parent)
                    info = tarfile.TarInfo(str(parent))
                    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, EPOCH
                    tar.addfile(info)
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = path.stat().st_size, 0o644, EPOCH
            with path.open("rb") as file:
                tar.addfile(info, file)


def packages(what, *names):
    """Unpack packages of a Debian suite (*what* up to its dash), kept between runs; skip where they cannot be had."""
    suite = what.partition("-")[0]

    def make(folder):
        why = kernels.download(folder, suite, "amd64", *names, kernel=False)
        if why is not None:
            pytest.skip(f"GRUB of Debian {suite} is not at hand: {why}")

    return kept(f"grub-{what}", make)


def modules(tree, target):
    folder = f"usr/lib/grub/{target}"
    return {f"{folder}/{path.name}": path for path in (tree / folder).iterdir() if path.is_file()}


@pytest.fixture(scope="session")
def grub_images(demo_image, workspace):
    """The demo image with more tags.

    * grub: trixie's GRUB 2.12: an EFI program, modules for BIOS, neither reads entry files
    * grub-bls: sid's GRUB 2.14: modules for both, which read entry files
    * grub-uki: the sealed image with an EFI program below /boot, which does not count for its digest
    """
    if not any(map(shutil.which, ("grub-mkimage", "grub2-mkimage"))):
        pytest.skip("grub-mkimage is not installed (package grub-common)")
    stable = packages("trixie", "grub-efi-amd64-unsigned", "grub-pc-bin")
    program = stable / "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"
    images = workspace / "debian-grub"
    shutil.copytree(demo_image, images)
    tags = {
        "grub": (
            "debian",
            {
                "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": program,
                **modules(stable, "i386-pc"),
                **teller(workspace),
            },
        ),
        "grub-uki": ("debian-uki", {"boot/efi/EFI/debian/grubx64.efi": program}),
    }
    for tag, (base, files) in tags.items():
        add_tag(images, base, tag, files, workspace)
    return images


@pytest.fixture(scope="session")
def bls_images(grub_images, workspace):
    """The same with tag grub-bls."""
    unstable = packages("sid", "grub-efi-amd64-bin", "grub-pc-bin")
    files = {**modules(unstable, "x86_64-efi"), **modules(unstable, "i386-pc")}
    add_tag(grub_images, "debian", "grub-bls", files, workspace)
    return grub_images


def teller(workspace):
    """Files of a unit that writes to the console before the system counts as running: /proc/cmdline, names, a home."""
    unit, wanted = workspace / "cmdline.service", workspace / "cmdline.conf"
    start = '/bin/sh -c \'printf "PROC-CMDLINE:%%s\\\\n" "$$(cat /proc/cmdline)" >/dev/console\''
    names = '"$$(cat /proc/sys/kernel/hostname)" "$$(id -un 1000)" "$$(id -Gn 1000)" "$$(stat -c %%U:%%a /home/anna)"'
    who = f"/bin/sh -c 'printf \"WHO:%%s,%%s,%%s,%%s\\\\n\" {names} >/dev/console'"
    service = f"[Service]\nType=oneshot\nExecStart={start}\nExecStart={who}\n"
    unit.write_text(f"[Unit]\nBefore=multi-user.target\n{service}")
    wanted.write_text("[Unit]\nWants=cmdline.service\n")
    folder = "usr/lib/systemd/system"
    return {f"{folder}/cmdline.service": unit, f"{folder}/multi-user.target.d/cmdline.conf": wanted}


def add_tag(images, base, tag, files, workspace):
    layer = workspace / f"{tag}.tar"
    layer_of(layer, files)
    subprocess.run(["umoci", "tag", "--image", f"{images}:{base}", tag], check=True)
    subprocess.run(
        ["umoci", "raw", "add-layer", "--image", f"{images}:{tag}", "--history.created_by", "GRUB", layer],
        check=True,
    )
    layer.unlink()
    for path in images.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def install(user, images, tag, *options):
    disk = user.home / f"{tag}{len(options)}.img"
    disk.unlink(missing_ok=True)
    user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{images}:{tag}", "--composefs-native", "--bootloader", "grub",
        "--yes", "--seed", tag, *options, disk,
    )  # fmt: skip
    return disk


def boots(machine, disk, firmware, console, *, told=b"Command line: "):
    """Boot *disk* to the end; return what the kernel said of its command line, or what comes after *told*."""
    console.unlink(missing_ok=True)
    report = machine.boot(disk, firmware=firmware, console_log=console)
    assert report.failure is None
    assert report.root.verity_required
    assert report.system_state == "running"
    return re.search(re.escape(told) + rb"([^\r\n]*)", console.read_bytes())[1].decode()


BOTH = [Firmware.UEFI, Firmware.BIOS]


@pytest.fixture(scope="session")
def hybrid_disk(user, grub_images):
    """One disk for both firmwares, by a GRUB that reads no entry files, with unusual kernel arguments."""
    arguments = [word for argument in UNUSUAL for word in ("--karg", argument)]
    return install(user, grub_images, "grub", "--firmware", "both", *FIRST_BOOT, *arguments)


@pytest.mark.parametrize("firmware", BOTH)
def test_one_disk_boots_on_both_firmwares(hybrid_disk, firmware, machine, tmp_path):
    line = boots(machine, hybrid_disk, firmware, tmp_path / "console", told=PROC_CMDLINE)
    for argument in UNUSUAL:
        # GRUB puts the quotes of an argument with white space around the whole argument.
        seen = '"d=two words"' if argument.startswith("d=") else argument
        assert f" {seen} " in f"{line} "
    who = re.search(rb"WHO:([^\r\n]*)", (tmp_path / "console").read_bytes())
    assert who[1] == b"box,anna,anna adm,anna:700", "as it was asked for at install"


QUOTES = ('a="two words"', "b=c\\d\\\\e", "f='g'", 'h="i"', '"j k"=l', "$m;n")


def test_quotes_and_backslashes_arrive_by_uefi(user, grub_images, machine, tmp_path):
    arguments = [word for argument in QUOTES for word in ("--karg", argument)]
    disk = install(user, grub_images, "grub", "--firmware", "uefi", *arguments)
    line = boots(machine, disk, Firmware.UEFI, tmp_path / "console", told=PROC_CMDLINE)
    for argument in QUOTES:
        assert f" {argument} " in f"{line} "


@pytest.fixture(scope="session")
def bls_disk_with_boot(user, bls_images):
    """One disk for both firmwares with /boot of its own, by a GRUB that reads entry files."""
    return install(user, bls_images, "grub-bls", "--firmware", "both", "--separate-boot")


@pytest.mark.parametrize("firmware", BOTH)
def test_entry_files_on_a_separate_boot(bls_disk_with_boot, firmware, machine, tmp_path):
    line = boots(machine, bls_disk_with_boot, firmware, tmp_path / "console")
    assert line.startswith("BOOT_IMAGE=/bootc_composefs-")


NAMES = ["bootc_z-9-1", "bootc_z-10-1", "bootc_z-10-0", "a", "a-1", "zz~1-1-1", "zz-1-1", "B-1.10-1", "B-1.9-2"]


def serial_output(options, disk, log, until):
    """Boot without watching for a system; return what came over the serial line up to *until*, or in two minutes."""
    argv = ["qemu-system-x86_64", *options, "-accel", "tcg,thread=multi", "-display", "none", "-nodefaults"]
    argv += ["-no-reboot", "-serial", f"file:{log}", "-drive", f"if=virtio,format=raw,file={disk},snapshot=on"]
    text = b""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as qemu:
        deadline = time.monotonic() + 120
        while not re.search(until, text) and time.monotonic() < deadline and qemu.poll() is None:
            time.sleep(0.5)
            text = log.read_bytes() if log.exists() else b""
        qemu.kill()
    return text


def test_the_order_is_the_one_we_predict(bls_disk_with_boot, workspace):
    """A real GRUB 2.14 shows its menu on the serial line; nothing is started."""
    disk = workspace / "order.img"
    subprocess.run(["cp", "--sparse=always", bls_disk_with_boot, disk], check=True)
    table = json.loads(subprocess.run(["sfdisk", "--json", disk], capture_output=True, check=True).stdout)
    boot = next(part["start"] * 512 for part in table["partitiontable"]["partitions"] if part["name"] == "boot")
    script = []
    for number, name in enumerate(NAMES):
        entry = workspace / f"order-{number}.conf"
        entry.write_text(f"title ENTRY-{number}\nversion 1\nlinux /none\n")
        script.append(f"write {entry} /loader/entries/{name}.conf")
    custom = workspace / "custom.cfg"
    custom.write_text("serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\nset timeout=-1\n")
    script.append(f"write {custom} /grub2/custom.cfg")
    subprocess.run(
        ["debugfs", "-w", "-f", "-", f"{disk}?offset={boot}"], input="\n".join(script), text=True, check=True,
        capture_output=True,
    )  # fmt: skip
    last = b"ENTRY-%d" % NAMES.index(best_first(NAMES, Sorting.FILEVERCMP)[-1])
    text = serial_output(["-M", "q35", "-m", "256"], disk, workspace / "order.log", last)
    shown = list(dict.fromkeys(re.findall(rb"ENTRY-(\d)", text)))
    disk.unlink()
    assert [NAMES[int(number)] for number in shown] == best_first(NAMES, Sorting.FILEVERCMP)


def test_a_uki_by_grub(user, grub_images, machine, tmp_path):
    disk = install(user, grub_images, "grub-uki", "--firmware", "uefi")
    line = boots(machine, disk, Firmware.UEFI, tmp_path / "console")
    assert "BOOT_IMAGE" not in line
    assert "composefs=" in line


def test_a_uki_cannot_be_started_by_bios(user, grub_images):
    result = user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{grub_images}:grub-uki", "--composefs-native", "--bootloader",
        "grub", "--firmware", "both", "--yes", user.home / "never.img", check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert "unified kernel image" in result.stderr
    assert not (user.home / "never.img").exists()


def test_arguments_that_grub_would_change_are_refused_before_anything_is_written(user, grub_images):
    result = user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{grub_images}:grub", "--composefs-native", "--bootloader",
        "grub", "--firmware", "both", "--karg", "x=a\\b", "--yes", user.home / "never.img", check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert "backslash" in result.stderr
    assert not (user.home / "never.img").exists()


SECURE_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
SECURE_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")


@pytest.mark.skipif(not SECURE_VARIABLES.exists(), reason="no firmware with Microsoft's keys (package ovmf)")
def test_secure_boot_by_the_images_shim(user, grub_images, workspace):
    """Firmware trusts Debian's shim, shim Debian's GRUB, GRUB Debian's kernel."""
    signed = packages("trixie-signed", "grub-efi-amd64-signed", "shim-signed")
    files = {
        str(path.relative_to(signed)): path
        for pattern in ("usr/lib/grub/x86_64-efi-signed/grubx64*", "usr/lib/shim/shimx64*")
        for path in signed.glob(pattern)
    }
    add_tag(grub_images, "debian", "grub-signed", files, workspace)
    disk = install(user, grub_images, "grub-signed", "--firmware", "uefi")
    variables = workspace / "secure-variables.fd"
    shutil.copyfile(SECURE_VARIABLES, variables)
    argv = ["-M", "q35,smm=on", "-cpu", "max", "-smp", "2", "-m", "1024"]
    argv += ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
    argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={SECURE_CODE}"]
    argv += ["-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
    text = serial_output(argv, disk, workspace / "secure.log", rb"Secure boot (en|dis)abled")
    assert b"Secure boot enabled" in text
    assert b"Command line: BOOT_IMAGE=/boot/bootc_composefs-" in text


PROVEN_AT_INSTALL = [("debian", "systemd-boot", "uefi"), ("grub", "grub", "uefi"), ("grub", "grub", "bios")]


@pytest.fixture
def new_disk(user):
    """Where a disk will be; gone after the test."""
    disk = user.home / "new.img"
    disk.unlink(missing_ok=True)
    yield disk
    disk.unlink(missing_ok=True)


@pytest.mark.campaign
@pytest.mark.parametrize(("tag", "loader", "firmware"), PROVEN_AT_INSTALL)
def test_install_proves_what_it_installed(user, grub_images, new_disk, tag, loader, firmware):
    """Nothing but `--prove`: firmware, architecture and loader are those of the disk that was made."""
    result = user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{grub_images}:{tag}", "--bootloader", loader, "--firmware",
        firmware, "--karg", 'cfst.note="two words"', "--prove", "--format", "json", new_disk,
    )  # fmt: skip
    proof = json.loads(result.stdout)
    print(result.stdout)
    assert (proof["proven"], proof["firmware"], proof["bootloader"]) == (True, firmware, loader)
    assert proof["architecture"] == "amd64"
    assert proof["evidence"] == "reporter"
    assert proof["root"]["verity_required"]
    assert proof["system_state"] == "running"
    assert 'cfst.note="two words"' in proof["arguments"]
    assert all(argument in proof["command_line"] for argument in proof["arguments"] if '"' not in argument)


@pytest.mark.campaign
def test_install_says_so_where_what_it_installed_does_not_come_up(user, demo_image, new_disk):
    """The plan cannot know how much memory a machine has; the disk stays for whoever wants to look at it."""
    result = user.cfs(
        "install", "to-disk", "--source-imgref", f"oci:{demo_image}:debian", "--karg", "mem=48M", "--prove", new_disk,
        check=False,
    )  # fmt: skip
    assert result.returncode == 11, result.stdout + result.stderr
    assert "read back and verified" in result.stdout
    assert "NOT proven: " in result.stdout
    assert "error: " in result.stderr
    assert new_disk.exists()
