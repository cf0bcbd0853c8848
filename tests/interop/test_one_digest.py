"""One image by every way in: one and the same image id, and the same splitstreams."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cfs_core.image.copy import copy_image
from cfs_core.image.pull import merged_tree, pull_layers
from cfs_core.image.resolve import resolve
from cfs_core.interfaces.fetcher import Fetcher
from cfs_storage_composefs.plugin import cfs_register_storage_formats
from cfs_testkit.context import CountedProgress, plugin_context
from cfs_testkit.images import build_image
from cfs_transport_containers_storage.plugin import cfs_register_transports as storage_transports
from cfs_transport_oci_dir.plugin import cfs_register_transports as oci_transports
from cfs_transport_registry.plugin import cfs_register_transports as registry_transports

pytestmark = [
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is not installed"),
    pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed"),
    pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed"),
    pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="makes stores of root"),
]

BIG = "".join(f"line {number} of a file that compresses\n" for number in range(40_000))
FOLDERS = dict.fromkeys(["boot", "dev", "etc", "proc", "root", "run", "sys", "sysroot", "tmp", "var", "usr/bin"])
LAYERS = [
    {**FOLDERS, "usr/lib/os-release": "ID=one\nVERSION_ID=1\n", "usr/lib/big": BIG, "bin": "-> usr/bin"},
    {"etc/gone": "x", "etc/folder/a": "a", "etc/folder/b": "b", "usr/bin/tool": b"\x7fELF" + bytes(200_000)},
    {"etc/.wh.gone": "", "etc/folder/.wh..wh..opq": "", "etc/folder/c": "c", "usr/bin/tool": "replaced"},
    {"etc/ümläut ☃": "name", "usr/share/" + "long/" * 40 + "name": "deep", "usr/lib/empty": ""},
]
MIXED = ["gzip", "zstd:chunked", "none", "zstd"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("one")


@pytest.fixture(scope="module")
def registry(folder):
    """Run Debian's docker-registry; return host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    server = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(host.partition(":")[2]))) == 0:
                    break
            time.sleep(0.05)
        yield host
    finally:
        server.terminate()
        server.wait()


class Ways:
    """Opens any reference with the plugin that has its scheme."""

    def __init__(self, folder):
        self.folder = folder
        registries = folder / "registries.conf"
        registries.write_text("")
        self.settings = {"docker": {"tls-verify": False, "registries-conf": str(registries)}}
        providers = [*oci_transports(), *registry_transports(), *storage_transports()]
        self.providers = {scheme: provider for provider in providers for scheme in provider.schemes}
        (storage,) = cfs_register_storage_formats()
        self.storage = storage.factory(plugin_context(folder))

    def open(self, text):
        scheme = text.partition(":")[0]
        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        transport = Fetcher(self.providers[scheme].factory(plugin_context(scratch, settings=self.settings.get(scheme))))
        return transport, transport.parse(text)

    def identity(self, text):
        """Pull into a new repository; return both image ids, and what the layers' streams are called and hold."""
        path = Path(tempfile.mkdtemp(dir=self.folder), "repo")
        transport, reference = self.open(text)
        try:
            image = resolve(transport, reference)
            with self.storage.open(path, create=True) as repository:
                pull_layers(transport, image, repository, progress=CountedProgress(), emit=lambda _: None)
                committed = repository.commit(merged_tree(repository, image), image, name="x")
        finally:
            transport.close()
        streams = {
            each.name: each.resolve().relative_to(path.resolve()).as_posix()
            for each in (path / "streams").iterdir()
            if each.name.startswith("oci-layer-")
        }
        assert len(streams) == len(LAYERS)
        return str(committed.id), str(committed.plain_id), streams

    def manifest(self, text):
        transport, reference = self.open(text)
        try:
            return str(resolve(transport, reference).manifest.digest)
        finally:
            transport.close()


@pytest.fixture(scope="module")
def ways(folder):
    return Ways(folder)


@pytest.fixture(scope="module")
def image():
    return build_image(LAYERS, compression=MIXED)


@pytest.fixture(scope="module")
def layout(folder, image, ways):
    """Put the image with its mixed layers into an OCI directory, as bytes."""
    from cfs_testkit.registry import RegistryServer

    text = f"oci:{folder}/layout:mixed"
    with RegistryServer() as server:
        image.publish(server, "image", "1")
        source, target = ways.open(f"docker://{server.host}/image:1"), ways.open(text)
        copy_image(*source, *target, progress=CountedProgress(), emit=lambda _: None)
        source[0].close()
    return text


@pytest.fixture(scope="module")
def truth(ways, layout):
    return ways.identity(layout)


def run(*argv, conf=None):
    env = {**os.environ, "BUILDAH_ISOLATION": "chroot"} | ({"CONTAINERS_STORAGE_CONF": str(conf)} if conf else {})
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def skopeo(source, target, *options):
    no_tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    run("skopeo", "--insecure-policy", "copy", "-q", *no_tls, *options, source, target)


@pytest.fixture(scope="module")
def pushed(registry, layout, image, ways):
    """Push the image by skopeo, its bytes as they are; return its reference."""
    text = f"docker://{registry}/mixed:1"
    skopeo(layout, text, "--preserve-digests")
    assert ways.manifest(text) == image.digest
    return text


def store_conf(folder, name, driver):
    conf = folder / f"{name}.conf"
    text = f'[storage]\ndriver="{driver}"\nrunroot="{folder}/{name}-run"\ngraphroot="{folder}/{name}-graph"\n'
    # without this a bind mount stays behind
    conf.write_text(text + '[storage.options.overlay]\nskip_mount_home="true"\n')
    return conf


@pytest.mark.parametrize("compression", ["gzip", "zstd", "zstd:chunked", "none"])
def test_the_compression_of_layers_makes_no_difference(ways, truth, compression, registry_server):
    build_image(LAYERS, compression=compression).publish(registry_server, "image", "1")
    assert ways.identity(f"docker://{registry_server.host}/image:1") == truth


def test_from_a_real_registry(ways, truth, pushed):
    assert ways.identity(pushed) == truth


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_from_a_real_registry_compressed_again_by_skopeo(ways, truth, layout, registry, compression):
    text = f"docker://{registry}/again-{compression}:1"
    skopeo(layout, text, "--dest-compress-format", compression)
    assert ways.identity(text) == truth


@pytest.mark.parametrize("target", ["oci:{}/skopeo-layout:x", "oci-archive:{}/skopeo.tar:x"])
def test_from_what_skopeo_writes(ways, truth, pushed, folder, target):
    skopeo(pushed, target.format(folder))
    assert ways.identity(target.format(folder)) == truth


def test_from_docker_archives(ways, truth, folder, registry_server):
    # docker's formats know gzip only
    build_image(LAYERS, compression="gzip").publish(registry_server, "plain", "1")
    plain = f"docker://{registry_server.host}/plain:1"
    skopeo(plain, f"docker-archive:{folder}/docker.tar:x:1")
    assert ways.identity(f"docker-archive:{folder}/docker.tar") == truth
    conf = store_conf(folder, "saver", "vfs")
    name = plain.removeprefix("docker://")
    run("podman", "pull", "-q", "--tls-verify=false", name, conf=conf)
    run("podman", "save", "-q", "--format", "docker-archive", "-o", f"{folder}/podman.tar", name, conf=conf)
    assert ways.identity(f"docker-archive:{folder}/podman.tar") == truth


def test_from_our_own_copies(ways, truth, pushed, folder, image):
    for text in (f"oci:{folder}/copy:x", f"oci-archive:{folder}/copy.tar:x"):
        source, target = ways.open(pushed), ways.open(text)
        assert str(copy_image(*source, *target, progress=CountedProgress(), emit=lambda _: None)) == image.digest
        source[0].close()
        assert ways.identity(text) == truth


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.parametrize("tool", ["podman", "buildah"])
def test_from_the_store_of(ways, truth, pushed, folder, image, tool, driver):
    conf = store_conf(folder, f"{tool}-{driver}", driver)
    name = pushed.removeprefix("docker://")
    run(tool, "pull", "-q", "--tls-verify=false", name, conf=conf)
    text = f"containers-storage:[{driver}@{folder}/{tool}-{driver}-graph]{name}"
    assert ways.identity(text) == truth
    assert ways.manifest(text) == image.digest


def test_from_what_podman_pushes_from_its_store(ways, truth, pushed, folder, registry):
    conf = store_conf(folder, "pusher", "overlay")
    name = pushed.removeprefix("docker://")
    run("podman", "pull", "-q", "--tls-verify=false", name, conf=conf)
    again = f"{registry}/from-podman:1"
    run("podman", "push", "-q", "--tls-verify=false", name, again, conf=conf)
    assert ways.identity(f"docker://{again}") == truth


PULL = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_one_digest import Ways
print(Ways(Path(sys.argv[2])).identity(sys.argv[3]))
"""


FILL = {
    "skopeo": "skopeo --insecure-policy copy -q oci:{0}:mixed containers-storage:localhost/one:1",
    "podman": "podman --cgroup-manager cgroupfs pull -q oci:{0}:mixed",
    "buildah": "buildah pull -q oci:{0}:mixed",
}


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.parametrize("tool", FILL)
def test_from_the_store_of_an_ordinary_user(truth, layout, image, tool, driver):
    python = next((each for each in (sys.executable, "/usr/bin/python3") if _usable(each)), None)
    if python is None or not shutil.which("newuidmap"):
        pytest.skip("no Python that another user can run, or no newuidmap")
    place = Path("/var/tmp", f"cfs-one-{secrets.token_hex(8)}")  # buildah makes a name of the path
    place.mkdir()
    try:
        place.chmod(0o755)
        for name in ("home", "run"):
            (place / name).mkdir(mode=0o700)
            shutil.chown(place / name, "nobody", "nogroup")
        shutil.copytree(layout.removeprefix("oci:").rpartition(":")[0], place / "layout")
        subprocess.run(["chmod", "-R", "a+rX", place / "layout"], check=True)
        (place / "sub").write_text("nobody:100000:65536\n")
        path = os.pathsep.join(each for each in sys.path if each)
        identity = json.loads(image.manifest)["config"]["digest"].removeprefix("sha256:")
        inner = f"""
            cd {place}/home
            mount --bind {place}/sub /etc/subuid && mount --bind {place}/sub /etc/subgid || exit 77
            as() {{ setpriv --reuid nobody --regid nogroup --clear-groups env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
                HOME={place}/home XDG_RUNTIME_DIR={place}/run STORAGE_DRIVER={driver} PYTHONPATH={path} "$@"; }}
            as {FILL[tool].format(place / "layout")} > /dev/null || exit 77
            as {python} -c '{PULL}' {Path(__file__).parent} {place}/run containers-storage:{identity}
        """
        argv = ["unshare", "-m", "bash", "-c", inner]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=200)
        if done.returncode == 77:
            pytest.skip(f"{tool} cannot run as an ordinary user here: {done.stderr[-300:]}")
        assert done.stdout.strip() == str(truth), done.stderr
    finally:
        shutil.rmtree(place)


def _usable(python):
    as_nobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "env", "-i"]
    script = "import sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([*as_nobody, python, "-c", script], capture_output=True, check=False).returncode == 0
