"""The tutorial of an image of one's own, as it stands there: built by buildah, installed, booted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import debian

sys.path.insert(0, str(debian.CHECKOUT / "tests/docs"))

import snippets

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="buildah without user namespaces needs root"),
]

PAGE = snippets.DOCS / "tutorial/your-own-image.md"
REASON = "builds an image, for minutes"
PROBE = "FROM scratch\nCOPY probe /probe\n"


@pytest.fixture
def shell(tmp_path):
    """Run a script where the files of the page are, with a store of its own."""
    missing = [tool for tool in ("buildah", "mmdebstrap", "qemu-system-x86_64") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    here = tmp_path / "here"
    here.mkdir()
    store = tmp_path / "storage.conf"
    store.write_text(f'[storage]\ndriver="vfs"\nrunroot="{tmp_path}/run"\ngraphroot="{tmp_path}/graph"\n')
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CONTAINERS_STORAGE_CONF": str(store),
        "BUILDAH_ISOLATION": "chroot",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def run(script, *, check=True):
        done = subprocess.run(
            ["bash", "-e"], input=script, cwd=here, env=environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    (here / "probe").write_text("x")
    (here / "Containerfile").write_text(PROBE)
    probe = run("buildah build --tag localhost/probe .", check=False)
    if probe.returncode != 0:
        pytest.skip(f"buildah does not work here: {probe.stderr[-300:]}")
    run.here = here
    yield run
    run("buildah rmi --all --force", check=False)


def test_the_page_makes_an_image_that_boots_and_is_a_base_for_others(shell, machine):
    said = []
    for block in snippets.blocks(PAGE):
        if block.caption:
            (shell.here / block.caption).write_text(block.text)
        elif block.reason == REASON:
            said.append(shell(block.text).stdout)
    assert "oci:images:my-system (systemd-boot, uefi, ext4): bootable\n  kernel 6." in said[1]
    assert "(/boot/vmlinuz-" in said[1]
    for image in ("my-system", "more"):
        report = json.loads(shell(f"cfs image check oci:images:{image} --format json").stdout)
        (judgement,) = report["judgements"]
        assert [finding["code"] for finding in judgement["findings"]] == ["boot.early-boot"], "and nothing else"
    log = shell.here / "console"
    report = machine.boot(shell.here / "disk.img", console_log=log)
    assert report.failure is None
    assert report.root.verity_required
    assert report.system_state == "running"
    assert b"hello from box, where anna lives" in log.read_bytes()
