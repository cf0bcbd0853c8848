"""Two storage formats side by side: what is on a disk or in a folder is asked for, never assumed."""

from __future__ import annotations

import json
import shutil

import pytest
from builders.distributions import Site

from cfs_core.cli.scaffold import write_project
from cfs_testkit.layouts import bootable_image, efi_program, write_layout

INITRAMFS = """
from cfs_core.plugin import Initramfs, InitramfsProvider, InitramfsVerdict, hookimpl

CFS_PLUGIN_API = (2, 0)


class Ours(Initramfs):
    def examine(self, artifacts, image, storage_format):
        return InitramfsVerdict(supported=storage_format == "second" or None, handler="ours")


@hookimpl
def cfs_register_initramfs():
    return [InitramfsProvider(name="ours", summary="mounts second", factory=lambda context: Ours())]
"""
CONTENT = b"a file that both keep as an object: with more than sixty-four bytes, composefs does not put it inline"
DISTRIBUTIONS = {"composefs": "cfs-storage-composefs", "second": "cfs-second"}


class Both:
    """An image, disks of it in either format, and cfs with both formats."""

    def __init__(self, folder):
        self.folder = folder
        self.site = Site(folder / "site")
        for kind, name in (("storage", "second"), ("bootloader", "plain")):
            project = write_project(kind, name, folder / name)
            shutil.copytree(project / f"cfs_{name}", folder / f"site/cfs_{name}")
        # Helpers of `cfs_core.bls` know deployments by composefs=; the new loader knows them by its own entries.
        points = {"second": "cfs_second.plugin", "plain": "cfs_plain.plugin", "ours": "ours"}
        self.site.install("cfs-second", "1.0", points, {"ours.py": INITRAMFS})
        image = bootable_image({"usr/lib/plain/plainx64.efi": efi_program(), "usr/share/text": CONTENT})
        write_layout(image, folder / "oci")
        self.source = f"oci:{folder}/oci:latest"

    def cfs(self, *words, asked=None):
        environ = {"CFS_INSTALL_STORAGE": asked} if asked else {}
        cache = str(self.folder / f"cache-{asked}")
        return self.site.cfs(*words, CFS_DISABLE_PLUGINS="", XDG_CACHE_HOME=cache, **environ)

    def install(self, name):
        disk = str(self.folder / f"{name}.img")
        words = ("--source-imgref", self.source, "--bootloader", "plain", "--yes", disk)
        done = self.cfs("install", "to-disk", *words, asked=name)
        assert done.returncode == 0, done.stderr
        return disk

    def problems(self, disk, asked):
        done = self.cfs("repo", "fsck", "--disk", disk, "--format", "json", asked=asked)
        return json.loads(done.stdout)["problems"]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return Both(tmp_path_factory.mktemp("both"))


@pytest.fixture(scope="module")
def disks(both):
    return {name: both.install(name) for name in DISTRIBUTIONS}


def test_an_install_that_nothing_decides_names_both(both):
    disk = str(both.folder / "x.img")
    done = both.cfs("install", "to-disk", "--source-imgref", both.source, "--dry-run", disk)
    assert "several storage formats are installed (composefs, second)" in done.stderr


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("asked", [None, *DISTRIBUTIONS])
def test_a_disk_is_examined_as_what_it_is(both, disks, name, asked):
    """Whatever the settings of this host say about new disks."""
    assert both.problems(disks[name], asked) == []


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_its_own_format_finds_the_damage(both, disks, tmp_path, name):
    """One byte of a file's contents is another; the finding says whose it is."""
    disk = tmp_path / "disk.img"
    shutil.copyfile(disks[name], disk)
    where = disk.read_bytes().rfind(CONTENT)
    assert where > 0
    with disk.open("r+b") as file:
        file.seek(where)
        file.write(b"?")
    (other,) = DISTRIBUTIONS.keys() - {name}
    origins = {each["origin"] for each in both.problems(str(disk), other)}
    assert DISTRIBUTIONS[name] in origins
    assert DISTRIBUTIONS[other] not in origins


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_folder_is_opened_as_what_it_is(both, disks, name):
    assert disks
    repository = str(both.folder / f"cache-{name}/cfs/repo")
    (image,) = json.loads(both.cfs("image", "list", "--repo", repository, "--format", "json").stdout)
    assert image["name"] == both.source
    assert both.cfs("repo", "fsck", "--repo", repository).stdout == "clean\n"


def test_a_repository_that_two_claim_is_nobodys(both, disks):
    check = both.folder / "site/cfs_second/check.py"
    code = check.read_text()
    honest = """return data is not None and b'"format": "second"' in data"""
    assert code.count(honest) == 1
    try:
        check.write_text(code.replace(honest, "return data is not None"))
        done = both.cfs("repo", "fsck", "--disk", disks["composefs"])
    finally:
        check.write_text(code)
    assert done.returncode == 4
    assert "claimed by the storage formats composefs and second" in done.stderr
