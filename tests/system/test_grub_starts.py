"""A real GRUB chooses what to start, counts and hands arguments over; the kernel says which it is and resets.

Nothing of GRUB's files is changed for that. A start takes seconds, so one machine is started several times.
"""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from builders.tiny_kernel import END, START, tiny_kernel
from grub_files import Image

from cfs_core.plugin import (
    Architecture,
    BootArtifacts,
    BootEntry,
    BootFacts,
    BootMenu,
    BytesContent,
    EntryKind,
    Firmware,
    LayoutRequest,
    Location,
    PluginContext,
    Volume,
    VolumeNeed,
    WriteFile,
)
from cfs_core.system.command import HostCommands
from cfs_core.target.image import ImageTarget
from cfs_core.target.memory import MemoryTarget
from cfs_disk.ext4.filesystem import Ext4Filesystem
from cfs_disk.gpt.layout import GptLayout
from cfs_grub.bootloader import Grub
from cfs_grub.environment import parse

MODULES = Path("/usr/lib/grub/i386-pc")
NEEDED = ("qemu-system-x86_64", "grub-mkimage", "mkfs.ext4", "debugfs")
SECONDS = 120

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(not MODULES.is_dir(), reason=f"no {MODULES} (package grub-pc-bin)"),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"not all of {', '.join(NEEDED)} are installed"),
]


class Quiet:
    def debug(self, *_args, **_facts): ...

    info = warning = error = start = advance = finish = debug


def entry(letter, *arguments, **more):
    kernel = tiny_kernel() + letter.encode()
    artifacts = BootArtifacts(
        kind=EntryKind.BLS,
        kernel_version="6",
        boot_digest=hashlib.sha256(kernel).hexdigest(),
        kernel=BytesContent(kernel),
    )
    return BootEntry(
        deployment_id=letter * 128,
        kind=EntryKind.BLS,
        title=f"System {letter}",
        version="13",
        os_id="debian",
        arguments=(*arguments, f"composefs={letter * 128}"),
        artifacts=artifacts,
        **more,
    )


class Machine:
    """A disk with /boot on its root, as GRUB's plans make it."""

    def __init__(self, folder):
        self.folder = folder
        self.disk = folder / "disk.img"
        commands = HostCommands(os.environ)
        self.grub = Grub(commands)
        image = Image({str(path): path.read_bytes() for path in MODULES.iterdir()})
        self.facts = BootFacts(
            architecture=Architecture.AMD64,
            firmware=frozenset({Firmware.BIOS}),
            image=image,
            root_filesystem="ext4",
            seed="s",
        )
        needs = [need for need in self.grub.needs(self.facts) if need.volume is not Volume.ROOT]
        needs.append(VolumeNeed(volume=Volume.ROOT, bytes_needed=64 << 20, filesystems=("ext4",)))
        layout = GptLayout()
        request = LayoutRequest(
            needs=needs, architecture=Architecture.AMD64, root_filesystem="ext4", root_size=64 << 20, seed="s"
        )
        partitions = layout.plan(request)
        self.root = next(partition.start for partition in partitions if partition.volume is Volume.ROOT)
        context = PluginContext(
            provider="test", commands=commands, progress=Quiet(), log=Quiet(), scratch=folder, seed="s"
        )
        self.target = MemoryTarget(partitions, commands=commands, scratch=folder)
        self.image = ImageTarget(
            self.disk, self.target, layout=layout, filesystems={Volume.ROOT: Ext4Filesystem(context)}, seed="s"
        )
        for action in self.grub.plan_install(self.target, self.facts):
            self.target.apply(action)

    def want(self, *entries, **more):
        wanted = BootMenu(entries=entries, timeout_seconds=0, **more)
        for action in self.grub.plan_menu(self.target, self.grub.read_menu(self.target), wanted, self.facts):
            self.target.apply(action)
        return self.grub.read_menu(self.target).entries

    def starts(self, count):
        """Build the disk and start it; return the kernel's command lines, first word and all."""
        with self.image:
            self.image.build()
            self.image.publish()
        log = self.folder / "serial.log"
        argv = ["qemu-system-x86_64", "-M", "q35", "-m", "256", "-accel", "tcg", "-display", "none", "-nodefaults"]
        argv += ["-serial", f"file:{log}", "-drive", f"if=virtio,format=raw,file={self.disk}"]
        lines = []
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as qemu:
            deadline = time.monotonic() + SECONDS
            while len(lines) < count and time.monotonic() < deadline and qemu.poll() is None:
                time.sleep(0.2)
                parts = log.read_bytes().split(START)[1:] if log.exists() else []
                lines = [part.partition(END)[0].decode() for part in parts if END in part]
            qemu.kill()
        return lines[:count]

    def started(self, count):
        return "".join(line.partition("composefs=")[2][:1] for line in self.starts(count))

    def environment(self):
        argv = ["debugfs", "-R", "cat /boot/grub2/grubenv", f"{self.disk}?offset={self.root}"]
        block = subprocess.run(argv, check=True, capture_output=True).stdout
        assert len(block) == 1024
        return parse(block)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_once_then_as_many_tries_as_there_are_then_the_next(machine):
    old = machine.want(entry("a"))
    machine.want(entry("b", tries_left=2), *old, once="a" * 128)
    assert machine.started(5) == "abbaa"
    assert {name: value for name, value in machine.environment().items() if value} == {
        "cfs_tries_bbbbbbbbbbbbbbbb": "0"
    }


def test_a_saved_default_is_counted_too(machine):
    old = machine.want(entry("a"))
    menu = machine.want(entry("b", tries_left=1), *old)
    machine.want(*reversed(menu), default="b" * 128)
    assert machine.started(3) == "baa"
    left = machine.environment()
    assert left["cfs_tries_bbbbbbbbbbbbbbbb"] == "0"
    assert left["saved_entry"] == "bootc_" + "b" * 32


def test_a_saved_default_stays(machine):
    old = machine.want(entry("a"))
    menu = machine.want(entry("b"), *old, default="a" * 128)
    machine.want(entry("c"), *menu, default="a" * 128)
    assert machine.started(2) == "aa"


EXACT = ("a=$root${x}$(y)", "b=äöü€", "c={;|&<>#*?!}~^`%[]", "e=p(1),q", "f=1", "f=2")


def test_arguments_arrive_exactly_but_for_quotes(machine):
    """The command line that the kernel is given is what /proc/cmdline shows."""
    machine.want(entry("a", *EXACT, 'd="two words"'))
    (line,) = machine.starts(1)
    words = line.partition(" ")[2]
    assert words == " ".join([*EXACT, '"d=two words"', f"composefs={'a' * 128}"])


def test_grubs_linux_command_changes_quotes_and_backslashes(machine):
    """Why plans refuse them on BIOS: upstream's command escapes them, whatever a script says."""
    machine.want(entry("a"))
    kernel = f"/boot/bootc_composefs-{'a' * 128}/vmlinuz"
    script = (
        f"set default=mine\nmenuentry x --id mine {{\n  linux {kernel} 'a=b\\c' \"d=e'f\" 'g=\"h\"' 'i=\"j k\"'\n}}\n"
    )
    custom = Location(Volume.ROOT, "/boot/grub2/custom.cfg")
    machine.target.apply(WriteFile(location=custom, data=script.encode(), why="somebody's"))
    (line,) = machine.starts(1)
    assert line.partition(" ")[2] == 'a=b\\\\c d=e\\\'f g=\\"h\\" "i=\\"j k\\""'
