"""What the environment names counts only where it means one place."""

import os
from pathlib import Path

import pytest

from cfs_core.config.settings import load
from cfs_core.system.atomic import make_parent
from cfs_core.system.environment import directory_of


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache"),
        ({"HOME": "relative"}, None),
        ({"HOME": ""}, None),
        ({}, None),
    ],
)
def test_relative_directories_are_not_set(environ, expected):
    assert directory_of(environ, "XDG_CACHE_HOME", ".cache") == (Path(expected) if expected else None)


@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME"])
def test_settings_of_the_current_directory_are_not_read(tmp_path, monkeypatch, variable):
    for folder in (tmp_path / "cfs", tmp_path / ".config/cfs"):
        folder.mkdir(parents=True)
        (folder / "cfs.toml").write_text('repo = "/evil"\n')
    monkeypatch.chdir(tmp_path)
    assert load({variable: "."}, root=tmp_path / "none").value("repo") is None
    assert load({variable: str(tmp_path)}, root=tmp_path / "none").value("repo") == "/evil"


def test_no_umask_lets_others_write_into_a_new_cache(tmp_path):
    before = os.umask(0)
    try:
        make_parent(tmp_path / "a/b/repo")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]
