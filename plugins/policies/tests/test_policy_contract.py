"""Pinned digests and policy.json keep the contract of policies."""

import json

import pytest

from cfs_core.plugin import Digest, ImageReference
from cfs_testkit.contracts import PolicyContract
from cfs_testkit.images import build_image
from cfs_testkit.memory_transport import MemoryFetcher

IMAGE = build_image([{"usr/x": "x"}])


def under(name, digest=None):
    text = f"docker://{name}" + (f"@{digest}" if digest else ":latest")
    return ImageReference(scheme="docker", name=name, tag=None if digest else "latest", digest=digest, text=text)


class TestDigestPinned(PolicyContract):
    provider = "digest-pinned"

    @pytest.fixture
    def acceptable(self):
        return MemoryFetcher(IMAGE, reference=under("example.test/image", Digest.parse(IMAGE.digest)))

    @pytest.fixture
    def unacceptable(self):
        return MemoryFetcher(IMAGE, reference=under("example.test/image"))


class TestContainersPolicy(PolicyContract):
    provider = "containers-policy"

    @pytest.fixture
    def plugin_settings(self, tmp_path):
        accept = {"docker": {"example.test/good": [{"type": "insecureAcceptAnything"}]}}
        path = tmp_path / "policy.json"
        path.write_text(json.dumps({"default": [{"type": "reject"}], "transports": accept}))
        (tmp_path / "registries.d").mkdir()
        return {"policy-json": str(path), "registries-d": str(tmp_path / "registries.d")}

    @pytest.fixture
    def acceptable(self):
        return MemoryFetcher(IMAGE, reference=under("example.test/good"))

    @pytest.fixture
    def unacceptable(self):
        return MemoryFetcher(IMAGE, reference=under("example.test/bad"))
