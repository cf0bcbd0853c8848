"""`cfs install` in a container of the image that it installs finds its source (buildah, chroot isolation)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import bootable

from cfs_testkit.builders.oci import Link

pytestmark = [
    pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed"),
    pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="makes a store and containers of root"),
]

DEFAULT = "/var/lib/containers/storage"


class Host:
    """A store with the image, and containers of it in which this machine's programs run."""

    def __init__(self, folder, driver):
        self.folder = folder
        self.driver = driver
        self.conf = folder / "storage.conf"
        self.conf.write_text(
            f'[storage]\ndriver="{driver}"\nrunroot="{folder}/run"\ngraphroot="{folder}/graph"\n'
            '[storage.options.overlay]\nskip_mount_home="true"\n'
        )
        (folder / "out").mkdir()
        layout = bootable.layout(folder / "oci", self=bootable.image(**_RUNNABLE))
        target = "containers-storage:registry.example.com/os:1"
        self.run("skopeo", "--insecure-policy", "copy", "-q", f"{layout}:self", target)
        self.container = self.run("buildah", "from", "--pull-never", "registry.example.com/os:1")

    def run(self, *argv, status=0):
        env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(self.conf), "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == status, done.stderr
        return done.stdout.strip() if status == 0 else done.stderr

    def cfs(self, *arguments, store=DEFAULT, status=0, mounts=()):
        """Run `cfs` in the container, with the store mounted at *store*."""
        paths = [each for each in sys.path if each and Path(each).is_dir()]
        needed = {"/usr", sys.prefix, sys.base_prefix, *(each for each in paths if not each.startswith("/usr/"))}
        outermost = [each for each in needed if not any(each.startswith(f"{other}/") for other in needed)]
        volumes = [part for each in sorted(outermost) for part in ("-v", f"{each}:{each}:ro")]
        volumes += ["-v", f"{self.folder}/out:/mnt", *(part for each in mounts for part in ("-v", each))]
        if store:
            volumes += ["-v", f"{self.folder}/graph:{store}"]
        environment = ["--env", f"PYTHONPATH={os.pathsep.join(paths)}", "--env", "XDG_CACHE_HOME=/tmp/cache"]
        program = [sys.executable, "-m", "cfs_core", *arguments]
        return self.run("buildah", "run", *volumes, *environment, self.container, "--", *program, status=status)

    def close(self):
        self.run("buildah", "rm", self.container)


_RUNNABLE = {name: Link(f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")} | {"mnt/.keep": b""}


@pytest.fixture(params=["overlay", "vfs"])
def host(tmp_path, request):
    made = Host(tmp_path, request.param)
    yield made
    made.close()


def test_a_dry_run_and_an_install_find_the_image(host):
    plan = json.loads(host.cfs("install", "to-disk", "--dry-run", "--format", "json", "/mnt/disk.img"))
    listed = host.run(
        "buildah", "images", "--digests", "--no-trunc", "--format", "{{.ID}} {{.Digest}}", "registry.example.com/os:1"
    )
    image_id, digest = listed.split()
    identity = image_id.removeprefix("sha256:")
    assert plan["image"]["reference"] == f"containers-storage:[{host.driver}@{DEFAULT}]@{identity}"
    assert plan["image"]["manifest_digest"] == digest
    assert plan["findings"] == []
    result = json.loads(host.cfs("install", "to-disk", "--format", "json", "/mnt/disk.img"))
    assert (result["image_id"], result["manifest_digest"]) == (plan["image"]["image_id"], digest)
    outside = [sys.executable, "-m", "cfs_core"]
    disk = str(host.folder / "out/disk.img")
    assert host.run(*outside, "repo", "fsck", "--disk", disk) == "clean"
    (deployment,) = json.loads(host.run(*outside, "status", disk, "--format", "json"))["cfs"]["deployments"]
    assert deployment["image"] == "docker://registry.example.com/os:1", "where updates come from"


def test_a_store_at_another_place(host):
    """storage.conf, of the host or mounted into the container, says where."""
    conf = host.folder / "moved.conf"
    conf.write_text(f'[storage]\ndriver="{host.driver}"\ngraphroot="/srv/store"\n')
    mounts = [f"{conf}:/etc/containers/storage.conf:ro"]
    arguments = ("install", "to-disk", "--dry-run", "--format", "json", "/mnt/disk.img")
    plan = json.loads(host.cfs(*arguments, store="/srv/store", mounts=mounts))
    assert plan["image"]["reference"].startswith(f"containers-storage:[{host.driver}@/srv/store]@")


def test_without_the_store_it_says_what_to_mount(host):
    error = host.cfs("install", "to-disk", "--dry-run", "/mnt/disk.img", store=None, status=6)
    assert "-v /var/lib/containers:/var/lib/containers" in error
