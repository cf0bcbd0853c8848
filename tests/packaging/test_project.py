"""The project as somebody installs it, with pip and with uv: editable, from a wheel, from a source distribution."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from builders.outsiders import CHECKOUT, CORE, core_and_default_plugins
from builders.wheelhouse import Offline, make

from cfs_core.pluginhost.distributions import DEFAULTS, DISTRIBUTIONS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EVERYTHING = {"cfs-core", *DISTRIBUTIONS.values()}
INSTALLER = CHECKOUT / "packages/cfs-installer"
TOOLS = ["pip", "uv"]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Wheels of the libraries: nothing of the network is needed from here on."""
    pytest.importorskip("hatchling", reason="hatchling builds what is tested here")
    return make(tmp_path_factory.mktemp("wheelhouse") / "libraries", *EVERYTHING)


@pytest.fixture(scope="module")
def ours(libraries, tmp_path_factory):
    """An index's worth of this project: wheels of core, the default plugins and the distribution that names them."""
    folder = tmp_path_factory.mktemp("ours")
    builder = Offline(folder / "builder", "uv", libraries)
    for project in [*core_and_default_plugins(), INSTALLER]:
        shutil.copy(builder.build("wheel", project, folder / project.name), folder)
    return folder


@pytest.fixture(params=TOOLS)
def environment(request, libraries, tmp_path):
    return Offline(tmp_path / "environment", request.param, libraries)


def doctor(environment):
    return json.loads(environment.cfs("plugins", "doctor", "--format", "json"))


@pytest.mark.parametrize("form", ["editable", "folder", "wheel", "sdist"])
def test_core_alone(environment, form, tmp_path):
    if form in {"wheel", "sdist"}:
        environment.install(environment.build(form, CORE, tmp_path / "out"))
    else:
        environment.install(*(["-e"] if form == "editable" else []), CORE)
    environment.check()
    assert set(environment.versions()) == {"cfs-core"}
    share = environment.folder / "share"
    pages = {path.name for path in (CORE / "shared/man/man1").iterdir()}
    assert {path.name for path in (share / "man/man1").iterdir()} == pages
    assert (share / "bash-completion/completions/cfs").exists()
    (licence,) = environment.folder.glob("lib/*/site-packages/cfs_core-*.dist-info/licenses/LICENSE-MIT")
    assert licence.read_bytes() == (CHECKOUT / "LICENSE-MIT").read_bytes()


def test_core_alone_says_what_is_missing(environment, tmp_path):
    environment.install(CORE)
    report = environment.cfs("plugins", "doctor")  # nothing that is there is broken
    for family in ("transport", "storage format", "bootloader", "layout", "filesystem"):
        assert f"no plugin offers a {family}" in report
    assert f"pip install {DEFAULTS}" in report
    assert doctor(environment)["missing"] == ["transport", "storage format", "bootloader", "layout", "filesystem"]
    done = subprocess.run(
        [environment.bin / "cfs", "install", "to-disk", "--source-imgref", "oci:x", tmp_path / "d.img"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no transport for oci:" in done.stderr
    assert "pip install cfs-transport-oci-dir" in done.stderr
    assert "prove" not in environment.cfs("--help")


def test_a_plugin_beside_core_both_editable(environment):
    environment.install("-e", CORE, "-e", CHECKOUT / "plugins/disk")
    environment.check()
    assert set(environment.versions()) == {"cfs-core", "cfs-disk"}
    assert [plugin["name"] for plugin in doctor(environment)["plugins"]] == ["disk"]


def test_the_checkout_brings_the_default_plugins(environment):
    environment.install(CHECKOUT)
    environment.check()
    assert set(environment.versions()) == EVERYTHING | {"cfs-checkout"}
    report = doctor(environment)
    assert (report["healthy"], report["missing"], report["troubles"]) == (True, [], [])
    assert {plugin["distribution"] for plugin in report["plugins"]} == set(DISTRIBUTIONS.values())
    assert (environment.folder / "share/man/man1/cfs-prove.1").exists()
    assert (environment.folder / "share/man/man1/cfs.1").exists()


@pytest.mark.parametrize("tool", TOOLS)
def test_from_an_index_and_then_one_plugin_updated_alone(tool, libraries, ours, tmp_path):
    environment = Offline(tmp_path / "environment", tool, libraries, ours)
    environment.install(DEFAULTS)
    before = environment.versions()
    assert set(before) == EVERYTHING | {DEFAULTS}
    assert doctor(environment)["missing"] == []
    newer = tmp_path / "disk"
    shutil.copytree(CHECKOUT / "plugins/disk", newer)
    text = (newer / "pyproject.toml").read_text()
    (newer / "pyproject.toml").write_text(
        re.sub(r'^version = "[^"]*"$', 'version = "0.1.99"', text, flags=re.MULTILINE)
    )
    update = Offline(tmp_path / "builder", "uv", libraries).build("wheel", newer, tmp_path / "update")
    environment.wheels += (Path(update).parent,)
    environment.install("--upgrade", "cfs-disk")
    environment.check()
    assert environment.versions() == before | {"cfs-disk": "0.1.99"}
    assert doctor(environment)["healthy"]
