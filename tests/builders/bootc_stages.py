"""Machines as bootc 1.16.9 leaves them, stage by stage: installed, switched, rolled back, switched again.

What is said here was seen on machines; ``CFS_BOOTC_STAGES`` names a directory with what was on them (a directory for
each kind, in it one for each stage), and then the tests compare.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from builders.lifecycle_kit import Versions, copied, sealed, staged, version
from builders.machines import digest_of, install_below, running
from cfs_testkit.builders.oci import File

SEEN = os.environ.get("CFS_BOOTC_STAGES")
KINDS = ("bls", "uki")


@dataclass(frozen=True)
class Stage:
    """Versions by number: entries best first, what runs, what is staged; whose state is there besides."""

    name: str
    order: tuple[int, ...]
    booted: int
    staged: int | None = None
    os_id: str = "test"
    left: tuple[int, ...] = ()
    overlay: bool = False


STAGES = (
    Stage("0-installed", (1,), 1),
    Stage("1-staged", (1,), 1, staged=2),
    Stage("2-switched", (2, 1), 2),
    Stage("3-rollback-queued", (1, 2), 2, os_id="bootc"),
    Stage("4-rolled-back", (1, 2), 1, os_id="bootc"),
    Stage("5-usr-overlay", (1, 2), 1, os_id="bootc", overlay=True),
    Stage("6-third-staged", (1, 2), 1, staged=3, os_id="bootc", overlay=True),
    Stage("7-third", (3, 1), 3, left=(2,)),
)
"""``bootc rollback`` writes entries with an OS id of its own, and the next upgrade the image's again."""

THIRD = "cfs.test=3"
"""Kernel argument that the third image adds."""


class Template:
    """A machine of one kind whose repository has three versions; copies of it are brought to stages."""

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, folder
        self.versions = Versions(folder / "oci")
        self.ids, self.digests = {}, {}
        self.publish(1)
        self.machine = install_below(folder, self.versions.reference)
        self._note(1, self.machine.read().booted)
        for number in (2, 3):
            self.publish(number)
            staged(self.machine)
            self._note(number, self.machine.read().staged)

    def _note(self, number, deployment):
        self.ids[number] = deployment.id
        self.digests[number] = (deployment.manifest_digest, deployment.origin.boot_digest)

    def publish(self, number, tag="os"):
        """Publish a version of this kind."""
        kargs = {"usr/lib/bootc/kargs.d/30-third.toml": File(f'kargs = ["{THIRD}"]\n')} if number == 3 else {}
        if self.kind == "uki":
            return self.versions.publish(sealed(number, lambda image: digest_of(self.folder, image)), tag)
        return self.versions.publish(version(number, **kargs), tag)

    def at(self, stage, folder):
        """Return a copy of the machine, brought to *stage*."""
        machine = copied(self.machine, folder)
        boot, sysroot = machine.root / "boot", machine.root / "sysroot"
        files = next((boot / "EFI/Linux").glob("bootc_composefs-*"), None)
        kernel = {path.name: path.read_bytes() for path in files.iterdir()} if files else {}
        ukis = {path.stem.partition("-")[2]: path.read_bytes() for path in (boot / "EFI/Linux/bootc").glob("*.efi")}
        shutil.rmtree(boot / "EFI/Linux")
        shutil.rmtree(boot / "loader/entries")
        for left in ("entries.srel", "entries.staged"):
            shutil.rmtree(boot / "loader" / left, ignore_errors=True)
        shutil.rmtree(sysroot / "state/cfs", ignore_errors=True)
        shutil.rmtree(machine.root / "run", ignore_errors=True)
        self._entries(boot / "loader/entries", stage.order, stage.os_id)
        self._boot_files(boot, stage, kernel, ukis)
        there = {*stage.order, *stage.left, *([stage.staged] if stage.staged else [])}
        for number, identity in self.ids.items():
            if number in there:
                self._origin(sysroot / "state/deploy" / identity, number)
            else:
                shutil.rmtree(sysroot / "state/deploy" / identity)
        waiting = self.ids[stage.staged] if stage.staged else None
        if waiting:
            self._entries(boot / "loader/entries.staged", (stage.staged, stage.booted), "test")
        more = f"quiet {THIRD}" if stage.booted == 3 and self.kind == "bls" else "quiet"
        running(machine.root, self.ids[stage.booted], staged=waiting, uki=self.kind == "uki", more=more)
        if stage.overlay:
            line = "99 1 0:50 / /usr rw - overlay overlay rw,lowerdir=/usr\n"
            (machine.root / "proc/self/mountinfo").write_text(line)
        return machine

    def _entries(self, folder, order, os_id):
        folder.mkdir()
        for rank, number in enumerate(order):
            identity = self.ids[number]
            name = f"bootc_{os_id}-{identity}-{1 - rank}.conf"
            (folder / name).write_text(self.entry(number, f"bootc-{os_id}-{rank}"))

    def entry(self, number, sort_key):
        """Return an entry as bootc writes it. The first version's kernel serves all."""
        identity, kernel = self.ids[number], f"/EFI/Linux/bootc_composefs-{self.ids[1]}"
        text = f"title Test OS {number}\nversion {identity}\n"
        if self.kind == "bls":
            more = f" {THIRD}" if number == 3 else ""
            text += f"linux {kernel}/vmlinuz\ninitrd {kernel}/initrd\n"
            text += f"options rw composefs={identity} console=ttyS0 quiet{more}\n"
        else:
            text += f"uki /EFI/Linux/bootc/bootc_composefs-{identity}.efi\n"
        return f"{text}sort-key {sort_key}\n"

    def _boot_files(self, boot, stage, kernel, ukis):
        if self.kind == "bls":
            folder = boot / f"EFI/Linux/bootc_composefs-{self.ids[1]}"
            folder.mkdir(parents=True)
            for name, data in kernel.items():
                (folder / name).write_bytes(data)
            return
        folder = boot / "EFI/Linux/bootc"
        folder.mkdir(parents=True)
        for number in {*stage.order, *([stage.staged] if stage.staged else [])}:
            identity = self.ids[number]
            (folder / f"bootc_composefs-{identity}.efi").write_bytes(ukis[identity])

    def _origin(self, folder, number):
        manifest, boot = self.digests[number]
        kind = self.kind
        (folder / f"{self.ids[number]}.origin").write_text(
            f"[origin]\ncontainer-image-reference = ostree-unverified-image:{self.versions.reference}\n\n"
            f"[boot]\nboot_type = {kind}\ndigest = {boot}\n\n[image]\nmanifest_digest = {manifest}\n"
        )


def seen(kind, stage):
    """Return the directory with what was on a real machine, None where it is not at hand."""
    folder = Path(SEEN or "/nonexistent") / kind / stage.name
    return folder if folder.is_dir() else None
