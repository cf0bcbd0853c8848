"""containers-storage keeps the contract of transports, with a store that the kit wrote."""

import pytest

from cfs_testkit.containers import ContainerStore
from cfs_testkit.contracts import TransportContract
from cfs_testkit.images import build_image


class TestContainersStorage(TransportContract):
    provider = "containers-storage"

    @pytest.fixture
    def image(self):
        """Uncompressed: a store has no compressed layers to hand out."""
        return build_image(self.files, compression="none")

    @pytest.fixture
    def store(self, tmp_path):
        return ContainerStore(tmp_path / "graph")

    @pytest.fixture
    def plugin_settings(self, store):
        return {"root": str(store.root), "driver": "overlay"}

    @pytest.fixture
    def publish(self, store):
        def add(image):
            store.add(image, "localhost/test:latest")
            return "containers-storage:localhost/test:latest"

        return add

    @pytest.fixture
    def missing(self, store):
        return "containers-storage:localhost/nothing:latest"

    @pytest.fixture
    def damage(self, store):
        def change(image):
            for path in store.root.glob("overlay/*/diff/usr/bin/hello"):
                path.write_text(path.read_text().upper())

        return change
