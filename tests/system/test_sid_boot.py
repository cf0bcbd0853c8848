"""Debian's unstable suite: kernels 7.x, which bring their own vmlinuz in /usr/lib/modules."""

from __future__ import annotations

import json
import subprocess

import pytest
from builders.debian import CHECKOUT

pytestmark = [pytest.mark.campaign, pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1800)]
NEWEST_BEFORE = 6
"""Major version of the kernel that the other tests boot."""


@pytest.fixture(scope="module")
def sid_image(demo_image, workspace):
    """The OCI directory that `demo/run --suite sid` makes; *demo_image* skips where the tools are missing."""
    line = subprocess.run(
        [CHECKOUT / "scripts/host-setup", "apt-line", "sid"], capture_output=True, text=True, check=False
    )
    if line.returncode != 0:
        pytest.skip(f"no Debian mirror: {line.stderr.strip()}")
    out = workspace / "sid"
    subprocess.run([CHECKOUT / "demo/build-debian-image", out, "--suite", "sid"], check=True, timeout=1200)
    return out


def test_the_demo_of_sid_boots_its_kernel(sid_image, user, machine):
    disk = user.home / "sid.img"
    words = ("install", "to-disk", "--source-imgref", f"oci:{sid_image}:debian", "--seed", "sid", "--format", "json")
    plan = json.loads(user.cfs(*words, "--dry-run", disk).stdout)
    version = plan["kernel_version"]
    assert int(version.split(".")[0]) > NEWEST_BEFORE
    assert plan["kernel"] == f"/usr/lib/modules/{version}/vmlinuz"
    said = json.loads(user.cfs(*words, "--yes", disk).stdout)
    report = machine.boot(disk, console_log=user.home / "sid.log")
    assert report.failure is None
    assert report.evidence == "reporter"
    assert report.root.image_id == said["image_id"]
    assert report.root.verity_required
    assert report.system_state == "running"
    assert f"Linux version {version}" in (user.home / "sid.log").read_text(errors="replace")
