"""The demo's builder: from a checkout that cannot be written to, and the early boot that it puts into a UKI."""

from __future__ import annotations

import io
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cfs_initramfs.cpio import read_initramfs

CHECKOUT = Path(__file__).parents[2]
BUILDER = "demo/build-debian-image"
ASK = "import runpy, sys; print(runpy.run_path(sys.argv[1], run_name='builder')['default_cache']())"
NOBODY = 65534


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere; no setpriv")
@pytest.mark.parametrize("writable", [True, False])
def test_builds_are_kept_where_they_can_be_written(writable, tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "demo").mkdir(parents=True)
    shutil.copy(CHECKOUT / BUILDER, checkout / BUILDER)
    for folder in (tmp_path, *tmp_path.parents):
        if folder in Path(tempfile.gettempdir()).parents or folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(folder.stat().st_mode | 0o055)
    checkout.chmod(0o777 if writable else 0o555)
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    argv = [*as_nobody, sys.executable if not as_nobody else "/usr/bin/python3", "-c", ASK, checkout / BUILDER]
    done = subprocess.run(argv, env={"HOME": "/home/x"}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (f"{checkout}/.cache/demo" if writable else "/home/x/.cache/cfs-demo")


def test_the_early_boot_of_the_uki_is_what_an_install_adds():
    builder = runpy.run_path(str(CHECKOUT / BUILDER), run_name="builder")
    files = {entry.name: entry for entry in read_initramfs(io.BytesIO(builder["early_boot_cpio"]()), bool)}
    units = "usr/lib/systemd/system"
    script = (CHECKOUT / "plugins/initramfs/cfs_initramfs/boot/cfs-setup-root").stat().st_size
    assert files["usr/lib/cfs/cfs-setup-root"].mode == 0o100755
    assert files["usr/lib/cfs/cfs-setup-root"].size == script
    assert files[f"{units}/initrd-root-fs.target.requires/cfs-setup-root.service"].is_link
    assert f"{units}/cfs-setup-root.service" in files
