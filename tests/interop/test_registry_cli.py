"""What an operator sees when a registry misbehaves: exit status, message and hint, and nothing half-done left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfs_testkit import faults
from cfs_testkit.images import INDEX_TYPE, build_image, build_index
from cfs_testkit.registry import Access, RegistryServer

FOLDERS = dict.fromkeys(["boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "var", "usr"])
CFS = Path(sys.executable).with_name("cfs")


@pytest.fixture
def cfs(tmp_path):
    """Return a function that runs ``cfs image pull`` against a server."""

    def run(server, rest="app:1", *, blocked=False, authfile=None):
        (tmp_path / "registries.conf").write_text(
            f'[[registry]]\nlocation="{server.host}"\ninsecure=true\nblocked={str(blocked).lower()}\n'
        )
        settings = tmp_path / "cfs.toml"
        settings.write_text("[transport.registry]\nread-timeout = 0.3\n")
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        env["CONTAINERS_REGISTRIES_CONF"] = str(tmp_path / "registries.conf")
        argv = [CFS, "--config", settings, "image", "pull", f"docker://{server.host}/{rest}"]
        argv += ["--repo", tmp_path / "repo", "--architecture", "amd64"]
        argv += ["--authfile", authfile] if authfile else []
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
        left = [path for path in (tmp_path / "repo").rglob("*") if path.is_file() or path.is_symlink()]
        return done.returncode, done.stderr, {path.name for path in left} - {"meta.json"}

    return run


@pytest.fixture
def image():
    return build_image([{**FOLDERS, "usr/a": os.urandom(50_000)}])


@pytest.fixture
def server(registry_server, image):
    image.publish(registry_server, "app", "1")
    return registry_server


LONG = {"Retry-After": "100000"}


@pytest.mark.parametrize(
    ("where", "fault", "status", "said"),
    [
        ("manifests", faults.Status(401), 6, "--authfile"),
        ("manifests", faults.Status(403), 6, "permissions"),
        ("manifests", faults.Status(404), 6, "check name and tag"),
        ("manifests", faults.Status(429, LONG), 6, "100000 s"),
        ("blobs", faults.Status(429, LONG), 6, "later"),
        ("manifests", faults.Silence(), 6, "in time"),
        ("manifests", faults.ContentType("text/html"), 6, "proxy"),
        ("manifests", faults.Corrupt(9), 7, "another manifest"),
        ("blobs", faults.Corrupt(9), 7, "digest"),
        ("blobs", faults.Extra(), 7, "more than"),
        ("blobs", faults.Endless(), 7, "more than"),
        ("blobs", faults.Truncate(20), 6, "connection"),
        ("blobs", faults.Silence(20), 6, "in time"),
    ],
)
def test_faults_that_stay(cfs, server, where, fault, status, said):
    server.fault(f"/{where}/", fault, forever=True)
    returned, stderr, left = cfs(server)
    assert returned == status, stderr
    assert said in stderr
    assert "Traceback" not in stderr
    assert not left


def test_faults_that_pass(cfs, server):
    server.fault("/manifests/", faults.Status(500), faults.Status(429, {"Retry-After": "0"}))
    server.fault("/blobs/", faults.Fault(), faults.Reset(100), faults.Silence(5000), faults.Truncate(10_000))
    returned, stderr, left = cfs(server)
    assert returned == 0, stderr
    assert left


def test_blocked_by_configuration(cfs, server):
    returned, stderr, left = cfs(server, blocked=True)
    assert (returned, left, server.seen) == (6, set(), [])
    assert "blocked" in stderr


def test_no_image_for_this_architecture(cfs, server):
    other = build_image([{"a": "b"}], architecture="riscv64")
    other.publish(server, "multi")
    server.put_manifest("multi", build_index({"riscv64": other}), tag="1", media_type=INDEX_TYPE)
    returned, stderr, _ = cfs(server, "multi:1")
    assert returned == 8
    assert "riscv64" in stderr


def test_a_name_that_is_none(cfs, server):
    returned, stderr, _ = cfs(server, "UPPER:1")
    assert returned == 2
    assert "lower-case" in stderr


def test_secrets_do_not_show(cfs, image, tmp_path):
    with RegistryServer(access=Access("token", "alice", "right")) as server:
        image.publish(server, "app", "1")
        path = tmp_path / "auth.json"
        path.write_text(f'{{"auths": {{"{server.host}": {{"auth": "YWxpY2U6d3Jvbmc="}}}}}}')
        returned, stderr, _ = cfs(server, authfile=path)
        assert returned == 6
        assert "wrong" not in stderr
        assert "YWxpY2U6d3Jvbmc=" not in stderr
        path.write_text(f'{{"auths": {{"{server.host}": {{"auth": "YWxpY2U6cmlnaHQ="}}}}}}')
        assert cfs(server, authfile=path)[0] == 0
