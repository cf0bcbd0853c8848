"""The tutorials for authors from their first line to a booted disk, in an environment that nothing but wheels made."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from builders.outsiders import CHECKOUT, CORE, Outside, core_and_default_plugins

sys.path.insert(0, str(CHECKOUT / "tests/docs"))

import snippets

TOOLS = ("qemu-system-x86_64", "mmdebstrap", "umoci", "mcopy", "patch")
MACHINES = ("builds an image", "a virtual machine")
BOOTS_SECONDS = 1500
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Wheels of core, the default plugins and the kit, and what builds a plugin: what an author installs."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing; scripts/host-setup installs what VM tests need")
    folder = tmp_path_factory.mktemp("author") / "environment"
    projects = [CORE, *core_and_default_plugins()[1:], CHECKOUT / "plugins/testkit"]
    return Outside.make(folder, projects, extra=("hatchling", "editables")).folder


@pytest.fixture
def author(environment, tmp_path):
    """Somebody in an empty directory, who has that environment and nothing of this checkout in it."""
    reader = snippets.Reader(tmp_path, environment)
    said = subprocess.run(
        [environment / "bin/python", "-c", "import cfs_core; print(cfs_core.__file__)"],
        cwd=reader.here, env=reader.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not said.stdout.startswith(str(CHECKOUT))
    return reader


def page(name):
    return CHECKOUT / "docs/tutorial" / f"{name}.md"


def test_the_first_bootloader_is_started_by_firmware_and_boots_debian(author):
    """The page's own loader, from Debian's package; its kit boots the disk twice more, once with three entries."""
    wrong = author.follow(page("first-bootloader"), also=MACHINES, seconds=BOOTS_SECONDS)
    assert not wrong, "\n\n".join(wrong)
    (booted,) = (said for line, said in author.printed.items() if "cfs prove debian.img" in line)
    assert "debian.img: uefi, made with efi-shell, " in booted
    assert "root:    composefs, fs-verity required" in booted
    assert "systemd: running" in booted
    assert "are not compared" not in booted
    assert "2 passed" in booted
    assert "skipped" not in booted
    project = author.here / "cfs-efi-shell"
    proof = subprocess.run(
        ["cfs", "prove", "debian.img", "--timeout", "1", "--format", "json"],
        cwd=project, env=author.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    facts = json.loads(proof.stdout)
    assert any(argument.startswith("composefs=") for argument in facts["arguments"])


def test_the_first_transport_reads_an_image_that_boots(author):
    build = [CHECKOUT / "demo/build-debian-image", author.here / "debian"]
    subprocess.run(build, check=True, timeout=900, env=os.environ | {"LC_ALL": "C"})
    subprocess.run(
        ["cfs", "image", "copy", "oci:./debian:debian", "oci:./debian:latest"],
        cwd=author.here, env=author.environ, check=True, capture_output=True,
    )  # fmt: skip
    wrong = author.follow(page("first-transport"), also=("a virtual machine",), seconds=BOOTS_SECONDS)
    assert not wrong, "\n\n".join(wrong)
    (booted,) = (said for line, said in author.printed.items() if "cfs prove disk.img" in line)
    assert "made with systemd-boot" in booted
    assert "systemd: running" in booted
