"""Every kind of damage is named, in a live repository and inside a filesystem that is not mounted."""

import hashlib
import io

import pytest
from composefs_builders.repositories import layer_stream, open_repository, pull, storage

from cfs_core.plugin import Digest, HashAlgorithm
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.objects.names import object_path
from cfs_storage_composefs.repository.folder import DirectoryReader
from cfs_storage_composefs.streams.splitstream import LAYER, SplitStreamWriter
from cfs_testkit.builders.oci import Dir, File, Image, layer

IMAGE = Image([layer({"usr/a": File(b"a" * 5000), "usr/b": File(b"b" * 100), "boot/": Dir(), "sysroot/": Dir()})])


class SealedFiles(DirectoryReader):
    """A filesystem that keeps fs-verity digests, as a finished disk image does."""

    def __init__(self, base, sealed):
        super().__init__(base)
        self.sealed = sealed

    def verity_digest(self, path):
        return self.sealed.get(path.lstrip("/"))


@pytest.fixture
def repository(tmp_path):
    with open_repository(tmp_path / "r") as opened:
        opened.committed = pull(opened, IMAGE, name="x")
        yield opened


@pytest.fixture
def path(repository, tmp_path):
    return tmp_path / "r"


def found(repository):
    return {(problem.code, problem.where) for problem in repository.fsck()}


def object_of(content: bytes) -> str:
    return "objects/" + object_path(digest_bytes(content, HashAlgorithm.SHA512))


def test_intact(repository):
    assert found(repository) == set()


def test_every_altered_object_is_named(repository, path):
    for victim in sorted(path.glob("objects/*/*")):
        before = victim.read_bytes()
        victim.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        where = str(victim.relative_to(path))
        problems = [problem for problem in repository.fsck() if problem.where == where]
        assert [problem.code for problem in problems] == ["object.damaged"]
        assert problems[0].repairable
        victim.write_bytes(before)
    assert found(repository) == set()


def test_missing_objects_are_named_with_who_needs_them(repository, path):
    (path / object_of(b"a" * 5000)).unlink()
    problems = list(repository.fsck())
    assert {problem.code for problem in problems} == {"object.missing"}
    assert {problem.where.partition(":")[0] for problem in problems} >= {"streams/oci-layer-sha256"}
    assert f"images/{repository.committed.id}" in {problem.where for problem in problems}


def test_links(repository, path):
    image = path / "images" / repository.committed.id
    target = image.readlink()
    image.unlink()
    image.symlink_to("/etc/passwd")
    (path / "images" / "file").write_text("")
    (path / "streams" / "refs" / "oci" / "gone").symlink_to("../../oci-manifest-sha256:0")
    (path / "streams" / "refs" / "oci" / "out").symlink_to("../../../meta.json")
    (path / "images" / ("0" * 128)).symlink_to(target)
    assert found(repository) == {
        ("link.target", f"images/{repository.committed.id}"),
        ("link.kind", "images/file"),
        ("link.dangling", "streams/refs/oci/gone"),
        ("link.target", "streams/refs/oci/out"),
        ("link.target", "images/" + "0" * 128),
    }


def test_strangers(repository, path):
    (path / "objects" / "zz").mkdir()
    (path / "objects" / "00").mkdir(exist_ok=True)
    (path / "objects" / "00" / "short").write_text("")
    (path / "objects" / ".tmp-object-1").write_text("")
    assert found(repository) == {
        ("repository.stray", "objects/zz"),
        ("object.name", "objects/00/short"),
        ("repository.stray", "objects/.tmp-object-1"),
    }


def store(path, data: bytes) -> bytes:
    digest = digest_bytes(data, HashAlgorithm.SHA512)
    file = path / "objects" / object_path(digest)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return digest


def relink(path, name: str, digest: bytes) -> None:
    link = path / "streams" / name
    link.unlink(missing_ok=True)
    link.symlink_to("../objects/" + object_path(digest))


def test_a_layer_that_is_another_one(repository, path):
    name = f"oci-layer-{IMAGE.layers[0].diff_id}"
    other = layer({"usr/other": File(b"o" * 3000)})
    repository.import_layer(layer_stream(other))
    link = path / "streams" / name
    target = (path / "streams" / f"oci-layer-{other.diff_id}").readlink()
    link.unlink()
    link.symlink_to(target)
    assert found(repository) == {("stream.damaged", f"streams/{name}")}
    quick = list(storage().check_files(DirectoryReader(path.parent), "/r"))
    assert quick == [], "only the full check puts layers together again"


def test_a_config_that_is_another_one(repository, path):
    name = f"oci-config-{repository.committed.config_digest}"
    link = path / "streams" / name
    link.unlink()
    link.symlink_to((path / "streams" / f"oci-manifest-{repository.committed.manifest_digest}").readlink())
    assert ("stream.kind", f"streams/{name}") in found(repository)


def test_a_stream_that_lies_about_its_size(repository, path):
    writer = SplitStreamWriter(LAYER, HashAlgorithm.SHA512)
    writer.inline(b"x" * 100)
    writer._size += 1
    data = b"".join(writer.pieces())
    writer.close()
    name = f"oci-layer-sha256:{hashlib.sha256(b'x' * 100).hexdigest()}"
    relink(path, name, store(path, data))
    assert found(repository) == {("stream.damaged", f"streams/{name}")}


def test_rubbish_with_the_right_name(repository, path):
    digest = store(path, b"rubbish" * 100)
    relink(path, "oci-layer-sha256:" + "0" * 64, digest)
    (path / "images" / digest.hex()).symlink_to("../objects/" + object_path(digest))
    assert found(repository) == {
        ("stream.damaged", "streams/oci-layer-sha256:" + "0" * 64),
        ("image.damaged", f"images/{digest.hex()}"),
    }


def test_metadata(repository, path):
    meta = path / "meta.json"
    meta.write_text("{")
    assert ("repository.metadata", "meta.json") in found(repository)
    meta.unlink()
    assert found(repository) == {("repository.no-metadata", "meta.json")}


def test_nothing_there(tmp_path):
    (problem,) = storage().check_files(DirectoryReader(tmp_path), "/composefs")
    assert problem.code == "repository.missing"


def sealed(path) -> dict[str, str]:
    files = [*path.glob("objects/*/*"), path / "meta.json"]
    return {
        "composefs/" + str(file.relative_to(path)): "sha512:"
        + digest_bytes(file.read_bytes(), HashAlgorithm.SHA512).hex()
        for file in files
    }


def test_enforced_digests_are_compared(repository, path):
    path.rename(path.with_name("composefs"))
    digests = sealed(path.with_name("composefs"))
    base = path.parent
    assert list(storage().check_files(SealedFiles(base, digests), "/composefs")) == []
    victim, other = sorted(name for name in digests if "objects" in name)[:2]
    unsealed = {name: digest for name, digest in digests.items() if name != victim}
    (problem,) = storage().check_files(SealedFiles(base, unsealed), "/composefs")
    assert (problem.code, problem.where) == ("object.unsealed", victim.removeprefix("composefs/"))
    (problem,) = storage().check_files(SealedFiles(base, digests | {victim: digests[other]}), "/composefs")
    assert (problem.code, problem.where) == ("object.damaged", victim.removeprefix("composefs/"))
    wrong = digests | {"composefs/meta.json": digests[other]}
    (problem,) = storage().check_files(SealedFiles(base, wrong), "/composefs")
    assert (problem.code, problem.where) == ("repository.metadata", "meta.json")
    insecure = {name: digest for name, digest in unsealed.items() if "meta" not in name}
    assert list(storage().check_files(SealedFiles(base, insecure), "/composefs")) == []


def test_unreadable_files_do_not_end_the_check(repository, path):
    class Broken(DirectoryReader):
        def open(self, where):
            if where.endswith(victim):
                return io.BufferedReader(BrokenFile())
            return super().open(where)

    class BrokenFile(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, _buffer):
            raise OSError(5, "Input/output error")

    victim = object_of(b"b" * 100)
    problems = list(storage().check_files(Broken(path), "/"))
    assert ("object.damaged", victim) in {(problem.code, problem.where) for problem in problems}
    assert all("Input/output error" in problem.message for problem in problems if problem.where == victim)
    assert repository.has_layer(Digest.parse(IMAGE.layers[0].diff_id))
