"""OCI layouts and archives keep the contract of transports."""

import io
import json
import tarfile

import pytest

from cfs_testkit.contracts import TransportContract


def _layout(image, folder, tag="latest"):
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for name, data in (*image.blobs.items(), (image.digest, image.manifest)):
        (blobs / name.removeprefix("sha256:")).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = image.descriptor() | {"annotations": {"org.opencontainers.image.ref.name": tag}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


class TestOci(TransportContract):
    provider = "oci"

    @pytest.fixture
    def publish(self, tmp_path):
        return lambda image: f"oci:{_layout(image, tmp_path / 'layout')}:latest"

    @pytest.fixture
    def missing(self, tmp_path):
        return f"oci:{tmp_path / 'nowhere'}:latest"

    @pytest.fixture
    def destination(self, tmp_path):
        return f"oci:{tmp_path / 'new'}:v1"

    @pytest.fixture
    def damage(self, tmp_path):
        def change(image):
            blob = tmp_path / "layout/blobs/sha256" / image.layers[0].removeprefix("sha256:")
            blob.write_bytes(blob.read_bytes()[:-9] + b"other end")

        return change


class TestOciArchive(TransportContract):
    provider = "oci-archive"

    @pytest.fixture
    def publish(self, tmp_path):
        def pack(image):
            folder = _layout(image, tmp_path / "layout")
            with tarfile.open(tmp_path / "image.tar", "w") as tar:
                tar.add(folder, ".")
            return f"oci-archive:{tmp_path / 'image.tar'}:latest"

        return pack

    @pytest.fixture
    def missing(self, tmp_path):
        return f"oci-archive:{tmp_path / 'nowhere.tar'}"

    @pytest.fixture
    def destination(self, tmp_path):
        return f"oci-archive:{tmp_path / 'new.tar'}:v1"


class TestDockerArchive(TransportContract):
    provider = "docker-archive"
    keeps_manifests = False

    @pytest.fixture
    def publish(self, tmp_path):
        def save(image):
            import gzip

            config = json.loads(image.manifest)["config"]["digest"]
            files = {f"{config.removeprefix('sha256:')}.json": image.blobs[config]}
            names = []
            for layer in image.layers:
                data = image.blobs[layer]
                names.append(f"{layer.removeprefix('sha256:')}/layer.tar")
                files[names[-1]] = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            manifest = [{"Config": next(iter(files)), "RepoTags": ["test:latest"], "Layers": names}]
            files["manifest.json"] = json.dumps(manifest).encode()
            with tarfile.open(tmp_path / "saved.tar", "w") as tar:
                for name, data in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
            return f"docker-archive:{tmp_path / 'saved.tar'}"

        return save

    @pytest.fixture
    def missing(self, tmp_path):
        return f"docker-archive:{tmp_path / 'nowhere.tar'}"
