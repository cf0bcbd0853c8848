"""`cfs plugins new` as outsiders use it: wheels in a fresh environment, contracts green, `cfs` using the result."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from builders.outsiders import CHECKOUT, Outside, build_wheels, core_and_default_plugins

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    build_wheels(folder, [*core_and_default_plugins(), CHECKOUT / "plugins/testkit"])
    return folder


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Core and the kit, nothing else: what the author of a plugin needs."""
    folder = tmp_path_factory.mktemp("author") / "outside"
    return Outside.make(folder, [CHECKOUT, CHECKOUT / "plugins/testkit"], extra=("hatchling",), core_only=True)


@pytest.mark.parametrize("kind", ["bootloader", "transport", "storage", "policy"])
def test_a_new_project_is_a_plugin_that_conforms(outside, tmp_path, kind):
    name = f"made-{kind}"
    outside.ok("cfs", "plugins", "new", kind, name, cwd=tmp_path)
    project = tmp_path / f"cfs-{name}"
    assert {"pyproject.toml", "README.md", ".github", "tests"} <= {path.name for path in project.iterdir()}
    outside.ok(
        "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".", cwd=project
    )  # fmt: skip
    (wheel,) = (project / "dist").glob("*.whl")
    outside.ok("pip", "install", "--quiet", "--no-deps", wheel)
    shutil.rmtree(project / f"cfs_made_{kind}")  # what is tested is what is installed
    said = outside.run("pytest", "-q", "-p", "no:cacheprovider", "--cfs-report", "report.json", cwd=project)
    assert said.returncode == 0, said.stdout[-4000:]
    report = json.loads((project / "report.json").read_text())
    assert report["conforms"] is True
    for contract in report["contracts"]:
        plugin = {"name": name, "distribution": f"cfs-{name}", "version": "0.1.0"}
        assert (contract["provider"], contract["plugin"]) == (name, plugin)
        assert contract["summary"]["passed"] > 10
    listed = json.loads(outside.ok("cfs", "plugins", "list", "--format", "json"))["providers"]
    assert [p["distribution"] for p in listed if p["name"] == name] == [f"cfs-{name}"]
    doctor = json.loads(outside.run("cfs", "plugins", "doctor", "--format", "json").stdout)
    assert [trouble for trouble in doctor["troubles"] if trouble["plugin"] == name] == []


def test_from_an_empty_directory_to_a_disk(wheels):
    """The recorded script: only wheels, a new bootloader, its contract, an installed disk, its check."""
    done = subprocess.run(
        [CHECKOUT / "scripts/new-plugin", wheels, "my-loader"],
        env={name: value for name, value in os.environ.items() if not name.startswith(("CFS_", "PYTHON"))},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "BootloaderContract my-loader: conforms" in done.stdout


@pytest.mark.parametrize("name", ["Upper", "under_score", "1st", "-x", "a--b", "a b", "", "a/b", "../up"])
def test_names_that_no_provider_can_have_are_refused(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-m", "cfs_core", "plugins", "new", "policy", "--", name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "cfs-mine").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "cfs_core", "plugins", "new", "policy", "mine"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert list((tmp_path / "cfs-mine").iterdir()) == []
