"""Grammar, architectures, compressions and faults of tar files on web servers."""

import gzip
import hashlib
import io
import json
import lzma
import os
import struct
import tarfile

import pytest
import zstandard

from cfs_core.plugin import (
    Fetcher,
    CfsError,
    Descriptor,
    Digest,
    ImageError,
    LimitError,
    ServerError,
    TlsError,
    TransportError,
    TruncatedError,
    UsageError,
    VerificationError,
)
from cfs_testkit.context import plugin_context
from cfs_transport_http_tarball.settings import Settings
from cfs_transport_http_tarball.transport import HttpTarballTransport

ELF_ARM64 = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 183) + bytes(2000)


def tar_of(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


TAR = tar_of({"a.txt": b"text\n" * 3000, "empty": b"", "bin/x": ELF_ARM64, "big": os.urandom(600_000)})


@pytest.fixture
def make(tmp_path):
    made = []

    def fetcher(**settings):
        context = plugin_context(tmp_path, settings=settings)
        context.retrier.pause = lambda _seconds: None
        transport = HttpTarballTransport(Settings.of(context.settings), context.scratch, context.retrier)
        made.append(Fetcher(transport, context.retrier))
        return made[-1]

    yield fetcher
    for each in made:
        each.close()


def pinned(server, data, name="/r.tar", more=""):
    server.files[name] = data
    return f"http-tarball:{server.url}{name}@sha256:{hashlib.sha256(data).hexdigest()}{more}"


def config_of(transport, text):
    reference = transport.parse(text)
    _, raw = transport.fetch_manifest(reference)
    config = json.loads(raw)["config"]
    descriptor = Descriptor(media_type="", digest=Digest.parse(config["digest"]), size=config["size"])
    return transport.fetch_bytes(reference, descriptor).decode()


@pytest.mark.parametrize(
    "squeeze", [bytes, gzip.compress, zstandard.compress, lambda d: gzip.compress(d[:900]) + gzip.compress(d[900:])]
)
def test_architecture_and_diff_id_are_found_in_every_compression(make, web_server, squeeze):
    config = config_of(make(), pinned(web_server, squeeze(TAR)))
    assert '"architecture":"arm64"' in config
    assert hashlib.sha256(TAR).hexdigest() in config


def test_the_reference_says_the_architecture_above_all(make, web_server):
    assert '"architecture":"riscv64"' in config_of(
        make(architecture="amd64"), pinned(web_server, TAR, more="#arch=riscv64")
    )


def test_no_architecture_is_an_error_that_helps(make, web_server):
    with pytest.raises(ImageError) as raised:
        config_of(make(), pinned(web_server, tar_of({"a": b"text"})))
    assert "#arch=" in raised.value.hint


def test_a_transfer_goes_on_where_it_ended(make, web_server):
    web_server.faults["/r.tar"] = [(200_000,), (100_000,), (100_000,), (70_000,), (70_000,), (70_000,)]
    config_of(make(), pinned(web_server, TAR))
    assert web_server.ranges[0] is None
    assert all(web_server.ranges[1:])
    assert len(web_server.ranges) == 7


def test_a_server_without_ranges_starts_again(make, web_server):
    web_server.faults["/r.tar"] = [(200_000,), (None, None, (), True)]
    config_of(make(), pinned(web_server, TAR))


def test_a_file_that_changes_on_the_way_is_not_mixed(make, web_server):
    text = pinned(web_server, TAR)
    web_server.faults["/r.tar"] = [(200_000,)]
    transport = make()
    transport.retrier.pause = lambda _seconds: web_server.files.update({"/r.tar": TAR[::-1]})
    with pytest.raises(VerificationError):
        config_of(transport, text)


def test_a_server_that_never_recovers_is_given_up(make, web_server):
    web_server.faults["/r.tar"] = [(None, 503)] * 50
    with pytest.raises(ServerError):
        config_of(make(), pinned(web_server, TAR))
    assert len(web_server.ranges) == 4


def test_a_transfer_that_brings_nothing_is_given_up(make, web_server, tmp_path):
    web_server.faults["/r.tar"] = [(10,)] * 50
    with pytest.raises(TruncatedError):
        config_of(make(), pinned(web_server, TAR))
    assert len(web_server.ranges) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [{"max-bytes": 100_000}, {"max-uncompressed-bytes": 100_000}])
def test_limits(make, web_server, tmp_path, settings):
    with pytest.raises(LimitError):
        config_of(make(**settings), pinned(web_server, TAR))
    assert list(tmp_path.iterdir()) == []


def test_a_bomb_is_no_memory(make, web_server):
    bomb = zstandard.ZstdCompressor(level=19).compress(tar_of({"z": bytes(64 << 20)}))
    with pytest.raises(LimitError):
        config_of(make(**{"max-uncompressed-bytes": 32 << 20}), pinned(web_server, bomb))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        gzip.compress(TAR)[:-20],
        lzma.compress(TAR),
        zstandard.compress(TAR)[:5000],
        b"\x1f\x8b junk",
        os.urandom(5000),
    ],
)
def test_what_is_no_tar_is_an_error_of_cfs(make, web_server, data):
    with pytest.raises(CfsError):
        config_of(make(architecture="amd64"), pinned(web_server, data))


def test_encodings_on_the_way_are_refused(make, web_server):
    web_server.faults["/r.tar"] = [(None, None, (("Content-Encoding", "gzip"),))]
    with pytest.raises(TransportError, match="encodes"):
        config_of(make(), pinned(web_server, TAR))


def test_redirects_are_followed_but_not_for_ever(make, web_server):
    text = pinned(web_server, TAR)
    web_server.faults["/r.tar"] = [(None, 302, (("Location", "/r.tar"),))]
    config_of(make(), text)
    web_server.faults["/r.tar"] = [(None, 302, (("Location", "/r.tar"),))] * 9
    with pytest.raises(TransportError, match="redirects"):
        config_of(make(), text)


def test_redirects_to_other_kinds_of_places_are_refused(make, web_server):
    web_server.faults["/r.tar"] = [(None, 302, (("Location", "ftp://elsewhere/r.tar"),))]
    with pytest.raises(TlsError):
        config_of(make(), pinned(web_server, TAR))


@pytest.mark.parametrize(
    "text",
    [
        "http-tarball:ftp://h/x.tar",
        "http-tarball:https://h",
        "http-tarball:https://h/",
        "http-tarball:https://user:pw@h/x.tar",
        "http-tarball:https://h:99999/x.tar",
        "http-tarball:https://h/x.tar@sha256:12",
        "http-tarball:https://h/x.tar#arch=vax",
        "http-tarball:https://h/x.tar#other",
        "http-tarball:http://h/not-pinned.tar",
        "http-tarball:https://h/a b",
    ],
)
def test_references_that_are_refused(make, text):
    with pytest.raises(UsageError):
        make().parse(text)


def test_an_at_sign_in_the_path_is_no_digest(make):
    assert make().parse("http-tarball:https://h/@v1/x.tar").digest is None
