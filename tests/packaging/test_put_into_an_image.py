"""cfs in the tree of an image: what `scripts/put-into` makes of wheels, as the page says, run from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.outsiders import CHECKOUT, build_wheels, core_and_default_plugins
from builders.wheelhouse import make

from cfs_core.pluginhost.distributions import DISTRIBUTIONS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not shutil.which("strip"), reason="strip is not installed (binutils)"),
]
MOST_MEGABYTES = 60
SCRIPT = CHECKOUT / "scripts/put-into"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    wheels = make(folder / "wheels", *DISTRIBUTIONS.values())
    build_wheels(wheels, [*core_and_default_plugins(), CHECKOUT / "packages/cfs-installer"])
    made = folder / "tree"
    old = made / "usr/lib/cfs/left_by_an_older_version.py"
    old.parent.mkdir(parents=True)
    old.touch()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [SCRIPT, made, "--no-index", "--find-links", wheels, "cfs-installer"],
        env=environ | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def run(tree, *words, **environ):
    """Run the command as it would be on the machine: the path it looks in is the only thing that is put right here."""
    text = (tree / "usr/bin/cfs").read_text()
    assert text.startswith("#!/usr/bin/python3 -I\n")
    assert text.count('"/usr/lib/cfs"') == 1
    code = text.replace('"/usr/lib/cfs"', repr(str(tree / "usr/lib/cfs")))
    bare = [sys._base_executable, "-I", "-S", "-c", code, *words]  # -S: nothing of this machine's site-packages
    return subprocess.run(bare, env={"HOME": "/nonexistent", **environ}, capture_output=True, text=True, check=False)


def test_the_commands_run_from_there(tree):
    done = run(tree, "--version")
    assert (done.returncode, done.stdout[:4]) == (0, "cfs "), done.stderr
    assert "--sysroot" in run(tree, "status", "--help").stdout
    doctor = run(tree, "plugins", "doctor", PYTHONPATH="/somewhere")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert doctor.stdout.count("ok ") == len(set(DISTRIBUTIONS.values()))
    assert "missing" not in doctor.stdout


def test_it_is_small(tree):
    size = sum(path.lstat().st_size for path in tree.rglob("*") if not path.is_dir())
    assert size < MOST_MEGABYTES * 1_000_000
    used = subprocess.run(["du", "-sk", tree], capture_output=True, text=True, check=True).stdout.split()[0]
    assert int(used) < MOST_MEGABYTES * 1000


def test_neither_pip_nor_paths_of_this_machine_are_left(tree):
    home = tree / "usr/lib/cfs"
    names = {path.name for path in home.iterdir()}
    assert not {name for name in names if name.startswith(("pip", "setuptools", "hatchling", "bin", "share"))}
    assert "left_by_an_older_version.py" not in names
    texts = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert [path for path in texts if str(tree.parent).encode() in path.read_bytes()] == []
    assert sorted(path.name for path in (tree / "usr/bin").iterdir()) == ["cfs"]
    assert os.access(tree / "usr/bin/cfs", os.X_OK)
    assert (tree / "usr/share/man/man1/cfs.1").exists()
    assert list(home.glob("cfs_core-*.dist-info/licenses/LICENSE-MIT"))


def test_compiled_files_are_there(tree):
    """On a machine `/usr` cannot be written: what is not compiled now is compiled at each start."""
    package = Path(tree / "usr/lib/cfs/cfs_core")
    assert {path.stem for path in package.glob("*.py")} == {
        path.name.split(".")[0] for path in (package / "__pycache__").glob("*.pyc")
    }


def test_without_a_tree_it_says_how_it_is_called():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage: scripts/put-into TREE" in done.stderr
