"""The Debian packages: built and looked at by lintian in a clean Debian 13, installed there, and their cfs used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from builders import bootable
from builders.debian import CHECKOUT, copy_of_the_checkout, make_tree

sys.path.insert(0, str(CHECKOUT))

import hatch_build

pytestmark = [pytest.mark.campaign, pytest.mark.slow, pytest.mark.timeout(3000)]

TO_BUILD = (
    *("build-essential", "debhelper", "dh-python", "fakeroot", "lintian", "pybuild-plugin-pyproject", "python3-all"),
    "python3-hatchling",
)
TO_RUN = (
    *("dosfstools", "e2fsprogs", "libarchive13t64", "mtools", "python3-cffi", "python3-click", "python3-cryptography"),
    *("python3-lz4", "python3-pluggy", "python3-pytest", "python3-requests", "python3-rich", "python3-structlog"),
    *("python3-urllib3", "python3-xxhash", "python3-yaml", "python3-zstandard"),
)
STEPS = r"""
mkdir -p /made/out
cd /made/cfs
dpkg-buildpackage -us -uc >/made/out/build.log 2>&1 || { echo build >/made/out/failed; exit 0; }
cd /made
lintian --allow-root --fail-on error --fail-on warning cfs_*.changes >/made/out/lintian.log 2>&1 ||
    { echo lintian >/made/out/failed; exit 0; }
for package in *.deb; do
    dpkg-deb --field "$package" Package Depends Recommends | sed "s/^/$package: /"
    dpkg-deb --contents "$package" | sed "s/^/$package: /"
done >/made/out/packages
# the tree has what they depend on: nothing is fetched, and what is missing is an error
dpkg --install cfs_*.deb cfs-*.deb >/made/out/install.log 2>&1 || { echo install >/made/out/failed; exit 0; }
chown -R nobody /made/oci /made/out
as() { setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs env HOME=/made/out "$@"; }
{
    cd /made/out
    as cfs --version && as cfs plugins list --format json >list.json &&
    as cfs install to-disk --source-imgref oci:/made/oci:latest --yes --format json disk.img >result.json &&
    as cfs repo fsck --disk disk.img
} >/made/out/use.log 2>&1 || { echo use >/made/out/failed; exit 0; }
rm -rf /made/out/.cache
"""


@pytest.fixture(scope="module")
def out():
    """What building, installing and using the packages left."""
    with tempfile.TemporaryDirectory(prefix="cfs-debian-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        work = folder / "made"
        copy_of_the_checkout(work / "cfs")
        bootable.layout(work / "oci", latest=bootable.image())
        (work / "steps").write_text(STEPS)
        make_tree(
            "-", TO_BUILD + TO_RUN,
            f"--customize-hook=copy-in {work} /",
            '--customize-hook=chroot "$1" sh /made/steps',
            f"--customize-hook=sync-out /made/out {folder}",
            seconds=2700,
        )  # fmt: skip
        failed = folder / "failed"
        if failed.exists():
            step = failed.read_text().strip()
            pytest.fail(f"{step}: {(folder / f'{step}.log').read_text()[-4000:]}")
        assert (folder / "use.log").exists(), "the steps were not run"
        yield folder


def depends(text, package, field="Depends"):
    (line,) = re.findall(rf"^{package}_.*?: {field}: (.*)$", text, re.MULTILINE)
    return line.split(", ")


def names():
    return {"cfs" if name == "cfs-core" else name for name in hatch_build.folders(CHECKOUT)}


def test_there_is_one_package_for_core_and_for_each_plugin():
    control = (CHECKOUT / "debian/control").read_text()
    assert set(re.findall(r"^Package: (.*)$", control, re.MULTILINE)) == names()
    recommended = re.search(r"Recommends:\n(.*?)\nSuggests:\n (.*?),\n", control, re.DOTALL)
    default = {name for name in hatch_build.default_distributions(CHECKOUT) if name != "cfs-core"}
    assert set(re.findall(r"[\w-]+", recommended[1])) | {recommended[2]} == default


def test_lintian_finds_nothing(out):
    assert re.findall(r"^[EW]: .*$", (out / "lintian.log").read_text(), re.MULTILINE) == []


def test_what_is_in_them(out):
    text = (out / "packages").read_text()
    assert {line.partition("_")[0] for line in text.splitlines()} == names()
    for path in ("usr/bin/cfs", "usr/share/man/man1/cfs.1.gz", "usr/share/bash-completion/completions/cfs",
                 "usr/share/zsh/vendor-completions/_cfs"):  # fmt: skip
        assert re.search(rf"^cfs_.* \./{re.escape(path)}$", text, re.MULTILINE), path
    assert re.search(r"^cfs-prove_.* \./usr/share/man/man1/cfs-prove.1.gz$", text, re.MULTILINE)
    assert not re.search(r"tests/test_", text)


def test_a_plugin_needs_a_range_of_core_and_core_no_plugin(out):
    text = (out / "packages").read_text()
    assert not [each for each in depends(text, "cfs") if each.startswith("cfs")]
    assert "python3-pluggy (>= 1.5)" in depends(text, "cfs")
    for name in names() - {"cfs"}:
        ranges = [each for each in depends(text, name) if each.startswith("cfs ")]
        assert len(ranges) == 2, ranges
        assert "cfs (>= 0.1)" in ranges


def test_their_cfs_installs_a_disk_as_an_ordinary_user(out):
    listed = json.loads((out / "list.json").read_text())["providers"]
    assert {"composefs", "ext4", "gpt", "oci", "systemd-boot", "grub", "early-boot"} <= {
        each["name"] for each in listed
    }
    assert "clean" in (out / "use.log").read_text()
    here = [sys.executable, "-m", "cfs_core"]
    checked = subprocess.run(
        [*here, "repo", "fsck", "--disk", out / "disk.img"], capture_output=True, text=True, check=False
    )
    assert checked.stdout == "clean\n", checked.stderr
    status = subprocess.run([*here, "status", out / "disk.img"], capture_output=True, text=True, check=True).stdout
    assert json.loads((out / "result.json").read_text())["image_id"] in status
