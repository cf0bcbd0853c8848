"""Finding the image that cfs runs in: by podman's file, and for real in a container with buildah's chroot isolation."""

from __future__ import annotations

import json

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


@pytest.mark.parametrize("conf", ["", "proc/1/root/"])
@pytest.mark.parametrize("mounted", ["", "proc/1/root/"])
def test_a_graph_root_of_storage_conf(tmp_path, conf, mounted):
    """Ours or the host's file; the store is mounted at the same place, or seen through the host's first process."""
    container(tmp_path, store=f"{mounted}srv/store")
    (tmp_path / conf / "etc/containers").mkdir(parents=True)
    file = tmp_path / conf / "etc/containers/storage.conf"
    file.write_text('[storage]\ndriver = "overlay"\ngraphroot = "/srv/store"\n')
    assert running_image(tmp_path).source == f"containers-storage:[overlay@{tmp_path}/{mounted}srv/store]@{ID}"
    file.write_text("not toml")
    with pytest.raises(NotFoundError):
        running_image(tmp_path)


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
