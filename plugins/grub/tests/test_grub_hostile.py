"""What of an image GRUB's host tool is given: names are no options, and hostile modules cost no more than an error."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from grub_files import Image, modules

from cfs_core.plugin import CommandError, CopyObject, Location, RunCommand, Volume, read_all
from cfs_core.testing import HostCommands
from cfs_grub.locate import find_modules
from cfs_grub.mkimage import plan_program

TARGET = "x86_64-efi"
INSTALLED = Path("/usr/lib/grub") / TARGET
OPTIONS = (
    "-oplanted",
    "--output=planted",
    "-mplanted",
    "-cplanted",
    "--pubkey=planted",
    "{reads[1]}",
    "a b",
    "../x",
    "",
)


def planned(files):
    image = Image(files)
    found = find_modules(image, TARGET)
    directory = Location(Volume.ESP, "/grub2/modules")
    output = Location(Volume.ESP, "/EFI/BOOT/BOOTX64.EFI")
    return plan_program(image, found, directory, "echo hello", output, "grub-mkimage", {})


def test_names_of_an_image_are_no_options_of_the_host():
    directory = f"/usr/lib/grub/{TARGET}"
    files = modules(TARGET)
    files |= {f"{directory}/{name}.mod": b"x" for name in OPTIONS}
    files[f"{directory}/moddep.lst"] = b"linux: boot " + " ".join(OPTIONS).encode() + b"\n"
    files[f"{directory}/moddep.lst"] += b"normal: ../../../../etc/secret\nfat: boot\n"
    actions = planned(files)
    (command,) = [action for action in actions if isinstance(action, RunCommand)]
    _, *words = command.argv
    assert words[:10] == ["-d", "{reads[0]}", "-O", TARGET, "-p", "/EFI/BOOT", "-c", "{reads[1]}", "-o", "{writes[0]}"]
    assert not [word for word in words[10:] if not word.isidentifier()]
    (dependencies,) = [
        action.source
        for action in actions
        if isinstance(action, CopyObject) and action.location.path.endswith("moddep.lst")
    ]
    assert read_all(dependencies) == b"fat: boot\n"


def test_an_honest_list_of_dependencies_stays_as_it_is():
    text = b"linux: boot  relocator\nnormal:\ncrypto: \tgcry_sha256 a-b c+d\n"
    actions = planned(modules(TARGET) | {f"/usr/lib/grub/{TARGET}/moddep.lst": text})
    assert text in [read_all(action.source) for action in actions if isinstance(action, CopyObject)]


@pytest.mark.skipif(shutil.which("grub-mkimage") is None or not INSTALLED.is_dir(), reason="GRUB is not installed")
def test_hostile_modules_end_in_a_program_or_an_error(tmp_path, monkeypatch):
    """grub-mkimage reads ELF files of the image. It runs with limits, and writes its output and nothing else."""
    chance = random.Random(int(os.environ.get("CFS_SEED", "1")))
    folder, elsewhere = tmp_path / "modules", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    names = ["part_gpt", "fat", "ext2", "normal", "linux"]
    ended = {"program": 0, "error": 0, "without end": 0}
    for number in range(25):
        shutil.copytree(INSTALLED, folder)
        for victim in chance.sample([f"{name}.mod" for name in names] + ["kernel.img", "moddep.lst"], 3):
            data = bytearray((folder / victim).read_bytes())
            for _ in range(chance.choice([1, 20])):
                data[chance.randrange(min(len(data), chance.choice([64, 4096, 1 << 20])))] = chance.randrange(256)
            (folder / victim).write_bytes(data[: chance.choice([len(data), len(data) // 2])])
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        out = tmp_path / f"{number}.efi"
        argv = ["grub-mkimage", "-d", str(folder), "-O", TARGET, "-p", "/EFI/BOOT", "-o", str(out), *names]
        try:
            HostCommands(os.environ).run(argv, seconds=30)
            ended["program"] += out.stat().st_size > 0
        except CommandError as error:
            ended["error"] += 1
            ended["without end"] += "did not end" in str(error)
        assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
        shutil.rmtree(folder)
    assert ended["error"] > 0, ended
    assert ended["without end"] == 0, ended
    assert list(elsewhere.iterdir()) == []
