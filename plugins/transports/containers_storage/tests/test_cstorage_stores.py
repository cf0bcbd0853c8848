"""Stores made by buildah, podman and skopeo themselves, overlay and vfs, root's and an ordinary user's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cfs_core.image.resolve import resolve
from cfs_core.plugin import ChangedError, Descriptor, Digest, Fetcher, NotFoundError, StorageError
from cfs_core.system.command import HostCommands
from cfs_testkit.context import plugin_context
from cfs_testkit.images import build_image
from cfs_transport_containers_storage.places import Places
from cfs_transport_containers_storage.store import Store
from cfs_transport_containers_storage.transport import StorageTransport

pytestmark = [
    pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed"),
    pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="makes stores of root"),
]


class RealStore:
    """A private store, filled by the real tools."""

    def __init__(self, folder, driver, additional=()):
        self.driver = driver
        self.graph = folder / f"graph-{driver}"
        self.conf = folder / f"storage-{driver}.conf"
        text = f'[storage]\ndriver="{driver}"\nrunroot="{folder}/run-{driver}"\ngraphroot="{self.graph}"\n'
        if additional:
            text += f"[storage.options]\nadditionalimagestores={json.dumps([str(each) for each in additional])}\n"
        # without this a bind mount stays behind
        self.conf.write_text(text + '[storage.options.overlay]\nskip_mount_home="true"\n')

    def run(self, *argv, cwd=None):
        env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(self.conf), "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def digest(self, name):
        return self.run("skopeo", "inspect", "--format", "{{.Digest}}", f"containers-storage:{name}")

    def transport(self, **section):
        environ = {"CONTAINERS_STORAGE_CONF": str(self.conf)}
        return Fetcher(StorageTransport(Places.of(section, environ, 0), HostCommands(os.environ)))


def make_content(folder):
    (folder / "usr/lib").mkdir(parents=True)
    (folder / "etc/sub").mkdir(parents=True)
    (folder / "usr/lib/os-release").write_text("ID=x\n")
    (folder / "usr/lib/big").write_bytes(bytes(range(256)) * 12_345)
    os.link(folder / "usr/lib/big", folder / "usr/lib/hard")
    (folder / "usr/lib/link").symlink_to("os-release")
    (folder / "etc/sub/a").write_text("a")
    (folder / "etc/empty").write_text("")
    (folder / "etc/secret").write_text("s3")
    (folder / "etc/secret").chmod(0o600)
    os.chown(folder / "etc/secret", 10, 11)
    (folder / "etc" / ("long" * 40)).write_text("long")
    (folder / "etc/ümläut ☃").write_text("x")
    os.mkfifo(folder / "etc/fifo")


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """Images t:1 (one layer), t:2 (with whiteouts) and t:3 (built by a Containerfile) under both drivers."""
    folder = tmp_path_factory.mktemp("stores")
    content = folder / "content"
    make_content(content)
    made = {}
    for driver in ("overlay", "vfs"):
        store = made[driver] = RealStore(folder, driver)
        container = store.run("buildah", "from", "scratch")
        store.run("buildah", "copy", "-q", container, str(content), "/")
        store.run("buildah", "commit", "-q", "--timestamp", "0", container, "localhost/t:1")
        store.run("buildah", "rm", container)
        container = store.run("buildah", "from", "localhost/t:1")
        mount = Path(store.run("buildah", "mount", container))
        shutil.rmtree(mount / "etc/sub")
        (mount / "etc/sub").mkdir()
        (mount / "etc/sub/new").write_text("opaque")
        (mount / "etc/empty").unlink()
        store.run("buildah", "umount", container)
        store.run("buildah", "commit", "-q", "--timestamp", "0", container, "localhost/t:2")
        store.run("buildah", "rm", container)
        (folder / "Containerfile").write_text("FROM localhost/t:2\nCOPY content/etc/secret /etc/again\nLABEL a=b\n")
        build = ("buildah", "bud", "--layers", "-q", "--timestamp", "0", "-t", "localhost/t:3")
        store.run(*build, "-f", "Containerfile", ".", cwd=folder)
    return made


@pytest.fixture(params=["overlay", "vfs"])
def store(stores, request):
    return stores[request.param]


def check_layers(transport, text):
    """Resolve and read all layers; return the manifest's digest."""
    image = resolve(transport, transport.parse(text))
    for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
        hasher = hashlib.sha256()
        with transport.open_layer_uncompressed(image.reference, descriptor, diff_id) as chunks:
            for chunk in chunks:
                hasher.update(chunk)
        assert hasher.hexdigest() == diff_id.hex
    return str(image.manifest.digest)


def first_layer(transport, image):
    return transport.open_layer_uncompressed(image.reference, image.manifest.layers[0], image.config.diff_ids[0])


@pytest.mark.parametrize("name", ["localhost/t:1", "t:2", "localhost/t:3"])
def test_layers_are_byte_exact(store, name):
    transport = store.transport()
    digest = check_layers(transport, f"containers-storage:{name}")
    assert (
        store.run("skopeo", "inspect", "--format", "{{.Digest}}", f"containers-storage:localhost/t:{name[-1]}")
        == digest
    )


def test_by_id_digest_and_store_in_brackets(store):
    image_id = store.run("buildah", "images", "--no-trunc", "--quiet", "localhost/t:3").removeprefix("sha256:")
    digest = store.run("skopeo", "inspect", "--format", "{{.Digest}}", "containers-storage:localhost/t:3")
    for rest in (
        image_id,
        f"@{image_id[:10]}",
        f"sha256:{image_id}",
        f"localhost/t@{digest}",
        f"localhost/t@{image_id}",
    ):
        assert check_layers(store.transport(), f"containers-storage:{rest}") == digest
    nowhere = Places(roots=(Path("/nowhere"),), graph=Path("/nowhere"))
    elsewhere = Fetcher(StorageTransport(nowhere, HostCommands(os.environ)))
    assert check_layers(elsewhere, f"containers-storage:[{store.driver}@{store.graph}]t:3") == digest
    assert check_layers(elsewhere, f"containers-storage:[{store.graph}]t:3") == digest


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_what_was_pulled_keeps_its_manifest(store, registry_server, compression):
    if compression == "zstd":
        pytest.importorskip("zstandard")
    image = build_image([{"usr/bin/x": "y" * 5000, "etc/a": "b"}, {"etc/.wh.a": "", "c": "d"}], compression=compression)
    image.publish(registry_server, f"pulled/{compression}", "1")
    name = f"{registry_server.host}/pulled/{compression}"
    store.run("podman", "pull", "-q", "--tls-verify=false", f"{name}:1")
    assert check_layers(store.transport(), f"containers-storage:{name}:1") == image.digest
    assert check_layers(store.transport(), f"containers-storage:{name}@{image.digest}") == image.digest


def test_an_additional_image_store(store, tmp_path):
    front = RealStore(tmp_path, store.driver, additional=[store.graph])
    front.graph.mkdir()
    assert check_layers(front.transport(), "containers-storage:localhost/t:3")
    (tmp_path / "Containerfile").write_text("FROM localhost/t:3\nCOPY Containerfile /x\n")
    front.run("buildah", "bud", "-q", "-t", "localhost/on-top:1", "-f", "Containerfile", ".", cwd=tmp_path)
    assert check_layers(front.transport(), "containers-storage:localhost/on-top:1")


def test_uncompressed_blobs_can_be_copied_and_others_say_why_not(store):
    transport = store.transport()
    reference = transport.parse("containers-storage:localhost/t:1")
    image = resolve(transport, reference)
    layer = image.manifest.layers[0]
    assert Digest.of(b"".join(transport.iter_blob(reference, layer))) == layer.digest
    other = Descriptor(media_type="", digest=Digest.of(b"other"), size=5)
    with pytest.raises(NotFoundError) as caught:
        list(transport.iter_blob(reference, other))
    assert "podman push" in caught.value.hint


def test_what_is_not_there(store, tmp_path):
    transport = store.transport()
    with pytest.raises(NotFoundError) as caught:
        transport.fetch_manifest(transport.parse("containers-storage:localhost/absent:1"))
    assert "localhost/t:1" in caught.value.hint
    with pytest.raises(NotFoundError):
        transport.fetch_manifest(transport.parse(f"containers-storage:[{tmp_path}]x"))


@pytest.fixture
def copied(store, tmp_path):
    """A store of its own that a test may damage."""
    mine = RealStore(tmp_path, store.driver)
    subprocess.run(["cp", "-a", store.graph, mine.graph], check=True)
    return mine


def test_removed_between_resolving_and_reading(copied):
    transport = copied.transport()
    image = resolve(transport, transport.parse("containers-storage:localhost/t:3"))
    copied.run("buildah", "rmi", "-f", "-a")
    with pytest.raises(ChangedError) as caught:
        first_layer(transport, image)
    assert (caught.value.code, caught.value.exit_status) == ("transport.changed", 6)


def test_a_tag_that_moves_meanwhile_does_not_mix_images(copied):
    transport = copied.transport()
    image = resolve(transport, transport.parse("containers-storage:localhost/t:1"))
    copied.run("buildah", "tag", "localhost/t:3", "localhost/t:1")
    for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
        with transport.open_layer_uncompressed(image.reference, descriptor, diff_id) as chunks:
            assert Digest.of(b"".join(chunks)) == diff_id


def test_a_file_that_was_changed_in_the_store(copied):
    for path in copied.graph.rglob("usr/lib/os-release"):
        path.write_text("ID=longer\n")
    transport = copied.transport()
    image = resolve(transport, transport.parse("containers-storage:localhost/t:1"))
    with (
        pytest.raises(ChangedError) as caught,
        transport.open_layer_uncompressed(
            image.reference, image.manifest.layers[0], image.config.diff_ids[0]
        ) as chunks,
    ):
        list(chunks)
    assert "os-release" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{}", "[5]", "[{}]", '[{"id": "../../etc"}]', "[" * 100_000])
@pytest.mark.parametrize("what", ["images", "layers"])
def test_damaged_json_is_one_clear_error(tmp_path, what, text):
    folder = tmp_path / f"vfs-{what}"
    folder.mkdir()
    (folder / f"{what}.json").write_text(text)
    store = Store(tmp_path, "vfs")
    if text == "":
        assert not getattr(store, what)()
        return
    with pytest.raises(StorageError):
        getattr(store, what)()


def test_podman_can_write_while_we_only_looked_and_waits_while_we_read(copied):
    transport = copied.transport()
    image = resolve(transport, transport.parse("containers-storage:localhost/t:1"))
    copied.run("buildah", "tag", "localhost/t:1", "localhost/other:1")
    with transport.open_layer_uncompressed(
        image.reference, image.manifest.layers[0], image.config.diff_ids[0]
    ) as chunks:
        first = next(iter(chunks))
        env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(copied.conf)}
        argv = ["buildah", "rmi", "-f", "-a"]
        removing = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            removing.wait(1)
        rest = b"".join(chunks)
    assert Digest.of(first + rest) == image.config.diff_ids[0]
    assert removing.wait(20) == 0


# --- an ordinary user ------------------------------------------------------------------------

INNER = """
set -e
cd "$HOME"
mkdir -p fs/etc fs/usr/lib
echo ID=x > fs/usr/lib/os-release
echo secret > fs/etc/shadow
cat > Containerfile <<X
FROM scratch
COPY fs /
COPY --chown=10:10 --chmod=600 fs/etc/shadow /etc/others
COPY --chmod=000 fs/etc/shadow /etc/gshadow
X
buildah --storage-driver $1 bud --layers -q -t localhost/r:1 -f Containerfile . > /dev/null
"""

READ = """
import hashlib, os, sys
from cfs_core.image.resolve import resolve
from cfs_core.plugin import Fetcher
from cfs_core.system.command import HostCommands
from cfs_transport_containers_storage.places import Places
from cfs_transport_containers_storage.transport import StorageTransport
places = Places.of({"driver": sys.argv[1]}, os.environ, os.getuid())
transport = Fetcher(StorageTransport(places, HostCommands(os.environ)))
image = resolve(transport, transport.parse("containers-storage:localhost/r:1"))
for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
    with transport.open_layer_uncompressed(image.reference, descriptor, diff_id) as chunks:
        assert hashlib.sha256(b"".join(chunks)).hexdigest() == diff_id.hex, diff_id
transport.close()
print("exact", len(image.manifest.layers))
"""


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.skipif(not shutil.which("newuidmap"), reason="newuidmap is not installed")
def test_a_rootless_store_with_files_its_user_may_not_read(driver):
    import tempfile

    python = next((each for each in (sys.executable, "/usr/bin/python3") if _usable(each)), None)
    if python is None:
        pytest.skip("no Python that another user can run")
    # below pytest's own directory another user cannot go
    folder = Path(tempfile.mkdtemp(prefix="cfs-rootless-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        for name in ("home", "run"):
            (folder / name).mkdir(mode=0o700)
            shutil.chown(folder / name, "nobody", "nogroup")
        (folder / "sub").write_text("nobody:100000:65536\n")
        path = os.pathsep.join(each for each in sys.path if each)
        inner = f"""
            mount --bind {folder}/sub /etc/subuid && mount --bind {folder}/sub /etc/subgid || exit 77
            as() {{ setpriv --reuid nobody --regid nogroup --clear-groups env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
                HOME={folder}/home XDG_RUNTIME_DIR={folder}/run BUILDAH_ISOLATION=chroot PYTHONPATH={path} "$@"; }}
            as bash -c '{INNER}' sh {driver} || exit 77
            as {python} -c '{READ}' {driver}
        """
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", inner], capture_output=True, text=True, check=False, timeout=200
        )
        if done.returncode == 77:
            pytest.skip(f"buildah cannot run as an ordinary user here: {done.stderr[-300:]}")
        assert done.stdout.splitlines()[-1:] == ["exact 3"], done.stderr
    finally:
        shutil.rmtree(folder)


def _usable(python):
    as_nobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "env", "-i"]
    script = "import sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([*as_nobody, python, "-c", script], capture_output=True, check=False).returncode == 0


def test_the_context_of_the_kit_makes_it(tmp_path):
    from cfs_transport_containers_storage.plugin import cfs_register_transports

    (provider,) = cfs_register_transports()
    transport = provider.factory(plugin_context(tmp_path, settings={"root": str(tmp_path)}))
    with pytest.raises(NotFoundError):
        transport.read_manifest(transport.parse("containers-storage:x"), ())


def test_the_settings_that_are_declared_are_those_that_are_read():
    from cfs_transport_containers_storage.places import _KNOWN
    from cfs_transport_containers_storage.plugin import cfs_register_transports

    (provider,) = cfs_register_transports()
    assert {setting.name for setting in provider.settings} | {"authfile"} == _KNOWN
