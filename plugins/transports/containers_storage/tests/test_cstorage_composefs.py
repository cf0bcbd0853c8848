"""Stores with use_composefs: files lie under the SHA-256 of their contents, and a table says which is which.

``store_use_composefs.tar.xz`` is such a store as skopeo 1.18 with mkcomposefs 1.0 left it after a pull (without
``overlay/l``, links that nothing here reads). Where skopeo is new enough, another one is made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from cfs_core.image.layers import open_layer
from cfs_core.plugin import ChangedError, Fetcher, StorageError, VerificationError
from cfs_core.testing import HostCommands, resolve
from cfs_transport_containers_storage.places import Places
from cfs_transport_containers_storage.store import Store, plain_name
from cfs_transport_containers_storage.transport import StorageTransport

RECORDED = Path(__file__).with_name("store_use_composefs.tar.xz")
TABLE = "=" + base64.b64encode(b"zstd-chunked-manifest").decode()
SETTINGS = """[storage]
driver = "overlay"
runroot = "{0}/run"
graphroot = "{0}/store"
[storage.options]
pull_options = {{enable_partial_images = "true", convert_images = "true", use_hard_links = "false", ostree_repos = ""}}
[storage.options.overlay]
use_composefs = "true"
skip_mount_home = "true"
"""


@pytest.fixture
def store(tmp_path):
    with tarfile.open(RECORDED) as archive:
        archive.extractall(tmp_path / "store", filter="tar")
    for path in (tmp_path / "store").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)  # as their owner has them, whoever runs the tests
    return tmp_path / "store"


@contextmanager
def opened(root):
    """Yield the transport, and the image in the store."""
    places = Places.of({"root": str(root), "driver": "overlay"}, {}, 0)
    transport = Fetcher(StorageTransport(places, HostCommands(os.environ)))
    try:
        yield transport, resolve(transport, transport.parse("containers-storage:localhost/t:1"))
    finally:
        transport.close()


def read_layers(root):
    """Return the tar of each layer."""
    found = []
    with opened(root) as (transport, image):
        for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
            with transport.open_layer_uncompressed(image.reference, descriptor, diff_id) as chunks:
                found.append(b"".join(chunks))
            assert hashlib.sha256(found[-1]).hexdigest() == diff_id.hex
    return found


def table_of(store, number):
    """Return the table of contents of a layer, the lowest first."""
    layers = json.loads((store / "overlay-layers/layers.json").read_text())
    return store / "overlay-layers" / layers[number]["id"] / TABLE


def test_layers_are_put_together_from_files_by_digest(store):
    first, second = read_layers(store)
    assert bytes(range(256)) * 400 in first
    assert b"ccc" in second
    assert all(len(path.name) == 62 for path in store.glob("overlay/*/diff/*/*"))  # nothing has its own name


def test_a_layer_without_its_table_is_refused_with_what_helps(store):
    table_of(store, 0).unlink()
    with pytest.raises(StorageError, match="kept with use_composefs, and nothing says under which names") as caught:
        read_layers(store)
    assert 'use_composefs = "false"' in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        lambda table: b"{",
        lambda table: b"[]",
        lambda table: b'{"entries": 1}',
        lambda table: b'{"entries": [{"type": "reg", "digest": "sha256:00"}]}',
        lambda table: table.replace(b"sha256:6b86", b"sha256:6B86", 1),
        lambda table: table.replace(b"sha256:6b86", b"sha512:6b86", 1),
        lambda table: table.replace(b"sha256:6b86", b"../../etc/pas", 1),
        lambda table: b"[" * 100_000,
    ],
)
def test_a_damaged_table_is_one_clear_error(store, change):
    path = table_of(store, 0)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StorageError, match="is not what containers/storage writes"):
        read_layers(store)


def test_a_file_that_the_table_does_not_have_is_noticed(store):
    path = table_of(store, 0)
    path.write_bytes(path.read_bytes().replace(b'"usr/a"', b'"usr/b"'))
    with pytest.raises(ChangedError, match="'usr/a' of layer"):
        read_layers(store)


def test_a_file_that_is_gone_is_noticed(store):
    name = hashlib.sha256(bytes(range(256)) * 400).hexdigest()
    (gone,) = store.glob(f"overlay/*/diff/{name[:2]}/{name[2:]}")
    gone.unlink()
    with pytest.raises(ChangedError, match="'usr/large' of layer"):
        read_layers(store)


def test_a_table_that_has_something_else_for_a_file_is_found_out(store):
    """Both have one byte: the diff-id tells them apart."""
    path = table_of(store, 1)
    wrong = hashlib.sha256(b"xyz").hexdigest()
    right = hashlib.sha256(b"ccc").hexdigest()
    (file,) = store.glob(f"overlay/*/diff/{right[:2]}/{right[2:]}")
    (file.parent.parent / wrong[:2]).mkdir()
    (file.parent.parent / wrong[:2] / wrong[2:]).write_bytes(b"xyz")
    path.write_bytes(path.read_bytes().replace(right.encode(), wrong.encode()))
    with opened(store) as (transport, image), open_layer(transport, image, 1) as layer:
        assert [member.size for member in layer.members()] == [0, 3, 0]
        with pytest.raises(VerificationError):
            list(layer.trailer())


@pytest.mark.parametrize(
    ("name", "plain"), [(b"./usr/a", b"usr/a"), (b"/usr/a", b"usr/a"), (b".hidden", b".hidden"), (b".//a", b"a")]
)
def test_names_are_compared_without_what_does_not_matter(name, plain):
    assert plain_name(name) == plain


def test_other_layers_have_no_table(store):
    layers = Store(store, "overlay")
    assert layers.flat_names("0" * 64) is None


def new_skopeo():
    """Return whether skopeo is there that knows use_composefs."""
    if shutil.which("skopeo") is None:
        return False
    said = subprocess.run(["skopeo", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 16)


@pytest.mark.judge
@pytest.mark.skipif(os.geteuid() != 0, reason="an overlay store of root's")
@pytest.mark.skipif(not new_skopeo(), reason="skopeo 1.16 or newer is not installed")
@pytest.mark.skipif(shutil.which("mkcomposefs") is None, reason="mkcomposefs is not installed")
@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")
@pytest.mark.parametrize("compression", ["zstd:chunked", "gzip"])
def test_what_skopeo_makes_today_is_read(tmp_path, store, compression):
    """The image of the recorded store, taken out of it by what is tested here, pushed, and pulled again."""
    layers = read_layers(store)
    from cfs_testkit.builders.oci import Image, Layer, write_layout

    made = [Layer(tar=tar, blob=tar, media_type="application/vnd.oci.image.layer.v1.tar") for tar in layers]
    write_layout(tmp_path / "layout", {"t": Image(made)})
    settings = tmp_path / "registry.yml"
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        "http: {addr: 127.0.0.1:5079}\n"
    )
    server = subprocess.Popen(
        ["docker-registry", "serve", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    conf = tmp_path / "storage.conf"
    conf.write_text(SETTINGS.format(tmp_path / "new"))
    address = "docker://127.0.0.1:5079/t:1"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--retry-times", "5"]
    try:
        push = [*copy, "--dest-tls-verify=false", "--dest-compress-format", compression, f"oci:{tmp_path}/layout:t"]
        subprocess.run([*push, address], check=True)
        subprocess.run(
            [*copy, "--src-tls-verify=false", address, "containers-storage:localhost/t:1"],
            check=True, env=os.environ | {"CONTAINERS_STORAGE_CONF": str(conf)},
        )  # fmt: skip
    finally:
        server.kill()
        server.wait()
    assert list((tmp_path / "new/store/overlay").glob("*/composefs-data/composefs.blob"))
    assert read_layers(tmp_path / "new/store") == layers
