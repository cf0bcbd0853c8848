"""Machines as directories: what bootc leaves on one, written by hand, and what cfs installs, applied to folders."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from cfs_core.app.app import App
from cfs_core.deploy.prepare import prepare
from cfs_core.install.plan import make_plan
from cfs_core.install.request import InstallRequest
from cfs_core.lifecycle.access import machine_below
from cfs_core.model.action import CopyObject, MakeDirectory, PlacingAction
from cfs_core.model.disk import Location, Volume
from cfs_core.target.mounted import MountedTarget


def bootc_machine(root, order, *, booted, kind="bls", staged=None, os_id="debian", kernel=None):
    """Write a machine as bootc 1.16 leaves it: entries in *order* (ids), best first; more ids have state alone.

    *kernel* is the deployment whose directory holds the kernel of all of them, the first by default.
    """
    kernel = kernel or order[0]
    entries = root / "boot/loader/entries"
    entries.mkdir(parents=True)
    (root / "boot/loader/loader.conf").write_text("timeout 5\n")
    for rank, identity in enumerate(order):
        text = f"title Debian GNU/Linux\nversion {identity}\n"
        if kind == "bls":
            folder = f"EFI/Linux/bootc_composefs-{kernel}"
            text += f"linux /{folder}/vmlinuz\ninitrd /{folder}/initrd\noptions rw composefs={identity}\n"
            files = [f"{folder}/vmlinuz", f"{folder}/initrd"]
        else:
            files = [f"EFI/Linux/bootc/bootc_composefs-{identity}.efi"]
            text += f"uki /{files[0]}\n"
        for file in files:
            (root / "boot" / file).parent.mkdir(parents=True, exist_ok=True)
            (root / "boot" / file).write_bytes(b"MZ")
        name = f"bootc_{os_id}-{identity}-{1 - rank if rank < 2 else 0}.conf"
        (entries / name).write_text(f"{text}sort-key bootc-{os_id}-{rank}\n")
    for identity in {*order, *([staged] if staged else [])}:
        write_origin(root, identity, kind=kind)
    running(root, booted, staged=staged, uki=kind == "uki")
    return root


def write_origin(root, identity, *, kind="bls"):
    """Write an origin file as bootc does."""
    folder = root / "sysroot/state/deploy" / identity
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    (folder / f"{identity}.origin").write_text(
        f"[origin]\ncontainer-image-reference = ostree-unverified-image:docker://quay.io/x/y:{identity[0]}\n\n"
        f"[boot]\nboot_type = {kind}\ndigest = {'f6' * 32}\n\n[image]\nmanifest_digest = sha256:{identity[:64]}\n"
    )


def running(root, booted, *, staged=None, locked=False, uki=False, more=""):
    """Write what a running system says of itself."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "run/composefs").mkdir(parents=True, exist_ok=True)
    (root / "proc/cmdline").write_text(f"{'' if uki else 'rw '}composefs={booted} console=ttyS0 {more}\n")
    (root / "proc/self/mountinfo").write_text("")
    file = root / "run/composefs/staged-deployment"
    file.unlink(missing_ok=True)
    if staged:
        file.write_text(json.dumps({"depl_id": staged, "finalization_locked": locked}))


@dataclass
class Installed:
    """A machine that cfs installed into a folder: ``root`` with sysroot, boot (the ESP), proc and run."""

    root: Path
    folder: Path

    def app(self):
        """A run of cfs."""
        return App({"HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder / "cache"), **os.environ})

    def read(self):
        """The machine as cfs finds it."""
        with self.app() as app:
            return machine_below(self.root, app)

    def reboot(self):
        """Start what the loader would, and forget what was in memory; its id."""
        machine = self.read()
        default = machine.default
        entry = next(each for each in machine.entries if each.deployment_id == default)
        for location in entry.files:
            assert machine.target.exists(location), f"{location} of the default entry is missing"
        etc = self.root / "sysroot/state/deploy" / default / "etc"
        assert etc.is_dir(), f"the default {default:.16} has no state"
        assert (self.root / "sysroot/composefs/images" / default).exists()
        running(self.root, default)
        if entry.arguments:  # those of a UKI are sealed in it
            (self.root / "proc/cmdline").write_text(" ".join(entry.arguments) + "\n")
        return default

    @property
    def etc(self):
        """The /etc of what runs."""
        return self.root / "sysroot/state/deploy" / self.read().running.booted / "etc"


def digest_of(folder, image):
    """Return the identity that *image* has on a machine."""
    import subprocess
    import sys

    from cfs_testkit.builders.oci import write_layout

    where = folder / f"measured-{image.digest[7:19]}"
    write_layout(where, {"x": image})
    words = [sys.executable, "-m", "cfs_core", "image", "digest", "--bootable", f"oci:{where}:x"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


RAW_NAMES = {Volume.DISK: "vda", Volume.BIOS_BOOT: "vda1"}
RAW_BYTES = 1 << 20


def install_below(folder, source, **settings):
    """Install *source* into directories below *folder*, as `cfs install to-disk` would into a disk, without its table.

    What is written to a disk itself, or to its BIOS boot partition, goes to files of those names below ``dev``.
    Owners are those of whoever runs the tests, as nobody else's can be made without root.
    """
    root = folder / "machine"
    made = Installed(root, folder)
    with made.app() as app:
        app.add_options(settings)
        request = InstallRequest(source=app.locate(source), disk=folder / "unused.img", repo=folder / "build-repo")
        with prepare(request, app) as image:
            prepared = make_plan(request, image, app)
            there = {partition.volume for partition in prepared.disk.partitions}
            places = {Volume.ROOT: root / "sysroot", Volume.ESP: root / "boot"}
            roots = {volume: path for volume, path in places.items() if volume in there}
            for path in roots.values():
                path.mkdir(parents=True)
            target = MountedTarget(roots, partitions=prepared.disk.partitions, scratch=app.scratch)
            for volume in roots:
                for action in prepared.target.contents(volume).values():
                    if action.location.path != "/":
                        target.apply(own(action))
            for volume, name in RAW_NAMES.items():
                for offset, data in prepared.target.blocks(volume):
                    (root / "dev").mkdir(exist_ok=True)
                    with (root / "dev" / name).open("r+b" if (root / "dev" / name).exists() else "w+b") as file:
                        file.truncate(RAW_BYTES)
                        file.seek(offset)
                        file.write(data)
            running(root, prepared.plan.image_id)
    made.reboot()
    return made


def own(action):
    """Return *action* with the owner that the tests have, and without what only a disk or root can do."""
    if isinstance(action, CopyObject):
        action = replace(action, verity=None)
    if isinstance(action, PlacingAction) and hasattr(action, "attributes"):
        attributes = replace(action.attributes, uid=os.geteuid(), gid=os.getegid())
        return replace(action, attributes=attributes)
    return action


__all__ = ["Installed", "Location", "MakeDirectory", "bootc_machine", "install_below", "own", "running", "write_origin"]
