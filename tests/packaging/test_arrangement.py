"""What the project consists of as distributions: one list, licences in each, nothing of the machine that builds."""

from __future__ import annotations

import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from builders.wheelhouse import Offline, make
from packaging.requirements import Requirement

from cfs_core import __version__
from cfs_core.pluginhost.distributions import DEFAULTS, DISTRIBUTIONS

sys.path.insert(0, str(Path(__file__).parents[2]))

import hatch_build

ROOT = Path(__file__).parents[2]
INSTALLER = ROOT / "packages/cfs-installer"
PROJECTS = [ROOT / "cfs_core", INSTALLER, *sorted(set(hatch_build.folders(ROOT).values()) - {ROOT / "cfs_core"})]
LIBRARIES = {"click", "pluggy", "rich", "structlog", "zstandard"}


def name(folder):
    return folder.relative_to(ROOT).as_posix()


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def test_core_depends_on_five_libraries():
    assert {Requirement(text).name for text in project(ROOT / "cfs_core")["dependencies"]} == LIBRARIES


def test_the_list_of_default_plugins_is_every_plugin_but_the_kit_and_what_needs_a_library():
    listed = hatch_build.default_distributions(ROOT)
    assert set(hatch_build.folders(ROOT)) - set(listed) == {"cfs-accel-ipsec-mb", "cfs-plugin-testkit"}
    assert set(listed) - {"cfs-core"} == set(DISTRIBUTIONS.values())
    assert project(INSTALLER)["name"] == DEFAULTS


@pytest.mark.parametrize("folder", PROJECTS, ids=name)
def test_ranges_admit_the_versions_that_are_here(folder):
    versions = {each: project(path).get("version", __version__) for each, path in hatch_build.folders(ROOT).items()}
    stated = [Requirement(text) for text in project(folder)["dependencies"]]
    ours = [needed for needed in stated if needed.name in versions]
    assert ours or folder.name == "cfs_core"
    for needed in ours:
        assert needed.specifier.contains(versions[needed.name])
        assert {each.operator for each in needed.specifier} == {">=", "<"}, "one plugin is updated alone"


@pytest.mark.parametrize("folder", PROJECTS, ids=name)
def test_licences_are_copies_of_the_ones_at_the_top(folder):
    for file in ("LICENSE-APACHE", "LICENSE-MIT"):
        assert not (folder / file).is_symlink(), "an archive would hold a link to nowhere"
        assert (folder / file).read_bytes() == (ROOT / file).read_bytes()
    assert project(folder)["license-files"] == ["LICENSE-APACHE", "LICENSE-MIT"]


def test_mypy_looks_into_every_plugin():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["mypy_path"]
    plugins = {f"$MYPY_CONFIG_FILE_DIR/{name(folder)}" for folder in PROJECTS if folder.parts[-2] != "packages"}
    assert plugins - {"$MYPY_CONFIG_FILE_DIR/cfs_core"} <= set(listed)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling builds what is tested here")
    folder = tmp_path_factory.mktemp("builder")
    return Offline(folder / "environment", "uv", make(folder / "wheels"))


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {each: archive.read(each) for each in archive.namelist() if not each.endswith("/RECORD")}


@pytest.mark.slow
@pytest.mark.parametrize("folder", PROJECTS, ids=name)
def test_a_wheel_is_the_same_from_a_checkout_and_from_a_source_distribution(builder, folder, tmp_path):
    direct = builder.build("wheel", folder, tmp_path / "direct")
    sdist = builder.build("sdist", folder, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        assert all(member.isfile() for member in archive), "no link, and no folder without files"
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    assert [path for path in files if str(ROOT).encode() in path.read_bytes()] == []
    assert all(each.encode() not in (unpacked / "PKG-INFO").read_bytes() for each in ("file:", " @ "))
    again = builder.build("wheel", unpacked, tmp_path / "again")
    assert contents(again) == contents(direct)
    assert again.name == direct.name


@pytest.mark.slow
@pytest.mark.parametrize("folder", PROJECTS, ids=name)
def test_a_wheel_holds_its_package_and_its_licences(builder, folder, tmp_path):
    found = contents(builder.build("wheel", folder, tmp_path / "out"))
    (metadata,) = (each for each in found if each.endswith(".dist-info/METADATA"))
    licences = {each.rpartition("/")[2] for each in found if ".dist-info/licenses/" in each}
    assert licences == {"LICENSE-APACHE", "LICENSE-MIT"}
    facts = message_from_bytes(found[metadata])
    assert facts["License-Expression"] == "Apache-2.0 OR MIT"
    packages = {each.split("/")[0] for each in found if ".dist-info/" not in each and ".data/" not in each}
    if folder == INSTALLER:
        assert packages == set()
        return
    package = "cfs_core" if folder.name == "cfs_core" else next(folder.glob("cfs_*")).name
    assert packages == {package}
    source = folder if folder.name == "cfs_core" else folder / package
    wanted = {
        f"{package}/{path.relative_to(source).as_posix()}" for path in source.rglob("*.py") if "venv" not in path.parts
    }
    assert {each for each in found if each.endswith(".py") and each.startswith(package)} == wanted
    assert not [each for each in found if each.endswith(("PKG-INFO", "pyproject.toml", "README.md"))]


@pytest.mark.slow
def test_the_checkout_itself_makes_no_source_distribution(builder, tmp_path):
    with pytest.raises(AssertionError, match="build those of cfs_core"):
        builder.build("sdist", ROOT, tmp_path / "out")
