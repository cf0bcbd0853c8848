"""Putting early-boot code into an image's root."""

from __future__ import annotations

import pytest

from cfs_core.plugin import ImageError, RefusedError
from cfs_initramfs.place import HOOKS, Generator, place


def test_files_for_every_generator_that_is_there(tmp_path):
    for program in ("usr/bin/dracut", "usr/sbin/mkinitramfs"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).touch()
    written = place(tmp_path)
    assert "usr/lib/dracut/modules.d/90cfs/module-setup.sh" in written
    assert "usr/share/initramfs-tools/scripts/local-bottom/cfs" in written
    assert not any("initcpio" in path for path in written)
    assert all((tmp_path / path).is_file() for path in written)


@pytest.mark.parametrize("generator", Generator)
def test_a_generator_by_name(tmp_path, generator):
    written = place(tmp_path, [generator])
    assert {item.destination for item in HOOKS[generator]} < set(written)
    assert (tmp_path / "usr/lib/cfs/cfs-setup-root").stat().st_mode & 0o7777 == 0o755


def test_doing_it_again_replaces_and_leaves_nothing_over(tmp_path):
    first = place(tmp_path, [Generator.DRACUT])
    (tmp_path / "usr/lib/cfs/cfs-setup-root").write_text("old")
    assert place(tmp_path, [Generator.DRACUT]) == first
    assert (tmp_path / "usr/lib/cfs/cfs-setup-root").read_text().startswith("#!/bin/sh")
    assert sorted(path.name for path in (tmp_path / "usr/lib/cfs").iterdir()) == [
        "cfs-setup-root",
        "cfs-setup-root.service",
    ]


def test_an_image_without_a_generator_is_refused(tmp_path):
    with pytest.raises(ImageError):
        place(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_links_inside_the_image_are_followed_and_links_out_of_it_refused(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "usr/lib").mkdir(parents=True)
    outside.mkdir()
    (root / "etc").symlink_to("usr/lib")
    place(root, [Generator.MKINITCPIO])
    assert (root / "usr/lib/mkinitcpio.conf.d/90-cfs.conf").is_file()
    (root / "usr/share").symlink_to(outside)
    with pytest.raises(RefusedError):
        place(root, [Generator.INITRAMFS_TOOLS])
    assert list(outside.iterdir()) == []


def test_what_is_no_directory_is_refused(tmp_path):
    with pytest.raises(RefusedError):
        place(tmp_path / "missing", [Generator.DRACUT])
