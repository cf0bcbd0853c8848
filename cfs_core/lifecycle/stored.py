"""Images of a machine's repository, as a deployment needs them: no network, nothing fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.deploy.choose import choose_artifacts
from cfs_core.deploy.state import etc_of
from cfs_core.errors import CfsError, StateError
from cfs_core.image.artifacts import find_artifacts
from cfs_core.image.kernel_arguments import image_arguments
from cfs_core.image.manifest import Index, parse_config, parse_manifest
from cfs_core.image.pull import merged_tree
from cfs_core.image.reader import ImageReader
from cfs_core.lifecycle.etc_merge.scan import tree_of_image
from cfs_core.model.deployment import CommittedImage
from cfs_core.model.digest import Digest
from cfs_core.model.manifest import ResolvedImage
from cfs_core.model.reference import ImageReference

if TYPE_CHECKING:
    from cfs_core.interfaces.storage import Repository
    from cfs_core.lifecycle.etc_merge.nodes import EtcTree
    from cfs_core.lifecycle.status import DeploymentStatus
    from cfs_core.model.boot import Architecture, BootArtifacts
    from cfs_core.model.deployment import ImageId


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDeployment:
    """What a repository has of a deployment. ``image`` is None where manifest or configuration are gone."""

    id: ImageId
    deployed: ImageReader
    image: ResolvedImage | None
    repository: Repository

    def etc(self) -> EtcTree:
        """Return the image's /etc.

        Raises:
            ImageError: it has none.
            StorageError: a content is not there.
        """
        return tree_of_image(etc_of(self.deployed.root), self.repository.content)

    def kernel_arguments(self, architecture: Architecture) -> tuple[str, ...]:
        """Return what the image asks for on the kernel command line; malformed files of a running one say nothing."""
        labels = self.image.config.labels if self.image is not None else {}
        try:
            return tuple(argument.text for argument in image_arguments(self.deployed, labels, architecture))
        except CfsError:
            return ()

    def identity_arguments(self, *, verity: bool) -> tuple[str, ...]:
        """Return what tells early boot to mount this image; ``verity`` False makes fs-verity optional."""
        options, unknown = self.repository.options, Digest.of(b"")
        committed = CommittedImage(
            id=self.id,
            plain_id=self.id,
            version=options.version,
            algorithm=options.algorithm,
            manifest_digest=self.image.manifest.digest if self.image is not None else unknown,
            config_digest=self.image.config.digest if self.image is not None else unknown,
        )
        return tuple(argument.text for argument in self.repository.kernel_arguments(committed, verity=verity))

    def artifacts(self) -> BootArtifacts:
        """Return what it boots from.

        Raises:
            StateError: the image is not here as a whole.
            ImageError: it has no kernel.
        """
        merged = self.merged()
        return choose_artifacts(find_artifacts(merged), merged)

    def merged(self) -> ImageReader:
        """Return the merged layers: /boot is there only, not in the tree that is mounted.

        Raises:
            StateError: the image is not here as a whole.
            StorageError: a layer is not here, or damaged.
        """
        if self.image is None:
            msg = f"the manifest of deployment {self.id:.16} is not in the repository"
            raise StateError(msg, hint="run `cfs upgrade` again: it fetches what is missing")
        return ImageReader(merged_tree(self.repository, self.image), self.repository.content)

    def kernel_layer(self) -> str | None:
        """Return the uppermost layer (diff-id) with a kernel in it; None where that cannot be told."""
        for diff_id in reversed(self.image.config.diff_ids if self.image is not None else ()):
            try:
                if any(_is_kernel(entry.path) for entry in self.repository.layer_entries(diff_id)):
                    return str(diff_id)
            except CfsError:
                return None
        return None


def _is_kernel(path: bytes) -> bool:
    parts = path.strip(b"/").split(b"/")
    if parts[:3] == [b"usr", b"lib", b"modules"]:
        return parts[4:] in ([b"vmlinuz"], [b"initramfs.img"]) or path.lower().endswith(b".efi")
    if parts[:1] == [b"boot"] and len(parts) == 2:  # noqa: PLR2004 - a file of /boot itself
        return parts[1].startswith((b"vmlinu", b"Image-", b"kernel-", b"initr"))
    return parts[:3] == [b"boot", b"EFI", b"Linux"]


def stored(repository: Repository, identity: str, manifest_digest: str | None) -> StoredDeployment:
    """Open deployment *identity* of a repository.

    Raises:
        StorageError: its image is not there, or damaged.
    """
    image_id: ImageId = identity  # type: ignore[assignment]  # as the origin file and the command line have it
    reader = ImageReader(repository.open_tree(image_id), repository.content)
    return StoredDeployment(
        id=image_id, deployed=reader, image=_resolved(repository, manifest_digest), repository=repository
    )


def stored_status(repository: Repository, deployment: DeploymentStatus) -> StoredDeployment:
    """Open a deployment that was found on the machine.

    Raises:
        StorageError: its image is not there, or damaged.
    """
    return stored(repository, deployment.id, deployment.manifest_digest)


def _resolved(repository: Repository, manifest_digest: str | None) -> ResolvedImage | None:
    if manifest_digest is None:
        return None
    try:
        _, raw_manifest, raw_config = repository.resolved(manifest_digest)
        manifest, config = parse_manifest(raw_manifest), parse_config(raw_config)
    except CfsError:
        return None
    if isinstance(manifest, Index):
        return None
    reference = ImageReference(scheme="", name=manifest_digest, text=manifest_digest)
    return ResolvedImage(reference=reference, canonical=reference, manifest=manifest, config=config)
