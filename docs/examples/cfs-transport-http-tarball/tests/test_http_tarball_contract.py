"""Tar files on web servers keep the contract of transports."""

import hashlib
from types import MappingProxyType

import pytest

from cfs_testkit.contracts import TransportContract


class TestHttpTarball(TransportContract):
    provider = "http-tarball"
    settings = MappingProxyType({"architecture": "amd64", "timeout": 5})
    files = ({"usr/bin/hello": "#!/bin/sh\necho hello\n", "usr/lib/os-release": "ID=test\n", "etc/motd": "here\n"},)
    keeps_manifests = False

    @pytest.fixture
    def publish(self, web_server):
        def serve(image):
            (layer,) = image.layers
            web_server.files["/rootfs.tar"] = image.blobs[layer]
            return f"http-tarball:{web_server.url}/rootfs.tar@{layer}"

        return serve

    @pytest.fixture
    def missing(self, web_server):
        return f"http-tarball:{web_server.url}/nothing.tar@sha256:{hashlib.sha256(b'').hexdigest()}"

    @pytest.fixture
    def damage(self, web_server):
        def change(image):
            web_server.files["/rootfs.tar"] = image.blobs[image.layers[0]][:-9] + b"other end"

        return change
