"""Who else can write to a directory."""

import os

import pytest

from cfs_core.config.keys import BY_NAME
from cfs_core.config.settings import Rank, Settings, layer_from_table, parse_toml
from cfs_core.system.ownership import somebody_else


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "a" / "b"
    path.mkdir(parents=True)
    return path


def test_what_is_ours_is_ours(folder):
    assert somebody_else(folder, inside=True) is None
    assert somebody_else(folder / "not" / "there", inside=True) is None


def test_a_file_on_the_way_is_for_whoever_opens_it(folder):
    (folder / "file").write_text("x")
    assert somebody_else(folder / "file" / "below") is None


@pytest.mark.parametrize("mode", [0o777, 0o707])
def test_a_directory_on_the_way_that_all_can_write_to(folder, mode):
    folder.parent.chmod(mode)
    assert str(folder.parent) in somebody_else(folder)
    folder.parent.chmod(mode | 0o1000)
    assert somebody_else(folder) is None
    assert somebody_else(folder.parent) is not None, "sticky: others cannot rename, but they can add"


def test_a_link_leads_through_directories_of_its_own(folder, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "link").symlink_to(folder)
    (tmp_path / "link").symlink_to("open/link")
    assert somebody_else(tmp_path / "link") is None
    (tmp_path / "open").chmod(0o777)
    assert str(tmp_path / "open") in somebody_else(tmp_path / "link")


def test_links_in_circles_end(tmp_path):
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    assert somebody_else(tmp_path / "x") is None


def test_directories_inside(folder):
    (folder / "c").mkdir(mode=0o755)
    (folder / "c").chmod(0o777)
    assert somebody_else(folder) is None
    assert str(folder / "c") in somebody_else(folder, inside=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_other_owners_and_groups(folder):
    os.chown(folder, 4711, 0)
    assert "user 4711" in somebody_else(folder)
    os.chown(folder, 0, 4711)
    folder.chmod(0o775)
    assert "group 4711" in somebody_else(folder)
    os.chown(folder, 0, 0)
    assert somebody_else(folder) is None


def test_path_and_trust_in_one_file():
    table = parse_toml(b'[repo]\npath = "/somewhere"\ntrust = "any"\n', "test")
    settings = Settings((layer_from_table(table, "test", Rank.ETC),))
    assert settings.value("repo") == "/somewhere"
    assert settings.value("repo.trust") == "any"
    assert not BY_NAME["repo.trust"].image, "an image has no say in it"
