import contextlib
import threading

import pytest
from builders.transport import AMD64, MemoryFetcher, reference

from cfs_core.archive.decompress import DecompressionLimits
from cfs_core.errors import ImageError, LimitError, TransportError, VerificationError
from cfs_core.image.layers import LayerLimits, open_layer
from cfs_core.image.resolve import resolve
from cfs_core.tar import TarLimits
from cfs_testkit.builders.oci import (
    COMPRESSIONS,
    OCI,
    File,
    Image,
    Layer,
    compress,
    digest,
    layer,
    raw_header,
    tar_bytes,
)

BIG = bytes(range(256)) * 20_000
TREE = {"usr/big": BIG, "usr/small": b"x" * 65, "usr/empty": b"", "usr/more": File(BIG[::-1], mode=0o755)}


def read(transport, image, index=0, *, take=True, **kwargs):
    """Read a layer as a repository does: return the bytes it is rebuilt from, and contents by path."""
    rebuilt, contents = bytearray(), {}
    with open_layer(transport, image, index, **kwargs) as stream:
        for member in stream.members():
            rebuilt += member.raw
            if take:
                content = b"".join(stream.content())
                assert len(content) == member.size
                rebuilt += content
                if member.entry is not None:
                    contents[member.entry.path] = content
        for chunk in stream.trailer():
            rebuilt += chunk
    return bytes(rebuilt), contents


def opened(image: Image, **kwargs):
    transport = MemoryFetcher(image, **kwargs)
    return transport, resolve(transport, reference(), AMD64)


@pytest.fixture(autouse=True)
def _no_thread_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() <= before


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("chunk", [100, 1 << 20])
def test_a_layer_comes_back_byte_for_byte(compression, chunk):
    made = layer(TREE, compression)
    rebuilt, contents = read(*opened(Image([made]), chunk=chunk))
    assert rebuilt == made.tar
    assert contents[b"/usr/big"] == BIG
    assert contents[b"/usr/more"] == BIG[::-1]
    assert contents[b"/usr/small"] == b"x" * 65


def test_content_may_be_left():
    made = layer(TREE)
    with open_layer(*opened(Image([made])), 0) as stream:
        paths = []
        for member in stream.members():
            if member.entry is not None:
                paths.append(member.entry.path)
            if member.size > 100:
                assert next(stream.content())
        assert list(stream.trailer()) is not None
    assert paths == [b"/usr", b"/usr/big", b"/usr/small", b"/usr/empty", b"/usr/more"]


def test_uncompressed_layers_of_the_transport_are_preferred():
    made = layer(TREE)
    transport, image = opened(Image([made]))
    transport.layers[made.diff_id] = made.tar
    transport.opened.clear()
    assert read(transport, image)[0] == made.tar
    assert transport.opened == []
    transport.layers[made.diff_id] = made.tar[:-1]
    with pytest.raises(VerificationError, match="config says"):
        read(transport, image)


def test_a_layer_that_is_not_what_the_config_says():
    lying = Image([layer(TREE)], config=Image([layer({"a": "b"})]).config)
    with pytest.raises(VerificationError, match="config says"):
        read(*opened(lying))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_blob_with_one_wrong_byte(compression):
    made = layer(TREE, compression)
    for at in (20, len(made.blob) // 2, len(made.blob) - 1):
        transport, image = opened(Image([made]))
        wrong = bytearray(made.blob)
        wrong[at] ^= 1
        transport.blobs[digest(made.blob)] = bytes(wrong)
        with pytest.raises(VerificationError, match="other content than its digest"):
            read(transport, image)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_blob_that_is_cut(compression):
    made = layer(TREE, compression)
    transport, image = opened(Image([made]))
    for wrong in (made.blob[:-10], made.blob[:30], b""):
        transport.blobs[digest(made.blob)] = wrong
        with pytest.raises(TransportError, match="ended after"):
            read(transport, image)
    transport.blobs[digest(made.blob)] = made.blob + b"x"
    with pytest.raises(VerificationError, match="more than the announced"):
        read(transport, image)


def test_an_honest_blob_of_a_broken_layer():
    """The digests are right: the image was made broken."""
    good = tar_bytes(TREE)
    for broken, message in (
        (good[:5000], "ends in the middle of a file"),
        (good[:1300], "ends in the middle"),
        (raw_header(b"../x"), "leaves the tree"),
        (raw_header(b"x", b"S"), "sparse"),
        (b"this is no tar at all" * 100, "checksum|malformed"),
    ):
        with pytest.raises(ImageError, match=message):
            read(*opened(Image([layer(broken)])))
    blob, suffix, _ = compress(good, "gzip")
    torn = Layer(good, blob[:-20], f"{OCI}.layer.v1.tar{suffix}")
    with pytest.raises(ImageError, match="too early"):
        read(*opened(Image([torn])))


def test_limits():
    transport, image = opened(Image([layer(TREE)]))
    for limits in (
        LayerLimits(blob_bytes=100),
        LayerLimits(decompression=DecompressionLimits(total_bytes=1 << 20)),
        LayerLimits(tar=TarLimits(entries=3)),
    ):
        with pytest.raises(LimitError):
            read(transport, image, limits=limits)
    padded = layer(tar_bytes({"a": "b"}) + bytes(100_000))
    with pytest.raises(LimitError, match="behind its end"):
        read(*opened(Image([padded])), limits=LayerLimits(trailer_bytes=50_000))
    assert read(*opened(Image([padded])))[0] == padded.tar


def test_leaving_early_ends_the_transfer():
    transport, image = opened(Image([layer(TREE, "none")]), chunk=1000)
    with open_layer(transport, image, 0) as stream:
        assert next(stream.members())
    with pytest.raises(ZeroDivisionError), open_layer(transport, image, 0) as stream:
        assert next(stream.members()).size // 0


def test_errors_of_the_transport_arrive():
    class Failing(MemoryFetcher):
        @contextlib.contextmanager
        def open_blob(self, reference, descriptor, offset):
            def chunks():
                yield self.blobs[str(descriptor.digest)][:2000]
                raise OSError(5, "cable cut")

            yield chunks()

    made = layer(TREE, "none")
    image = opened(Image([made]))[1]
    failing = Failing(Image([made]))
    with pytest.raises(TransportError, match="cable cut"):
        read(failing, image)


def test_progress_counts_transferred_bytes():
    class Counting:
        def __init__(self):
            self.events = []

        def start(self, task, *, total, unit="bytes"):
            self.events.append(("start", total))

        def advance(self, task, amount):
            self.events.append(("advance", amount))

        def finish(self, task):
            self.events.append(("finish", None))

    made = layer(TREE)
    progress = Counting()
    read(*opened(Image([made])), progress=progress)
    assert progress.events[0] == ("start", len(made.blob))
    assert progress.events[-1] == ("finish", None)
    assert sum(amount for event, amount in progress.events if event == "advance") == len(made.blob)
