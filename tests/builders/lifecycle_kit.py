"""Versions of a system, and the verbs as functions."""

from __future__ import annotations

import os
from pathlib import Path

from builders import bootable
from cfs_core.deploy.target_reference import target_reference
from cfs_core.lifecycle.finalize import finalize
from cfs_core.lifecycle.session import session
from cfs_core.lifecycle.upgrade import UpgradeRequest, upgrade
from cfs_testkit.builders.oci import File, Image, layer, write_layout
from cfs_testkit.programs import kernel as program_of_a_kernel


def own(tree):
    """Give every file the owner that the tests have."""
    from dataclasses import replace

    return {
        path: replace(what, uid=os.geteuid(), gid=os.getegid()) if hasattr(what, "uid") else what
        for path, what in tree.items()
    }


def version(number, **files):
    """An image: version *number* of one system, a base layer that all share and one of its own."""
    without = {path: None for path, what in files.items() if what is None}
    base = own(bootable.tree(**{"usr/bin/tool": None, "var/lib/state": File("state"), **without}))
    files = {path: what for path, what in files.items() if what is not None}
    top = {
        "usr/lib/os-release": File(f'ID=test\nPRETTY_NAME="Test OS {number}"\nVERSION_ID={number}\n'),
        "etc/release": File(f"{number}\n"),
        "usr/share/version": File(f"{number}" * 100),
        **{path.replace("__", "/"): what for path, what in files.items()},
    }
    labels = {"org.opencontainers.image.version": f"v{number}"}
    return Image([layer(base), layer(own(top), parents=True)], labels=labels)


GRUB_PROGRAM = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"


def grub(number, **files):
    """The same with GRUB in place of systemd-boot."""
    from grub_files import program

    loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    return version(number, **{GRUB_PROGRAM: File(program()), loader: None, **files})


def sealed(number, digest_of, **files):
    """The same with a UKI that names the image, whose identity *digest_of* tells."""
    plain = version(number, **files)
    made = bootable.with_uki(plain, f"rw composefs={digest_of(plain)}")
    return Image(made.layers, labels=plain.labels)


def kernel(text):
    """Another kernel."""
    return {f"{bootable.MODULES}/vmlinuz": File(program_of_a_kernel("amd64", bootable.KERNEL_VERSION) + text.encode())}


class Versions:
    """The OCI directory that the machine's origin names: what the tag ``os`` means moves on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tags: dict[str, Image] = {}

    @property
    def reference(self):
        return f"oci:{self.folder}:os"

    def publish(self, image, tag="os"):
        import shutil

        self.tags[tag] = image
        shutil.rmtree(self.folder, ignore_errors=True)
        write_layout(self.folder, dict(self.tags))
        return f"oci:{self.folder}:{tag}"


def copied(machine, folder):
    """Copy a machine."""
    import shutil

    from builders.machines import Installed

    shutil.copytree(machine.root, folder / "machine", symlinks=True)
    return Installed(folder / "machine", folder)


def staged(machine, **request):
    """Upgrade *machine* as the command does; the result."""
    if "target" in request:
        request["target"] = target_reference(request["target"])
    with machine.app() as app, session(machine.root, app, "upgrade", writable=not request.get("dry_run")) as opened:
        if "content_from" in request:
            request["content_from"] = app.locate(request["content_from"])
        return upgrade(opened, app, UpgradeRequest(**request))


def finalized(machine, **options):
    """Shut the machine down; the result."""
    with machine.app() as app, session(machine.root, app, "finalize") as opened:
        return finalize(opened, **options)


def upgraded(machine, **request):
    """Upgrade and start again; the id of what runs then."""
    assert staged(machine, **request).result == "staged"
    assert finalized(machine).result == "finalized"
    return machine.reboot()


class Killed(BaseException):
    """The machine lost its power."""


class PowerCut:
    """Lets the first *actions* be done on any machine, and ends the process at the next."""

    def __init__(self, actions):
        self.left = actions
        self.done = 0

    def __enter__(self):
        from cfs_core.target.mounted import MountedTarget

        self._class, self._real = MountedTarget, MountedTarget.apply

        def apply(target, action):
            if self.left == 0:
                raise Killed
            self.left -= 1
            self.done += 1
            self._real(target, action)

        MountedTarget.apply = apply
        return self

    def __exit__(self, kind, *_):
        self._class.apply = self._real
        return kind is Killed


def run(machine, *words):
    """Run the command on *machine*; errors are raised, the rest is click's result."""
    from click.testing import CliRunner

    from cfs_core.cli.main import cli

    with machine.app() as app:
        app.configure(show_progress=False)
        name, *rest = map(str, words)
        extra = [name] if name not in {"deployments", "kargs", "boot"} else [name, rest.pop(0)]
        argv = ["--no-progress", *extra, "--root", str(machine.root), *rest]
        done = CliRunner().invoke(cli, argv, obj=app, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    done.exit_code = done.return_value or 0
    return done
