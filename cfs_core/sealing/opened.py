"""An image that was judged and read, and the identity that it has, or will have with one more layer."""

from __future__ import annotations

import io
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.config.advice import image_advice
from cfs_core.deploy.choose import choose_architecture
from cfs_core.deploy.judge import judge
from cfs_core.deploy.pull import pull
from cfs_core.errors import HostError
from cfs_core.image.artifacts import find_artifacts, read_os_release
from cfs_core.image.layers import VerifiedLayer
from cfs_core.image.merge import merge_layers
from cfs_core.image.reader import ImageReader
from cfs_core.image.resolve import resolve
from cfs_core.model.content import FileContent
from cfs_core.model.manifest import Platform
from cfs_core.sealing.layer import LayerTar, write_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfs_core.config.settings import Settings
    from cfs_core.deploy.judge import JudgedImage
    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.storage import Identifier
    from cfs_core.model.boot import Architecture, BootArtifacts
    from cfs_core.model.deployment import FormatOptions, ImageId
    from cfs_core.model.digest import Digest
    from cfs_core.model.tree import Directory
    from cfs_core.sealing.layer import AddedLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage:
    """An image that required policies accepted, with its merged layers; /boot is still there."""

    judged: JudgedImage
    reader: ImageReader
    architecture: Architecture
    artifacts: tuple[BootArtifacts, ...]
    services: Services
    _tree: Directory = field(repr=False)
    _identifier: Identifier = field(repr=False)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the image."""
        return dict(self.judged.image.config.labels)

    @property
    def manifest_digest(self) -> str:
        """The digest by which the image was fetched."""
        return str(self.judged.image.manifest.digest)

    @property
    def os_release(self) -> dict[str, str]:
        """Its os-release(5)."""
        return dict(read_os_release(self.reader))

    def settings(self) -> Settings:
        """Return the settings of the run with what the image advises.

        Raises:
            ConfigError: an advice that is none.
        """
        settings = self.services.settings
        for layer in image_advice(self.reader, self.architecture.value):
            settings = settings.with_layer(layer)
        return settings

    @property
    def layer_count(self) -> int:
        """How many layers it has."""
        return len(self.judged.image.config.diff_ids)

    def identities(self, options: Sequence[FormatOptions], *, layers: int | None = None) -> tuple[ImageId, ...]:
        """Return the identities of the bootable form under each of *options*, of the hash it was opened with.

        *layers*: of so many layers from the lowest, None for all.
        """
        tree = self._tree if layers is None else self._merged(self.judged.image.config.diff_ids[:layers])
        return self._identifier.image_ids(tree, options, bootable=True)

    def plain_identities(self, options: Sequence[FormatOptions], *, layers: int) -> tuple[ImageId, ...]:
        """Return the identities of so many *layers* as they are, which nothing boots from, under each of *options*."""
        tree = self._merged(self.judged.image.config.diff_ids[:layers])
        return self._identifier.image_ids(tree, options, bootable=False)

    def identity_with(self, layer: AddedLayer, options: FormatOptions) -> ImageId:
        """Return the identity that the bootable form has with *layer* on top."""
        if not layer.paths:
            return self.identities([options])[0]
        tar = self.layer_tar(layer)
        stream = VerifiedLayer(tar.chunks(), tar.digest, name="the layer that is added")
        self._identifier.import_layer(stream)
        diff_ids = (*self.judged.image.config.diff_ids, tar.digest)
        return self._identifier.image_ids(self._merged(diff_ids), [options], bootable=True)[0]

    def dump(self, options: FormatOptions, *, layers: int | None = None) -> list[str]:
        """Return the bootable form as lines of text (composefs-dump(5)), of so many *layers* from the lowest."""
        return self._lines(self.judged.image.config.diff_ids[:layers], options)

    def dump_with(self, layer: AddedLayer, options: FormatOptions) -> list[str]:
        """Return the bootable form with *layer* on top, after `identity_with` was asked about that layer."""
        more = (self.layer_tar(layer).digest,) if layer.paths else ()
        return self._lines((*self.judged.image.config.diff_ids, *more), options)

    def _lines(self, diff_ids: Sequence[Digest], options: FormatOptions) -> list[str]:
        storage = self.services.storage()
        tree = self._merged(diff_ids)
        reader = ImageReader(tree, self._identifier.content)
        storage.canonical(tree, options)
        storage.bootable(tree, reader)
        out = io.BytesIO()
        storage.write_dump(tree, out, options)
        return out.getvalue().decode("utf-8", "surrogateescape").splitlines()

    def _merged(self, diff_ids: Sequence[Digest]) -> Directory:
        return merge_layers(self._identifier.layer_entries(diff_id) for diff_id in diff_ids)

    def layer_tar(self, layer: AddedLayer) -> LayerTar:
        """Write *layer* into the scratch space of the run.

        Raises:
            HostError: there is no room.
        """
        try:
            path = Path(tempfile.mkdtemp(prefix="layer-", dir=self.services.scratch)) / "layer.tar"
            with path.open("wb") as out:
                digest = write_layer(layer, self._tree, out)
        except OSError as cause:
            msg = f"the layer cannot be written: {cause.strerror}"
            raise HostError(msg, hint="set TMPDIR to a filesystem with room") from cause
        return LayerTar(FileContent.of(path), digest)


@contextmanager
def open_image(
    services: Services, source: str, *, options: FormatOptions, architecture: str | None = None
) -> Iterator[OpenedImage]:
    """Resolve, judge and read the image that *source* names; nothing of it is stored.

    Raises:
        CfsError: of the class of whatever failed.
    """
    transport, reference = services.locate(source)
    image = resolve(transport, reference, Platform("linux", architecture) if architecture else None)
    judged = judge(image, transport, services)
    with services.storage().scratch(options) as identifier:
        tree, _ = pull(judged, identifier, services, verify=False)
        reader = ImageReader(tree, identifier.content)
        yield OpenedImage(
            judged=judged,
            reader=reader,
            architecture=choose_architecture(image.config.platform.architecture),
            artifacts=find_artifacts(reader),
            services=services,
            _tree=tree,
            _identifier=identifier,
        )
