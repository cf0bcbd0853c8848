"""The plan is made once, and is what is written: tools run once, choices have one order, questions come first."""

from __future__ import annotations

import json
import os
import pty

import pytest
from builders import bootable
from grub_files import MODULES, elf

from cfs_core.bls import join_arguments, split_arguments
from cfs_core.errors import BootError
from cfs_testkit.builders.oci import File
from cfs_testkit.layouts import efi_program
from cfs_testkit.scripts import Scripts

PROGRAM = "".join(f"\\{byte:03o}" for byte in efi_program())
"""A program's headers as printf takes them."""

MKIMAGE = f"""
while [ $# -gt 0 ]; do
    case $1 in
    -o | --output) out=$2 ;;
    --output=*) out=${{1#*=}} ;;
    esac
    shift
done
{{ printf '{PROGRAM}'; head -c 30000 /dev/urandom; }} >"$out"
"""
"""What it makes is another file each time, as nobody promises that a real one's is not."""


@pytest.fixture
def source(tmp_path):
    return bootable.layout(tmp_path / "oci", latest=bootable.image()) + ":latest"


@pytest.fixture
def tools(tmp_path):
    scripts = Scripts(tmp_path / "tools")
    scripts.add("grub-mkimage", MKIMAGE)
    return scripts


@pytest.fixture
def grub_source(tmp_path):
    """An image with the modules of GRUB for UEFI, and no program made of them."""
    folder = "usr/lib/grub/x86_64-efi"
    files = {f"{folder}/{name}.mod": File(elf(name)) for name in MODULES}
    files |= {f"{folder}/kernel.img": File(bytes(2000)), f"{folder}/moddep.lst": File("")}
    return bootable.layout(tmp_path / "grub", latest=bootable.image(loader=False, **files)) + ":latest"


def test_what_a_tool_makes_is_what_is_written_and_recorded(cfs, grub_source, tools, tmp_path):
    disk = tmp_path / "disk.img"
    cfs.ok(*install(grub_source, disk), env=tools.environ)
    assert [call[0] for call in tools.calls] == ["grub-mkimage"]
    assert cfs.ok("repo", "fsck", "--disk", disk).stdout == "clean\n"
    assert "inconsistent" not in cfs.ok("status", disk).stdout


def test_a_dry_run_runs_no_tool_and_shows_it(cfs, grub_source, tools, tmp_path):
    done = cfs.ok(*install(grub_source, tmp_path / "disk.img", "--dry-run"), env=tools.environ)
    assert "command  grub-mkimage" in done.stdout
    assert tools.calls == []


def settings(tmp_path, text):
    path = tmp_path / "cfs.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("hash", "md5", "sha256, sha512"),
        ("erofs", "v9", "v0, v1, v2"),
        ("firmware", "coreboot", "uefi, bios, both, u-boot"),
        ("timeout", -5, "at least 0"),
        ("esp-size", "900T", "at most"),
        ("root-size", "1k", "at least 1048576"),
    ],
)
def test_a_value_that_cannot_be_is_a_fault_of_the_settings(cfs, source, tmp_path, name, value, words):
    text = json.dumps(value)
    done = cfs("--config", settings(tmp_path, f"install.{name} = {text}"), *install(source, tmp_path / "d.img"))
    assert done.returncode == 3, done.stderr
    assert f"install.{name}" in done.stderr
    assert words in done.stderr
    assert "hint" in done.stderr


def test_advice_out_of_range_is_refused(cfs, tmp_path):
    image = bootable.image(**{"usr/lib/cfs/install.d/1.toml": File("install.timeout = -5")})
    done = cfs.install(bootable.layout(tmp_path / "oci", latest=image) + ":latest", tmp_path / "d.img")
    assert done.returncode == 3
    assert "image:/usr/lib/cfs/install.d/1.toml" in done.stderr


def install(source, disk, *options):
    return ("install", "to-disk", "--source-imgref", source, *options, disk)


def test_providers_find_their_own_settings(cfs, source, tmp_path):
    config = settings(tmp_path, "[layout.gpt]\nboot_volume_mib = 777")
    done = cfs.ok("--config", config, *install(source, tmp_path / "d.img", "--dry-run", "--format", "json"))
    sizes = {part["volume"]: part["size"] for part in json.loads(done.stdout)["partitions"]}
    assert sizes["esp"] == 777 << 20


def test_options_are_above_all_settings(cfs, source, tmp_path):
    config = settings(tmp_path, 'install.bootloader = "none-such"\ninstall.root-size = "2G"')
    command = install(
        source,
        tmp_path / "d.img",
        "--bootloader",
        "systemd-boot",
        "--root-size",
        "900M",
        "--dry-run",
        "--format",
        "json",
    )
    plan = json.loads(cfs.ok("--config", config, *command).stdout)
    assert plan["bootloader"] == {"name": "systemd-boot", "origin": "command line"}
    assert {part["volume"]: part["size"] for part in plan["partitions"]}["root"] == 900 << 20


def test_an_existing_disk_is_asked_about_before_anything_is_fetched(cfs, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"precious")
    done = cfs.install("oci:there-is-no-such-image", disk)
    assert done.returncode == 5
    assert "--yes" in done.stderr
    assert disk.read_bytes() == b"precious"


def test_no_to_the_question_leaves_the_disk(cfs, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"precious")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"n\n")
        done = cfs.install("oci:there-is-no-such-image", disk, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode != 0
    assert "Replace it?" in done.stderr
    assert disk.read_bytes() == b"precious"


def test_a_file_of_the_plan_can_be_shown(cfs, source, tmp_path):
    shown = cfs.ok(*install(source, tmp_path / "d.img", "--show", "ESP:/loader/loader.conf")).stdout
    assert "timeout" in shown or "default" in shown
    assert not (tmp_path / "d.img").exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("ESP:/none", "makes no file"),
        ("NOWHERE:/x", "is not VOLUME:/PATH"),
        ("ESP", "is not VOLUME:/PATH"),
        ("ESP:/EFI/BOOT/BOOTX64.EFI", "is not a text file"),
    ],
)
def test_what_cannot_be_shown_is_said(cfs, source, tmp_path, where, message):
    done = cfs(*install(source, tmp_path / "d.img", "--show", where))
    assert done.returncode == 2
    assert message in done.stderr
    assert "hint" in done.stderr


def test_the_plan_names_kernel_download_and_room(cfs, source, tmp_path):
    text = cfs.ok(*install(source, tmp_path / "d.img", "--dry-run")).stdout
    assert "\ndownload  " in text
    assert "\nkernel    " in text
    assert "USED" in text
    assert "LEFT" in text
    assert "MakeDirectory" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [("a\xa0b c", ("a\xa0b", "c")), ("a\x1cb", ("a\x1cb",)), ('x="1 2"\ty', ('x="1 2"', "y")), ("a\vb", ("a", "b"))],
)
def test_one_splitter_of_command_lines(text, words):
    assert split_arguments(text) == words


def test_bytes_that_the_kernel_takes_for_white_space_are_refused():
    for argument in ("a=b\xa0c", "name=\u00e0"):
        with pytest.raises(BootError, match="white space"):
            join_arguments([argument])
    assert join_arguments(['name="\u00e0"', "name=\u00e9"]) == 'name="\u00e0" name=\u00e9'
