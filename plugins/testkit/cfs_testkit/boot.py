"""Disks with the menu of a bootloader plugin, really booted: what no check in memory can show.

`BootDisks` is for authors: give the provider and an image, and its tests install the image, put more entries into the
menu with the plugin's own plan, and boot the disk with ``cfs prove``. The tests are marked ``vm``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cfs_core.plugin import (
    Action,
    Architecture,
    BootArtifacts,
    BootEntry,
    BootFacts,
    Bootloader,
    BootMenu,
    BytesContent,
    CopyObject,
    EntryKind,
    Firmware,
    Location,
    PluginContext,
    RemovePath,
    WriteFile,
    read_all,
)
from cfs_core.testing import HostCommands, PluginHost, families, open_disk
from cfs_testkit.context import CountedProgress, RecordedLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cfs_core.plugin import Partition, TargetView, Volume

IMAGE_VARIABLE = "CFS_BOOT_IMAGE"
"""Names an image with the loader's files, as ``cfs install to-disk --source-imgref`` takes it."""

INSTALL_SECONDS, BOOT_SECONDS = 900, 900
LETTERS = "0123456789"
TOOLS = ("mmd", "mcopy", "mdel")


class BootDisk:
    """A disk image with *provider*'s loader. The menu must be on FAT volumes: they are changed with mtools."""

    def __init__(self, path: Path, provider: str, scratch: Path) -> None:
        self.path = path
        self._provider = provider
        self._scratch = scratch
        self._host = PluginHost()
        self._host.load_installed()

    def entries(self) -> tuple[BootEntry, ...]:
        """Return what the menu offers now."""
        with self._opened() as disk:
            return self._loader().read_menu(disk).entries

    def add_entries(self, count: int) -> BootEntry:
        """Put *count* entries that cannot boot before the one there is, and make that one the default; return it."""
        loader = self._loader()
        with self._opened() as disk:
            menu = loader.read_menu(disk)
            (real,) = (entry for entry in menu.entries if not entry.foreign)
            others = tuple(_like(real, letter, disk) for letter in LETTERS[:count])
            wanted = BootMenu(entries=(*others, real), default=real.deployment_id)
            actions = list(loader.plan_menu(disk, menu, wanted, self._facts(disk)))
        partitions = {partition.volume: partition for partition in self._layout().read(self.path)}
        for action in actions:
            self._carry_out(action, partitions)
        return real

    def prove(self, *options: str) -> Mapping[str, Any]:
        """Boot the disk and return what ``cfs prove`` reports.

        Raises:
            AssertionError: it is not proven; the message holds the report.
        """
        done = run_cfs("prove", str(self.path), "--format", "json", *options, seconds=BOOT_SECONDS)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def _loader(self) -> Bootloader:
        loader: Bootloader = self._host.make(families.BOOTLOADERS, self._provider, self._context(self._provider))
        return loader

    def _layout(self) -> Any:  # noqa: ANN401 - a DiskLayout
        return self._host.make(families.LAYOUTS, "gpt", self._context("gpt"))

    @contextmanager
    def _opened(self) -> Iterator[TargetView]:
        filesystems = {
            provider.name: self._host.make(families.FILESYSTEMS, provider.name, self._context(provider.name))
            for provider in self._host.collect(families.FILESYSTEMS)
        }
        with open_disk(self.path, self._layout(), filesystems) as disk:
            yield disk

    def _context(self, provider: str) -> PluginContext:
        return PluginContext(
            provider=provider,
            commands=HostCommands(os.environ),
            progress=CountedProgress(),
            log=RecordedLog(),
            scratch=self._scratch,
        )

    def _facts(self, disk: TargetView) -> BootFacts:
        offered = self._host.collect(families.BOOTLOADERS).get(self._provider)
        here = (each for each in Architecture if disk.exists(each.removable_program))
        firmware = offered.firmware & {Firmware.UEFI} or offered.firmware
        return BootFacts(architecture=next(here, Architecture.AMD64), firmware=firmware, volumes=disk.volumes())

    def _carry_out(self, action: Action, partitions: Mapping[Volume, Partition]) -> None:
        """Do on the disk what *action* says."""
        location: Location = getattr(action, "location")  # noqa: B009 - the kinds below have one
        partition = partitions[location.volume]
        if partition.filesystem != "vfat":
            pytest.skip(f"the menu is on {partition.filesystem}, and only FAT can be changed here")
        image, path = f"{self.path}@@{partition.start}", f"::{location.path}"
        match action:
            case WriteFile() | CopyObject():
                fresh = self._scratch / "fresh"
                fresh.write_bytes(action.data if isinstance(action, WriteFile) else read_all(action.source))
                for parent in reversed(Path(location.path).parents[:-1]):
                    _mtools("mmd", "-i", image, "-D", "s", f"::{parent}", check=False)  # it may be there
                _mtools("mcopy", "-o", "-i", image, str(fresh), path)
            case RemovePath():
                _mtools("mdel", "-i", image, path, check=False)  # missing is fine
            case _:
                pytest.skip(f"{type(action).__name__} is not done here")


def _like(real: BootEntry, letter: str, disk: TargetView) -> BootEntry:
    """Return an entry with the files of *real* for a deployment that no disk has."""
    identity = letter * len(real.deployment_id)
    contents = [BytesContent(disk.read(location)) for location in real.files]
    uki = real.kind is EntryKind.UKI
    arguments = tuple(word.replace(real.deployment_id, identity) for word in real.arguments)
    artifacts = BootArtifacts(
        kind=real.kind,
        kernel_version="",
        boot_digest=letter * 64,
        kernel=None if uki else contents[0],
        initrd=contents[1] if not uki and len(contents) > 1 else None,
        uki=contents[0] if uki else None,
        sealed_arguments=real.arguments,
    )
    return dataclasses.replace(
        real,
        deployment_id=identity,
        title=f"cannot boot {letter}",
        arguments=() if uki else arguments,
        artifacts=artifacts,
        files=(),
        name=None,
    )


def _mtools(*words: str, check: bool = True) -> None:
    done = subprocess.run(words, input="", capture_output=True, text=True, check=False)  # noqa: S603 - arguments made here
    assert not check or done.returncode == 0, f"{words[0]}: {done.stderr}"


def run_cfs(*words: str, seconds: float = INSTALL_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run the ``cfs`` of this environment."""
    argv = [sys.executable, "-m", "cfs_core", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds)  # noqa: S603 - this interpreter


@pytest.mark.vm
class BootDisks:
    """Subclass it, and name the provider; the image is given by ``CFS_BOOT_IMAGE``, or by overriding `image`."""

    provider: ClassVar[str]
    kernel_arguments: ClassVar[Sequence[str]] = ('cfst.note="two words"', "cfst.list=a,b:c=d/e", "cfst.last=1")
    """Arguments that the kernel must get as they are."""

    install_options: ClassVar[Sequence[str]] = ()
    """More options of ``cfs install to-disk``."""

    @pytest.fixture(scope="class")
    def image(self) -> str:
        """An image with the files of this loader, as ``--source-imgref`` takes it."""
        found = os.environ.get(IMAGE_VARIABLE)
        if not found:
            pytest.skip(f"no image to boot is given: {IMAGE_VARIABLE}=oci:DIRECTORY:TAG")
        return found

    @pytest.fixture(scope="class")
    def installed(self, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A disk that the image was installed to with this loader."""
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} of mtools are not installed")
        disk = tmp_path_factory.mktemp("boot") / "disk.img"
        arguments = [word for argument in self.kernel_arguments for word in ("--karg", argument)]
        words = ("install", "to-disk", "--source-imgref", image, "--bootloader", self.provider, "--seed", "testkit")
        done = run_cfs(*words, *self.install_options, *arguments, str(disk))
        assert done.returncode == 0, done.stderr
        return disk

    @pytest.fixture
    def boot_disk(self, installed: Path, tmp_path: Path) -> BootDisk:
        """A copy of the disk."""
        copy = tmp_path / "disk.img"
        shutil.copyfile(installed, copy)
        return BootDisk(copy, self.provider, tmp_path)

    def test_the_disk_boots(self, boot_disk: BootDisk) -> None:
        """The disk as it was installed."""
        boot_disk.prove()

    def test_the_default_of_several_entries_boots(self, boot_disk: BootDisk) -> None:
        """The last of three entries, which is the default; the others cannot boot."""
        real = boot_disk.add_entries(2)
        shown = [entry.deployment_id[0] for entry in boot_disk.entries() if not entry.foreign]
        assert shown == ["0", "1", real.deployment_id[0]]
        boot_disk.prove()
