"""Each plugin's source distribution carries its tests, and they run there: nothing of this repository is needed."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

hatchling = pytest.importorskip("hatchling.builders.sdist", reason="hatchling builds what is tested here")

ROOT = Path(__file__).parents[2]
PLUGINS = {
    path.parent.relative_to(ROOT / "plugins").as_posix(): path.parent
    for path in sorted((ROOT / "plugins").rglob("pyproject.toml"))
    if ".venv" not in path.parts
}


@pytest.fixture
def unpacked(tmp_path):
    def build(name):
        (archive,) = hatchling.SdistBuilder(str(PLUGINS[name])).build(directory=str(tmp_path))
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")
        (folder,) = (tmp_path / "unpacked").iterdir()
        return folder

    return build


def run_tests(folder, *options):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", *options, "tests"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def names(folder):
    return {path.relative_to(folder).as_posix() for path in (folder / "tests").rglob("*.py")}


@pytest.mark.parametrize("name", PLUGINS)
def test_all_tests_are_in_it_and_are_found_there(unpacked, name):
    folder = unpacked(name)
    assert names(folder) == names(PLUGINS[name])
    done = run_tests(folder, "--collect-only")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grub", "transports/oci_dir"])
def test_they_pass_there(unpacked, name):
    done = run_tests(unpacked(name), "-m", "not vm and not slow and not judge")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
