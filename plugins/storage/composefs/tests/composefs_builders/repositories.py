"""Repositories for tests: images of `cfs_testkit.builders.oci` imported without any transport."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

from cfs_core.image.layers import VerifiedLayer
from cfs_core.image.manifest import parse_config, parse_manifest
from cfs_core.image.merge import merge_layers
from cfs_core.plugin import Digest, FormatOptions, FormatVersion, HashAlgorithm, ImageReference, ResolvedImage
from cfs_testkit.builders.oci import Image, Layer

CHUNK = 100_000


def storage():
    from cfs_storage_composefs.format import ComposefsFormat

    return ComposefsFormat(SimpleNamespace(scratch=Path(tempfile.gettempdir())))


def open_repository(
    path: Path,
    version: str | None = "v1",
    algorithm: str | None = "sha512",
    *,
    create: bool = True,
    sealed: bool = False,
):
    """Open or make a repository. Without *sealed* it is an insecure one, even where the filesystem has fs-verity: tests
    can then alter its files and find the same everywhere.
    """
    options = FormatOptions(
        version=FormatVersion(version) if version else None, algorithm=HashAlgorithm(algorithm) if algorithm else None
    )
    if create and not sealed and (not path.exists() or (path.is_dir() and not any(path.iterdir()))):
        _write_metadata(path, options)
    return storage().open(path, create=create, options=options)


def _write_metadata(path: Path, options: FormatOptions) -> None:
    from cfs_storage_composefs.repository.metadata import Metadata

    chosen = {name: value for name in ("version", "algorithm") if (value := getattr(options, name)) is not None}
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    (path / "meta.json").write_bytes(Metadata(**chosen).to_bytes())


def layer_stream(layer: Layer | bytes, diff_id: str | None = None) -> VerifiedLayer:
    tar = layer if isinstance(layer, bytes) else layer.tar
    chunks = (tar[at : at + CHUNK] for at in range(0, len(tar), CHUNK))
    return VerifiedLayer(chunks, Digest.parse(diff_id) if diff_id else Digest.of(tar))


def resolved(image: Image, name: str = "oci:test") -> ResolvedImage:
    reference = ImageReference(scheme="oci", name="test", text=name)
    return ResolvedImage(
        reference=reference,
        canonical=reference,
        manifest=parse_manifest(image.manifest, image.media_type),
        config=parse_config(image.config),
    )


def merged(repository, image: Image):
    return merge_layers(repository.layer_entries(Digest.parse(each.diff_id)) for each in image.layers)


def pull(repository, image: Image, **options):
    """Import the layers and commit, as `cfs image pull` does."""
    for each in image.layers:
        repository.import_layer(layer_stream(each))
    return repository.commit(merged(repository, image), resolved(image), **options)
