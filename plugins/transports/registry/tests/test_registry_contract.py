"""The registry transport keeps the contract of transports, over real HTTP on loopback."""

from types import MappingProxyType

import pytest

from cfs_testkit.contracts import TransportContract


class TestDocker(TransportContract):
    provider = "registry"
    settings = MappingProxyType({"tls-verify": False, "connect-timeout": 5, "read-timeout": 5})

    @pytest.fixture
    def publish(self, registry_server):
        def push(image):
            image.publish(registry_server, "test/image", "latest")
            return f"docker://{registry_server.host}/test/image:latest"

        return push

    @pytest.fixture
    def missing(self, registry_server):
        return f"docker://{registry_server.host}/test/nothing:latest"

    @pytest.fixture
    def destination(self, registry_server):
        return f"docker://{registry_server.host}/test/new:v1"

    @pytest.fixture
    def damage(self, registry_server):
        def change(image):
            key = ("test/image", image.layers[0])
            registry_server.blobs[key] = registry_server.blobs[key][:-9] + b"other end"

        return change
