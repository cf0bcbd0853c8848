"""The mkinitcpio hook against functions that stand for mkinitcpio's of the same name (mkinitcpio(8), "Build hooks")."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files

import pytest

HOOK = files("cfs_initramfs").joinpath("boot/mkinitcpio/install-cfs")
# add_checked_modules takes only what this machine has loaded, if hook autodetect is used: nothing, in a container.
MKINITCPIO = """
set -eu
add_module() { echo "module $1"; }
add_checked_modules() { return 0; }
add_binary() { echo "binary $1"; }
add_file() { echo "file ${2:-$1} ${3:-}"; }
add_symlink() { echo "link $1 $2"; }
add_runscript() { echo runscript; }
. "$1"
build
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_what_the_hook_puts_into_the_initramfs_does_not_depend_on_the_machine_that_builds():
    done = subprocess.run(["bash", "-c", MKINITCPIO, "-", HOOK], capture_output=True, text=True, check=True)
    added = set(map(str.strip, done.stdout.splitlines()))
    assert {"module erofs", "module overlay"} <= added, "without them nothing boots: a build without them must fail"
    assert {"module loop?", "module efivarfs?"} <= added
    assert {f"binary {name}" for name in ("mount", "umount", "modprobe", "blkid", "dmesg")} <= added
    assert "file /usr/lib/cfs/cfs-setup-root 0755" in added
    wants = "/usr/lib/systemd/system/initrd-root-fs.target.requires/cfs-setup-root.service"
    assert f"link {wants} ../cfs-setup-root.service" in added
    assert "runscript" in added
