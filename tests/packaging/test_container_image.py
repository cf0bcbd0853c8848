"""The container image of cfs: built and used by an ordinary user with buildah, and its cfs installs a disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
from builders import bootable
from builders.debian import CHECKOUT, copy_of_the_checkout, make_tree
from builders.outsiders import core_and_default_plugins

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed"),
    pytest.mark.skipif(not shutil.which("newuidmap"), reason="newuidmap is not installed"),
]
IN_THE_BASE = (
    "ca-certificates",
    "binutils",
    "python3",
    "python3-pip",
    "dosfstools",
    "e2fsprogs",
    "grub-common",
    "mtools",
)
"""What the Containerfile installs too; apt has it from the same place, once."""
PYTHON = "3.13"  # of Debian 13
BUILD = r"""
set -e
buildah bud -q -t base -f base/Containerfile base
buildah bud -q -t cfs -v "$PWD/wheels:/wheels:ro" --build-arg BASE=localhost/base \
    --build-arg PIP_OPTIONS="--no-index --find-links /wheels" src
buildah rmi base >/dev/null 2>&1 || :
"""
USE = r"""
set -e
container=$(buildah from --pull-never cfs)
buildah run -v "$PWD/out:/out" -v "$PWD/oci:/oci:ro" "$container" -- /usr/bin/cfs "$@"
buildah rm "$container" >/dev/null
"""


class Builder:
    """An ordinary user (nobody, where the tests run as root) with a range of ids and a store of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._drop = ""
        if os.geteuid() == 0:
            (folder / "sub").write_text("nobody:100000:65536\n")
            self._drop = "setpriv --reuid nobody --regid nogroup --clear-groups"
        for name in ("home", "run", "out"):
            (folder / name).mkdir(mode=0o700)
        self.own()

    def own(self) -> None:
        """Make everything theirs."""
        if self._drop:
            subprocess.run(["chown", "-R", "nobody:nogroup", self.folder], check=True)

    def sh(self, script: str, *words: object) -> subprocess.CompletedProcess:
        """Run a script as that user."""
        kept = {name: value for name, value in os.environ.items() if "_proxy" in name.lower()}
        environ = kept | {
            "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder / "home"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "TMPDIR": str(self.folder / "home"),
            "BUILDAH_ISOLATION": "chroot",
        }
        command = ["sh", "-c", script, "sh", *map(str, words)]
        if self._drop:
            binds = f"mount --bind {self.folder}/sub /etc/subuid && mount --bind {self.folder}/sub /etc/subgid && "
            command = ["unshare", "-m", "sh", "-c", f'{binds} exec {self._drop} "$@"', "sh", *command]
        return subprocess.run(
            command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False, timeout=1500
        )

    def remove(self) -> None:
        """Remove the store, whose files belong to ids of the range, and the rest."""
        self.sh("buildah rm -a; buildah rmi -a -f; buildah unshare rm -rf home/.local home/.cache")
        shutil.rmtree(self.folder, ignore_errors=True)


def download_wheels(folder: Path) -> None:
    """Fetch what cfs needs on the tree's Python, for this machine's architecture; skip where there is no index."""
    projects = [tomllib.loads((path / "pyproject.toml").read_text()) for path in core_and_default_plugins()]
    needed = {text for each in projects for text in each["project"]["dependencies"] if not text.startswith("cfs-")}
    needed |= {text for each in projects for text in each["build-system"]["requires"]}
    platforms = [f"--platform=manylinux_2_{minor}_{os.uname().machine}" for minor in (17, 26, 27, 28, 34, 36)]
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", PYTHON,
            *platforms, "--dest", folder, *sorted(needed),
        ],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"the libraries of Python {PYTHON} cannot be had: {done.stderr[-400:]}")


@pytest.fixture(scope="module")
def user():
    """The image is built when this returns."""
    # below pytest's own directory another user cannot go
    folder = Path(tempfile.mkdtemp(prefix="cfs-container-", dir="/var/tmp"))
    folder.chmod(0o755)
    made = Builder(folder)
    try:
        possible = made.sh("buildah unshare true")
        if possible.returncode != 0:
            pytest.skip(f"buildah cannot run as an ordinary user here: {possible.stderr[-300:]}")
        download_wheels(folder / "wheels")
        (folder / "base").mkdir()
        make_tree(folder / "base/base.tar", IN_THE_BASE)
        (folder / "base/Containerfile").write_text("FROM scratch\nADD base.tar /\n")
        copy_of_the_checkout(folder / "src")
        bootable.layout(folder / "oci", latest=bootable.image())
        made.own()
        done = made.sh(BUILD)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        yield made
    finally:
        made.remove()


def test_it_runs_cfs_and_has_the_default_plugins(user):
    configured = json.loads(user.sh("buildah inspect --type image cfs").stdout)["OCIv1"]["config"]
    assert configured["Entrypoint"] == ["/usr/bin/cfs"]
    assert configured["WorkingDir"] == "/out"
    report = json.loads(user.sh(USE, "plugins", "doctor", "--format", "json").stdout)
    assert (report["healthy"], report["missing"], report["troubles"]) == (True, [], [])
    assert user.sh(USE, "--version").stdout.startswith("cfs ")


def test_it_installs_to_a_disk_in_the_folder_that_is_mounted(user):
    arguments = ("install", "to-disk", "--source-imgref", "oci:/oci:latest", "--yes", "--seed", "s", "--format", "json")
    done = user.sh(USE, *arguments, "/out/disk.img")
    assert done.returncode == 0, done.stderr
    disk = user.folder / "out/disk.img"
    here = [sys.executable, "-m", "cfs_core"]
    checked = subprocess.run([*here, "repo", "fsck", "--disk", disk], capture_output=True, text=True, check=False)
    assert checked.stdout == "clean\n", checked.stderr
    (deployment,) = json.loads(
        subprocess.run([*here, "status", disk, "--format", "json"], capture_output=True, text=True, check=True).stdout
    )["cfs"]["deployments"]
    digest = [*here, "image", "digest", f"oci:{user.folder}/oci:latest", "--bootable"]
    expected = subprocess.run(digest, capture_output=True, text=True, check=True).stdout.strip()
    assert json.loads(done.stdout)["image_id"] == expected
    assert expected in json.dumps(deployment)


def test_the_page_shows_the_command():
    assert 'podman run --rm -v "$PWD:/out"' in (CHECKOUT / "docs/howto/reproducible-ci.md").read_text()
