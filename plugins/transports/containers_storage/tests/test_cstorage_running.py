"""Finding the image that cfs runs in: by podman's file, and for real in a container with buildah's chroot isolation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cfs_core.install.running import find_running_image
from cfs_core.plugin import NotFoundError, RunningImage, TransportProvider, UsageError
from cfs_transport_containers_storage.running import running_image

ID = "ab" * 32


def container(root, *, image="quay.io/org/os:1", image_id=ID, store="var/lib/containers/storage"):
    (root / "run").mkdir()
    (root / "run/.containerenv").write_text(
        f'engine="podman-4.3.1"\nname="x"\nid="{"c" * 64}"\nimage="{image}"\nimageid="{image_id}"\nrootless=0\n'
    )
    if store:
        folder = root / store / "overlay-images"
        folder.mkdir(parents=True)
        (folder / "images.json").write_text(json.dumps([{"id": ID, "names": ["quay.io/org/os:1"]}]))


def test_outside_of_containers_there_is_none(tmp_path):
    assert running_image(tmp_path) is None


@pytest.mark.parametrize("store", ["var/lib/containers/storage", "proc/1/root/var/lib/containers/storage"])
def test_the_image_is_named_by_store_and_id(tmp_path, store):
    container(tmp_path, store=store)
    found = running_image(tmp_path)
    assert found.source == f"containers-storage:[overlay@{tmp_path}/{store}]@{ID}"
    assert found.name == "docker://quay.io/org/os:1"


@pytest.mark.parametrize("image", ["localhost/os:1", "os", ""])
def test_a_local_name_is_no_place_for_updates(tmp_path, image):
    container(tmp_path, image=image)
    assert running_image(tmp_path).name is None


def test_an_unprivileged_container_does_not_tell(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.containerenv").write_text("")
    with pytest.raises(UsageError) as caught:
        running_image(tmp_path)
    assert "--privileged" in caught.value.hint


@pytest.mark.parametrize("kwargs", [{"store": None}, {"image_id": "cd" * 32}])
def test_a_store_that_is_not_mounted(tmp_path, kwargs):
    container(tmp_path, **kwargs)
    with pytest.raises(NotFoundError) as caught:
        running_image(tmp_path)
    assert "-v /var/lib/containers" in caught.value.hint


def test_core_asks_the_transports():
    def provider(**more):
        return TransportProvider(name="x", summary="", factory=lambda _: None, schemes=("x",), **more)

    with pytest.raises(UsageError) as caught:
        find_running_image([provider(), provider(running_image=lambda: None)])
    assert "--source-imgref" in caught.value.hint
    found = RunningImage(source="x:found")
    assert find_running_image([provider(), provider(running_image=lambda: found)]) is found


INSIDE = """
from cfs_core.image.resolve import resolve
from cfs_core.install.running import find_running_image
from cfs_core.plugin import Digest
from cfs_testkit.context import plugin_context
from cfs_transport_containers_storage.plugin import cfs_register_transports
from pathlib import Path
(provider,) = cfs_register_transports()
found = find_running_image([provider])
transport = provider.factory(plugin_context(Path("/tmp")))
image = resolve(transport, transport.parse(found.source))
layer, diff_id = image.manifest.layers[0], image.config.diff_ids[0]
with transport.open_layer_uncompressed(image.reference, layer, diff_id) as chunks:
    assert Digest.of(b"".join(chunks)) == diff_id
print(found.source, image.manifest.digest)
"""


@pytest.mark.skipif(not shutil.which("buildah") or os.getuid() != 0, reason="needs buildah and root")
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_in_a_real_container(tmp_path, driver):
    conf = tmp_path / "storage.conf"
    conf.write_text(
        f'[storage]\ndriver="{driver}"\nrunroot="{tmp_path}/run"\ngraphroot="{tmp_path}/graph"\n'
        '[storage.options.overlay]\nskip_mount_home="true"\n'
    )

    def buildah(*arguments):
        env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(conf), "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(
            ["buildah", *arguments], env=env, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    content = tmp_path / "content"
    for folder in ("usr", "tmp", "run", "proc", "etc", "var/lib/containers/storage"):
        (content / folder).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (content / name).symlink_to(f"usr/{name}")
    base = buildah("from", "scratch")
    buildah("copy", "-q", base, str(content), "/")
    buildah("commit", "-q", base, "localhost/self:1")
    buildah("rm", base)
    made = buildah("from", "localhost/self:1")
    paths = [each for each in sys.path if each and Path(each).is_dir()]
    mounted = {"/usr", sys.prefix, sys.base_prefix, *(each for each in paths if not each.startswith("/usr/"))}
    outermost = [each for each in mounted if not any(each.startswith(f"{other}/") for other in mounted)]
    volumes = [part for each in sorted(outermost) for part in ("-v", f"{each}:{each}:ro")]
    volumes += ["-v", f"{tmp_path}/graph:/var/lib/containers/storage"]
    out = buildah("run", *volumes, "--env", f"PYTHONPATH={os.pathsep.join(paths)}", made, sys.executable, "-c", INSIDE)
    buildah("rm", made)
    source, digest = out.split()
    assert source.startswith(f"containers-storage:[{driver}@/var/lib/containers/storage]@")
    listed = buildah("images", "--digests", "--no-trunc", "--format", "{{.ID}} {{.Digest}}", "localhost/self:1")
    assert listed.split() == [f"sha256:{source.rpartition('@')[2]}", digest]
