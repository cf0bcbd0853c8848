"""From a reference to a committed image and its boot artifacts: everything that can be known without a target."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from cfs_core.config.advice import image_advice
from cfs_core.errors import PluginError, VerificationError
from cfs_core.image.artifacts import find_artifacts
from cfs_core.image.pull import merged_tree, pull_layers, tag_of
from cfs_core.image.reader import ImageReader
from cfs_core.image.resolve import resolve
from cfs_core.image.sealed import effective, sealed_words
from cfs_core.install.judge import judge
from cfs_core.model.deployment import FormatOptions, FormatVersion
from cfs_core.model.digest import HashAlgorithm
from cfs_core.model.event import Event
from cfs_core.model.manifest import Platform
from cfs_core.pluginhost import families
from cfs_core.system.atomic import make_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.config.settings import Settings
    from cfs_core.image.sealed import SealedDigest
    from cfs_core.install.request import InstallRequest
    from cfs_core.install.services import Services
    from cfs_core.interfaces.storage import Repository, StorageFormat
    from cfs_core.interfaces.transport import Transport
    from cfs_core.model.boot import BootArtifacts
    from cfs_core.model.deployment import CommittedImage
    from cfs_core.model.manifest import ResolvedImage
    from cfs_core.model.tree import Directory


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """An image that is completely in the local repository."""

    resolved: ResolvedImage
    committed: CommittedImage
    repository: Repository
    merged: ImageReader
    """The merged layers before any canonical form: /boot is still there."""

    deployed: Directory
    """The tree that will be mounted."""

    artifacts: tuple[BootArtifacts, ...]
    seal: SealedDigest | None
    """What the UKI's command line makes the initramfs mount; None where the image is not sealed."""

    storage_name: str
    storage_origin: str
    settings: Settings
    verified: tuple[str, ...]


@contextmanager
def prepare(request: InstallRequest, services: Services) -> Iterator[PreparedImage]:
    """Resolve, judge, fetch and commit the image; the repository stays open (and locked) while the block runs.

    Raises:
        CfsError: of the class of whatever failed; nothing outside the local repository was touched.
    """
    transport, reference = services.transport(request.source)
    platform = Platform("linux", request.architecture) if request.architecture else None
    image = resolve(transport, reference, platform)
    facts = {"reference": str(reference), "manifest_digest": str(image.manifest.digest)}
    services.emit(Event(name="image.resolved", facts=facts))
    verified = judge(image, transport, services)
    name, origin = _storage_name(request, services, image)
    storage = services.storage(name)
    with ExitStack() as stack:
        repository = stack.enter_context(_local_repository(request, services, storage, None))
        tree, reader = _pulled(transport, image, repository, services)
        artifacts = find_artifacts(reader)
        sealed = sealed_words(artifacts[0]) if artifacts else ()
        wanted = _other_hash(sealed, repository.options.algorithm)
        if wanted is not None and request.repo is None:
            repository = stack.enter_context(_local_repository(request, services, storage, wanted))
            tree, reader = _pulled(transport, image, repository, services)
            artifacts = find_artifacts(reader)
        settings = services.settings
        for layer in image_advice(reader):
            settings = settings.with_layer(layer)
        seal = effective(sealed, repository.options.algorithm) or next(iter(sealed), None)
        options = _matching_options(tree, repository, seal) if seal is not None else None
        tag = tag_of(request.source)
        committed = repository.commit(merged_tree(repository, image), image, options=options, name=tag)
        done = Event(name="image.committed", facts={"image_id": committed.id, "sealed": seal is not None})
        services.emit(done)
        yield PreparedImage(
            resolved=image,
            committed=committed,
            repository=repository,
            merged=reader,
            deployed=repository.open_tree(committed.id),
            artifacts=artifacts,
            seal=seal,
            storage_name=name,
            storage_origin=origin if seal is None else "the image is sealed",
            settings=settings,
            verified=verified,
        )


def _pulled(
    transport: Transport, image: ResolvedImage, repository: Repository, services: Services
) -> tuple[Directory, ImageReader]:
    pull_layers(transport, image, repository, progress=services.progress, emit=services.emit)
    tree = merged_tree(repository, image)
    return tree, ImageReader(tree, repository.content)


def _other_hash(sealed: tuple[SealedDigest, ...], algorithm: HashAlgorithm | None) -> HashAlgorithm | None:
    """Return the hash an image is sealed with, if a repository of *algorithm* cannot have what it names."""
    found = effective(sealed, algorithm)
    if not sealed or (found is not None and found.algorithm is algorithm):
        return None
    return next((word.algorithm for word in sealed if word.algorithm is not algorithm), None)


LABEL = "containers.cfs.storage"


def _storage_name(request: InstallRequest, services: Services, image: ResolvedImage) -> tuple[str, str]:
    """Choose the storage format and say why."""
    if request.storage:
        return request.storage, "command line"
    setting = services.settings.get("install.storage")
    if setting.value:
        return str(setting.value), setting.origin
    if image.config.labels.get(LABEL):
        return image.config.labels[LABEL], f"image label {LABEL}"
    installed = [provider.name for provider in services.host.collect(families.STORAGE)]
    if len(installed) == 1:
        return installed[0], "the only storage format that is installed"
    if not installed:
        services.host.collect(families.STORAGE).get("composefs")
    msg = f"several storage formats are installed ({', '.join(installed)}) and nothing chooses one"
    raise PluginError(msg, hint="pass --composefs-native, or set install.storage")


@contextmanager
def _local_repository(
    request: InstallRequest, services: Services, storage: StorageFormat, algorithm: HashAlgorithm | None
) -> Iterator[Repository]:
    """Open ``--repo`` or the user's own; a repository has one hash, so another one lives beside it under its name."""
    path = request.repo or services.default_repository()
    if algorithm is not None:
        path = path.with_name(f"{path.name}-{algorithm.value}")
    options = None
    if not (path / "meta.json").exists():
        make_parent(path)
        options = FormatOptions(
            version=FormatVersion(services.settings.value("install.erofs")),
            algorithm=algorithm or HashAlgorithm(services.settings.value("install.hash")),
        )
    with storage.open(path, create=True, options=options) as repository:
        yield repository


def _matching_options(tree: Directory, repository: Repository, seal: SealedDigest) -> FormatOptions:
    """Find under which choices this tree has the identity a UKI was sealed with.

    Raises:
        VerificationError: under none.
    """
    algorithm = repository.options.algorithm
    if seal.algorithm is not algorithm:
        msg = f"the UKI of this image is sealed with {seal.algorithm}, and the repository keeps {algorithm}"
        hint = "leave --repo out, or name a repository with that hash"
        raise VerificationError(msg, hint=hint, expected=seal.hex)
    candidates = [
        FormatOptions(version=version, algorithm=algorithm, keep_user_xattrs=keep)
        for keep, version in product((False, True), (FormatVersion.V1, FormatVersion.V2, FormatVersion.V0))
    ]
    for options in candidates:
        (found,) = repository.image_ids(tree, [options], bootable=True)
        if found == seal.hex:
            return options
    (ours,) = repository.image_ids(tree, candidates[:1], bootable=True)
    msg = f"the UKI of this image is sealed for {seal.hex:.16}…, but its files make {ours:.16}…"
    hint = (
        "build the UKI again for this image: `cfs image digest --bootable` prints the digest it must carry, and the "
        "first composefs= of its command line counts"
    )
    raise VerificationError(msg, hint=hint, expected=seal.hex, found=ours)
