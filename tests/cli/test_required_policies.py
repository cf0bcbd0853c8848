"""Required policies judge wherever an image comes in: pull and copy, as install does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from builders import bootable

from cfs_testkit.builders.oci import write_docker_archive, write_index, write_layout

IMAGE = bootable.image()
OTHER = bootable.image("arm64")


@pytest.fixture
def run(tmp_path):
    def run(allowed, *args):
        config = tmp_path / "cfs.toml"
        pinned = f"[policy.settings.digest-pinned]\ndigests = {json.dumps(allowed)}\n"
        config.write_text(f'[policy]\nrequire = ["digest-pinned"]\n{pinned}')
        return subprocess.run(
            [sys.executable, "-m", "cfs_core", "--config", str(config), *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )

    return run


@pytest.fixture
def source(tmp_path):
    write_layout(tmp_path / "layout", {"1": IMAGE})
    return f"oci:{tmp_path}/layout:1"


def test_pull(run, source, tmp_path):
    repo = tmp_path / "repo"
    done = run([OTHER.digest], "image", "pull", source, "--repo", repo)
    assert done.returncode == 7
    assert "digest-pinned refuses" in done.stderr
    assert not repo.exists()
    done = run([IMAGE.digest], "image", "pull", source, "--repo", repo, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] == [f"digest-pinned: pinned to {IMAGE.digest}"]


def test_copy(run, source, tmp_path):
    done = run([OTHER.digest], "image", "copy", source, f"oci:{tmp_path}/out:1")
    assert done.returncode == 7
    assert not (tmp_path / "out").exists()
    assert run([IMAGE.digest], "image", "copy", source, f"oci:{tmp_path}/out:1").stdout.strip() == IMAGE.digest


@pytest.mark.parametrize("target", ["oci:{}/out:1", "oci-archive:{}/out.tar:1"])
def test_every_image_of_an_index_is_judged(run, tmp_path, target):
    write_index(tmp_path / "multi", {"1": [IMAGE, OTHER]})
    source, target = f"oci:{tmp_path}/multi:1", target.format(tmp_path)
    for allowed in ([IMAGE.digest], [OTHER.digest]):
        assert run(allowed, "image", "copy", source, target).returncode == 7
        assert not list(tmp_path.glob("out*"))
    one = run([OTHER.digest], "image", "copy", "--architecture", "arm64", source, f"oci:{tmp_path}/one:1")
    assert one.stdout.strip() == OTHER.digest
    assert run([IMAGE.digest, OTHER.digest], "image", "copy", source, target).returncode == 0


def test_an_archive_of_docker(run, tmp_path):
    """Its manifest is made up when it is read: pinning must name the same one."""
    write_docker_archive(tmp_path / "d.tar", IMAGE, "localhost/x:1")
    source = f"docker-archive:{tmp_path}/d.tar:localhost/x:1"
    refused = run([IMAGE.digest], "image", "copy", source, f"oci:{tmp_path}/out:1")
    assert refused.returncode == 7
    digest = next(word for word in refused.stderr.split() if word.startswith("sha256:"))
    assert run([digest], "image", "copy", source, f"oci:{tmp_path}/out:1").stdout.strip() == digest
