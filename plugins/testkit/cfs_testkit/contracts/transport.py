"""The contract of transports: what was published is what is read, and nothing but errors of cfs comes out."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cfs_core.plugin import (
    MANIFEST_LIMIT,
    MANIFEST_MEDIA_TYPES,
    CannotResumeError,
    CfsError,
    Descriptor,
    Digest,
    Fetcher,
    ImageError,
    ImageReference,
    LimitError,
    NotFoundError,
    Platform,
    RefusedError,
    RegularFile,
    ResolvedImage,
    Transport,
    TransportError,
    UsageError,
    VerificationError,
)
from cfs_core.testing import families, open_layer, resolve
from cfs_testkit.compare import difference
from cfs_testkit.contracts.base import Contract, optional
from cfs_testkit.images import Image, build_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cfs_core.plugin import PluginContext

CHUNK_LIMIT = 16 << 20
"""Bytes; a transport that hands out more at once holds whole layers in memory."""

LARGE = 24 << 20
AMD64 = Platform("linux", "amd64")
NONSENSE = (":", "::", ":@", ":\0", ":a b", ":/../../etc/passwd", ":@sha256:x", ":a:b:c:d", ":%00", ":" + "a" * 5000)


class TransportContract(Contract):
    """What a transport must do. Give `publish` and `missing`; `destination` if it writes."""

    family = families.TRANSPORTS

    files: ClassVar[tuple[Mapping[str, str], ...]] = (
        {"usr/bin/hello": "#!/bin/sh\necho hello\n", "usr/lib/os-release": "ID=test\n", "etc/motd": "below\n"},
        {"etc/motd": "above\n", "usr/share/empty": ""},
    )
    """Files of the image that is published, layer by layer."""

    keeps_manifests: ClassVar[bool] = True
    """False for sources that hold no manifest, so that the transport makes one."""

    @pytest.fixture
    def image(self) -> Image:
        """The image that is published."""
        return build_image(self.files)

    @pytest.fixture
    def publish(self) -> Callable[[Image], str]:
        """Return a function that puts an image where the transport finds it, and returns its reference as text."""
        pytest.fail("give a fixture `publish`: image -> reference")

    @pytest.fixture
    def missing(self) -> str:
        """Return a reference, in this transport's grammar, to an image that does not exist."""
        pytest.fail("give a fixture `missing`: a reference to nothing")

    @pytest.fixture
    def destination(self) -> str:
        """Return a reference that nothing was written to yet."""
        pytest.fail("give a fixture `destination`: a reference to write to")

    @pytest.fixture
    def damage(self) -> Callable[[Image], None]:
        """Return a function that changes bytes of the published image's first layer, where the transport reads it."""
        pytest.skip("no fixture `damage` is given")

    @pytest.fixture
    def transport(self, made: Transport, context: PluginContext) -> Iterator[Fetcher]:
        """The transport as core reads through it; it waits for nothing between tries, and is closed in the end."""
        context.retrier.pause = lambda _seconds: None
        with Fetcher(made, context.retrier) as fetcher:
            yield fetcher

    @pytest.fixture
    def reference(self, transport: Fetcher, publish: Callable[[Image], str], image: Image) -> ImageReference:
        """Where the image is."""
        return transport.parse(publish(image))

    @pytest.fixture
    def resolved(self, transport: Fetcher, reference: ImageReference) -> ResolvedImage:
        """The image, resolved by core."""
        return resolve(transport, reference, AMD64)

    # --- references ---------------------------------------------------------------------------

    def test_schemes_are_words(self, offered: Any) -> None:
        """Schemes are a tuple of lower-case words, each once."""
        assert isinstance(offered.schemes, tuple)
        assert offered.schemes
        assert len(set(offered.schemes)) == len(offered.schemes)
        for scheme in offered.schemes:
            assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", scheme), scheme

    def test_a_reference_keeps_what_was_written(
        self, offered: Any, transport: Fetcher, publish: Callable[[Image], str], image: Image
    ) -> None:
        """Parsing is pure; scheme and text of a reference are what the person wrote."""
        text = publish(image)
        reference = transport.parse(text)
        assert reference.text == text
        assert reference.scheme in offered.schemes
        assert transport.parse(text) == reference

    @pytest.mark.parametrize("rest", NONSENSE, ids=lambda rest: ascii(rest[:12]))
    def test_nonsense_is_a_usage_error(self, offered: Any, transport: Fetcher, rest: str) -> None:
        """What is not in the grammar is refused with UsageError, whatever it is."""
        for scheme in offered.schemes:
            try:
                found = transport.parse(scheme + rest)
            except UsageError:
                continue
            assert found.scheme == scheme

    # --- manifests ----------------------------------------------------------------------------

    def test_the_manifest_is_byte_for_byte(self, transport: Fetcher, reference: ImageReference, image: Image) -> None:
        """The manifest is handed out as it is stored: its digest is the image's name."""
        if not self.keeps_manifests:
            pytest.skip("this source holds no manifests (keeps_manifests is False)")
        assert transport.fetch_manifest(reference)[1] == image.manifest

    def test_asking_twice_gives_the_same_manifest(self, transport: Fetcher, reference: ImageReference) -> None:
        """A manifest that the transport makes is the same every time: its digest goes into the installed system."""
        assert transport.fetch_manifest(reference) == transport.fetch_manifest(reference)

    def test_the_media_type_is_stated_or_empty(self, transport: Fetcher, reference: ImageReference) -> None:
        """The media type is what the source states, of a manifest or index; empty if it states none."""
        media_type, _ = transport.fetch_manifest(reference)
        assert media_type in {"", *MANIFEST_MEDIA_TYPES}

    def test_a_digest_names_the_image(self, transport: Fetcher, reference: ImageReference) -> None:
        """A reference with a digest finds the image of that digest, and no other."""
        _, raw = transport.fetch_manifest(reference)
        by_digest = dataclasses.replace(reference, digest=Digest.of(raw))
        assert transport.fetch_manifest(by_digest)[1] == raw
        other = dataclasses.replace(reference, digest=Digest.of(b"something else"))
        with pytest.raises((NotFoundError, VerificationError)):
            transport.fetch_manifest(other)

    def test_an_image_that_does_not_exist(self, transport: Fetcher, missing: str) -> None:
        """Nothing there is NotFoundError: callers try elsewhere, people see what was looked for."""
        with pytest.raises(NotFoundError):
            transport.fetch_manifest(transport.parse(missing))

    def test_an_endless_manifest_is_not_read(
        self, transport: Fetcher, publish: Callable[[Image], str], image: Image
    ) -> None:
        """Of a manifest that is too long, no more than the limit is read."""
        if not self.keeps_manifests:
            pytest.skip("this source holds no manifests (keeps_manifests is False)")
        raw = image.manifest + b" " * (2 * MANIFEST_LIMIT)
        long = dataclasses.replace(image, manifest=raw, digest=f"sha256:{hashlib.sha256(raw).hexdigest()}")
        try:
            reference = transport.parse(publish(long))
            _, read = transport.transport.read_manifest(reference, MANIFEST_MEDIA_TYPES)
        except (LimitError, TransportError, ImageError):
            return
        assert len(read) <= MANIFEST_LIMIT + 1

    # --- blobs --------------------------------------------------------------------------------

    def test_layers_hold_the_published_files(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """Layers, verified by core against both of their digests, hold the files that were published."""
        found: dict[str, bytes] = {}
        for index in range(len(resolved.manifest.layers)):
            with open_layer(transport, resolved, index) as layer:
                for member in layer.members():
                    if member.entry is not None and isinstance(member.entry.what, RegularFile):
                        found[os.fsdecode(member.entry.path).lstrip("/")] = b"".join(layer.content())
                for _ in layer.trailer():
                    pass
        wanted = {path: text.encode() for layer_files in self.files for path, text in layer_files.items()}
        assert found == wanted

    def test_a_blob_can_be_read_from_the_middle(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """Opening at an offset gives the rest from there, or CannotResumeError; never the start once more."""
        descriptor = resolved.manifest.layers[0]
        with transport.transport.open_blob(resolved.reference, descriptor, 0) as chunks:
            data = b"".join(chunks)
        for offset in (1, len(data) // 2, len(data) - 1):
            try:
                with transport.transport.open_blob(resolved.reference, descriptor, offset) as chunks:
                    assert difference(b"".join(chunks), data[offset:]) is None, f"at offset {offset}"
            except CannotResumeError:
                continue

    def test_chunks_are_short(self, transport: Fetcher, publish: Callable[[Image], str]) -> None:
        """A large blob comes in pieces: memory stays flat whatever the image's size."""
        large = build_image([{"usr/large": os.urandom(1 << 20) * (LARGE >> 20)}], compression="none")
        image = resolve(transport, transport.parse(publish(large)), AMD64)
        for descriptor in image.manifest.layers:
            with transport.transport.open_blob(image.reference, descriptor, 0) as chunks:
                for chunk in chunks:
                    assert isinstance(chunk, bytes | bytearray | memoryview)
                    assert len(chunk) <= CHUNK_LIMIT, "the whole blob is read into memory"

    def test_a_blob_that_does_not_exist(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """A blob that is not there is NotFoundError, when it is opened or read."""
        other = dataclasses.replace(resolved.manifest.layers[0], digest=Digest.of(b"something else"))
        with pytest.raises(NotFoundError), transport.transport.open_blob(resolved.reference, other, 0) as chunks:
            for _ in chunks:
                pass

    def test_leaving_a_blob_early_gives_everything_back(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """A transfer that is given up leaves no file or connection open once the transport is closed."""
        descriptor = resolved.manifest.layers[0]
        before = _open_files()
        for _ in range(8):
            with transport.transport.open_blob(resolved.reference, descriptor, 0) as chunks:
                next(iter(chunks))
        transport.close()
        assert _open_files() <= before + 1

    def test_layers_are_fetched_by_several_threads(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """Core fetches layers in parallel: readers do not get in each other's way."""
        descriptors = [resolved.manifest.config, *resolved.manifest.layers] * 8

        def fetch(descriptor: Descriptor) -> bytes:
            return b"".join(transport.iter_blob(resolved.reference, descriptor))

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for descriptor, data in zip(descriptors, pool.map(fetch, descriptors), strict=True):
                assert Digest.of(data, descriptor.digest.algorithm) == descriptor.digest

    def test_uncompressed_layers_have_their_diff_id(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """A layer that is handed out uncompressed hashes to the diff-id in the configuration."""
        for descriptor, diff_id in zip(resolved.manifest.layers, resolved.config.diff_ids, strict=True):
            opened = transport.open_layer_uncompressed(resolved.reference, descriptor, diff_id)
            if opened is not None:
                with opened as chunks:
                    assert Digest.of(b"".join(chunks), diff_id.algorithm) == diff_id

    def test_the_canonical_reference_is_the_same_request(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """What policies judge has full names, and is still what was written: scheme, text and digest stay."""
        again = transport.canonical(resolved.reference)
        assert again == resolved.canonical
        assert (again.scheme, again.text) == (resolved.reference.scheme, resolved.reference.text)
        assert again.digest == resolved.reference.digest

    def test_damage_is_an_error_of_cfs(
        self,
        transport: Fetcher,
        reference: ImageReference,
        image: Image,
        damage: Callable[[Image], None],
    ) -> None:
        """A source whose layer was changed fails with an error of cfs, not with the exception of a library."""
        damage(image)
        with pytest.raises(CfsError):  # noqa: PT012 - whichever step notices
            found = resolve(transport, reference, AMD64)
            for index in range(len(found.manifest.layers)):
                with open_layer(transport, found, index) as layer:
                    for _ in layer.members():
                        pass
                    for _ in layer.trailer():
                        pass

    def test_reading_prints_nothing(
        self, transport: Fetcher, reference: ImageReference, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Standard output is for results of cfs."""
        capfd.readouterr()
        found = resolve(transport, reference, AMD64)
        for descriptor in found.manifest.layers:
            for _ in transport.iter_blob(reference, descriptor):
                pass
        assert capfd.readouterr().out == ""

    def test_closing_twice_is_harmless(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """Close may be called again, and before anything was read."""
        assert resolved.manifest.layers
        transport.close()
        transport.close()

    def test_referrers_are_descriptors(self, transport: Fetcher, resolved: ResolvedImage) -> None:
        """Signatures and attestations are listed as descriptors; there are none of this image."""
        assert transport.referrers(resolved.reference, resolved.manifest.digest) == ()

    # --- writing ------------------------------------------------------------------------------

    @optional(lambda provider: not provider.can_write, "it only reads")
    def test_one_that_only_reads_refuses_to_write(self, transport: Fetcher, reference: ImageReference) -> None:
        """Without can_write, opening a writer is refused."""
        with pytest.raises(RefusedError):
            transport.open_writer(reference)

    @optional(lambda provider: provider.can_write, "can_write")
    def test_what_is_written_is_read_back(self, transport: Fetcher, destination: str, image: Image) -> None:
        """An image that was put there comes back byte for byte."""
        reference = transport.parse(destination)
        self._write(transport, reference, image)
        assert transport.fetch_manifest(reference)[1] == image.manifest
        found = resolve(transport, reference, AMD64)
        for descriptor in (found.manifest.config, *found.manifest.layers):
            stored = b"".join(transport.iter_blob(reference, descriptor))
            assert difference(stored, image.blobs[str(descriptor.digest)]) is None

    @optional(lambda provider: provider.can_write, "can_write")
    def test_writing_again_replaces_or_refuses(self, transport: Fetcher, destination: str, image: Image) -> None:
        """A second image under the same name takes its place, or is refused and the first one stays."""
        reference = transport.parse(destination)
        self._write(transport, reference, image)
        other = build_image([{"usr/other": "other\n"}])
        try:
            self._write(transport, reference, other)
        except RefusedError:
            other = image
        assert transport.fetch_manifest(reference)[1] == other.manifest

    @optional(lambda provider: provider.can_write, "can_write")
    def test_a_writer_left_early_shows_nothing(self, transport: Fetcher, destination: str, image: Image) -> None:
        """Without its last manifest, an image that was being written does not exist."""
        reference = transport.parse(destination)
        with transport.open_writer(reference) as writer:
            for descriptor, data in _descriptors(image):
                writer.put_blob(descriptor, [data])
        with pytest.raises(NotFoundError):
            transport.fetch_manifest(reference)

    @optional(lambda provider: provider.can_write, "can_write")
    def test_a_blob_that_fails_is_not_kept(self, transport: Fetcher, destination: str, image: Image) -> None:
        """A stream that turns out wrong at its end leaves no blob under its digest."""
        descriptor, data = _descriptors(image)[0]

        def failing() -> Iterator[bytes]:
            yield bytes(len(data))
            msg = "these are not the right bytes"
            raise VerificationError(msg)

        with transport.open_writer(transport.parse(destination)) as writer:
            with pytest.raises((VerificationError, TransportError)):
                writer.put_blob(descriptor, failing())
            assert not writer.has_blob(descriptor)

    @optional(lambda provider: provider.can_write, "can_write")
    def test_has_blob_tells_the_truth(self, transport: Fetcher, destination: str, image: Image) -> None:
        """A blob is there once it was put there, and not before."""
        with transport.open_writer(transport.parse(destination)) as writer:
            for descriptor, data in _descriptors(image):
                assert not writer.has_blob(descriptor)
                writer.put_blob(descriptor, [data[:10], data[10:]])
                assert writer.has_blob(descriptor)

    def _write(self, transport: Fetcher, reference: ImageReference, image: Image) -> None:
        with transport.open_writer(reference) as writer:
            for descriptor, data in _descriptors(image):
                if not writer.has_blob(descriptor):
                    writer.put_blob(descriptor, [data])
            size = len(image.manifest)
            top = Descriptor(media_type=MANIFEST_MEDIA_TYPES[0], digest=Digest.parse(image.digest), size=size)
            writer.put_manifest(top, image.manifest, top=True)


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _descriptors(image: Image) -> list[tuple[Descriptor, bytes]]:
    kind = "application/octet-stream"
    return [
        (Descriptor(media_type=kind, digest=Digest.parse(name), size=len(data)), data)
        for name, data in image.blobs.items()
    ]
