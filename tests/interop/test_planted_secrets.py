"""Secrets planted where credentials, addresses and others' words come in: none comes out, at any level of the log."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pytest

from cfs_testkit import faults
from cfs_testkit.images import build_image
from cfs_testkit.registry import Access, RegistryServer

PASSWORD = "planted-pa55word"
TOKEN = "planted-t0ken"
QUERY = "planted-signature"
HELPER = "planted-by-the-helper"
PROXY = "planted-for-the-pr0xy"
PLANTED = [PASSWORD, TOKEN, QUERY, HELPER, PROXY, base64.b64encode(f"alice:{PASSWORD}".encode()).decode()]
AUTH = {"auth": base64.b64encode(f"alice:{PASSWORD}".encode()).decode()}
SAID = json.dumps({"errors": [{"code": "DENIED", "message": f"alice:{PASSWORD} may not; token={TOKEN}"}]}).encode()
PRESIGNED = f"/else?X-Amz-Credential=alice&X-Amz-Signature={QUERY}"


@pytest.fixture
def run(tmp_path):
    """Run cfs in all forms of its output; return what it said."""
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()

    def cfs(*argv, **env):
        said = []
        for log in ("text", "json"):
            done = subprocess.run(
                [sys.executable, "-m", "cfs_core", "--log-level", "debug", "--log-format", log, *map(str, argv)],
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
                env={
                    **os.environ,
                    "HOME": str(tmp_path / "home"),
                    "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                    "XDG_CACHE_HOME": str(tmp_path / "cache"),
                    **env,
                },
            )
            assert done.returncode not in {0, 1}, done.stderr
            said.append(done.stdout + done.stderr)
        return "\n".join(said)

    return cfs


def authfile(tmp_path, content):
    path = tmp_path / "auth.json"
    path.write_text(json.dumps(content))
    return path


def helper(tmp_path, script):
    path = tmp_path / "bin" / "docker-credential-chatty"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def clean(said: str, expected: str) -> bool:
    assert expected in said, said
    return not [secret for secret in PLANTED if secret in said]


@pytest.mark.parametrize("kind", ["basic", "token"])
@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/manifests/", faults.Status(403, body=SAID)),
        ("/manifests/", faults.Status(401, {"WWW-Authenticate": f'Bearer realm="http://a:{TOKEN}@/x?{QUERY}"'})),
        ("/manifests/", faults.Status(401, {"WWW-Authenticate": f"Digest secret={TOKEN}"}, SAID)),
        ("/manifests/", faults.ContentType(f"text/html; token={TOKEN}")),
        ("/token", faults.Status(400, body=SAID)),
        ("/blobs/", faults.Redirect(f"http://bob:{TOKEN}@127.0.0.1:1{PRESIGNED}")),
        ("/blobs/", faults.Redirect(f"ftp://bob:{TOKEN}@127.0.0.1:1{PRESIGNED}")),
        ("/blobs/", faults.Redirect(PRESIGNED)),
    ],
)
def test_of_registries(run, tmp_path, kind, path, fault):
    with RegistryServer(access=Access(kind, "alice", PASSWORD)) as server:
        build_image([{"x": "y"}]).publish(server, "a/image", "1")
        server.fault(path, fault, forever=True)
        if path == "/token" and kind == "basic":
            server.fault("/manifests/", fault, forever=True)
        file = authfile(tmp_path, {"auths": {server.host: AUTH}})
        said = run("image", "pull", "--authfile", file, f"docker://{server.host}/a/image:1", "--repo", tmp_path / "r")
        assert clean(said, "error:")


@pytest.mark.parametrize(
    ("content", "script"),
    [
        ({"credsStore": f"alice:{HELPER}"}, None),
        ({"credsStore": {"password": HELPER}}, None),
        ({"credsStore": "chatty"}, f"echo {HELPER} >&2; exit 5"),
        ({"credsStore": "chatty"}, f"echo {HELPER}"),
        ({"auths": {"HOST": {"auth": HELPER}}}, None),
        ({"auths": {f"https://alice:{HELPER}@HOST/": "x"}, "credHelpers": [HELPER]}, None),
    ],
)
def test_of_files_and_helpers(run, tmp_path, content, script):
    with RegistryServer(access=Access("basic", "alice", PASSWORD)) as server:
        if script:
            helper(tmp_path, script)
        file = authfile(tmp_path, json.loads(json.dumps(content).replace("HOST", server.host)))
        said = run("image", "pull", "--authfile", file, f"docker://{server.host}/a/image:1", "--repo", tmp_path / "r")
        assert clean(said, "error:")


def test_of_proxies(run, tmp_path):
    proxy = f"http://alice:{PROXY}@127.0.0.1:1"
    said = run("image", "pull", "docker://registry.invalid/a", "--repo", tmp_path / "r", https_proxy=proxy)
    assert clean(said, "error:")


def test_of_references(run, tmp_path):
    for text in (
        f"docker://alice:{PASSWORD}@registry.invalid/a",
        f"https://alice:{PASSWORD}@x.invalid/y?token={TOKEN}",
    ):
        assert clean(run("image", "pull", text, "--repo", tmp_path / "r"), "error:")
