"""From a reference to a committed image and its boot artifacts: everything that can be known without a target."""

from __future__ import annotations

import io
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from cfs_core.config.advice import image_advice
from cfs_core.deploy.bootable.tree import check_mount_points
from cfs_core.deploy.choose import Choice, choose_storage
from cfs_core.deploy.judge import judge
from cfs_core.deploy.pull import open_repository, pull
from cfs_core.deploy.trust import is_own
from cfs_core.errors import VerificationError
from cfs_core.image.artifacts import find_artifacts
from cfs_core.image.difference import differences, sealed_dump
from cfs_core.image.pull import tag_of
from cfs_core.image.reader import ImageReader
from cfs_core.image.resolve import resolve
from cfs_core.image.sealed import effective, sealed_words
from cfs_core.model.deployment import FormatOptions, FormatVersion
from cfs_core.model.event import Event
from cfs_core.model.manifest import Platform
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.config.settings import Settings
    from cfs_core.deploy.judge import JudgedImage
    from cfs_core.deploy.request import DeploymentRequest
    from cfs_core.deploy.services import Services
    from cfs_core.image.sealed import SealedDigest
    from cfs_core.interfaces.storage import Repository, StorageFormat
    from cfs_core.model.boot import BootArtifacts
    from cfs_core.model.deployment import CommittedImage
    from cfs_core.model.digest import HashAlgorithm
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

    storage: StorageFormat
    storage_choice: Choice
    settings: Settings
    verified: tuple[str, ...]


@contextmanager
def prepare(request: DeploymentRequest, services: Services) -> Iterator[PreparedImage]:
    """Resolve, judge, fetch and commit the image; the repository stays open (and locked) while the block runs.

    Raises:
        CfsError: of the class of whatever failed; nothing outside the local repository was touched.
    """
    transport, reference = request.source
    platform = Platform("linux", request.architecture) if request.architecture else None
    image = resolve(transport, reference, platform)
    facts = {"reference": str(reference), "manifest_digest": str(image.manifest.digest)}
    services.emit(Event(name="image.resolved", facts=facts))
    judged = judge(image, transport, services)
    formats = services.host.collect(families.STORAGE)
    choice = choose_storage(services.settings, formats, image.config.labels)
    storage = services.storage(choice.value)
    with _fetched(judged, storage, request, services) as fetched:
        repository, tree, sealed = fetched.repository, fetched.tree, fetched.sealed
        check_mount_points(tree)
        # Where no word is of this repository's hash the first one counts, and the error below names both hashes.
        seal = effective(sealed, repository.options.algorithm) or next(iter(sealed), None)
        options = _matching_options(fetched, storage, seal) if seal is not None else None
        name = None if request.by_digest else tag_of(reference.text)
        committed = repository.commit(tree, image, options=options, name=name)
        if not fetched.own:
            _compare_identity(repository, tree, options, committed)
        done = Event(name="image.committed", facts={"image_id": committed.id, "sealed": seal is not None})
        services.emit(done)
        yield PreparedImage(
            resolved=image,
            committed=committed,
            repository=repository,
            merged=fetched.reader,
            deployed=repository.open_tree(committed.id),
            artifacts=fetched.artifacts,
            seal=seal,
            storage=storage,
            storage_choice=choice if seal is None else Choice(choice.value, "the image is sealed"),
            settings=_with_advice(services.settings, fetched.reader, image.config.platform.architecture),
            verified=judged.verified,
        )


def _compare_identity(
    repository: Repository, tree: Directory, options: FormatOptions | None, committed: CommittedImage
) -> None:
    """Refuse a committed image that is not what the judged layers give.

    Raises:
        VerificationError: the repository gives another image.
    """
    (expected,) = repository.image_ids(tree, [options] if options else [], bootable=True)
    if committed.id != expected:
        msg = f"the repository gives image {committed.id:.16}… for layers that make {expected:.16}…"
        facts = {"expected": expected, "found": committed.id}
        raise VerificationError(msg, hint="somebody changes it; use a repository of your own (--repo)", facts=facts)


def _with_advice(settings: Settings, image: ImageReader, architecture: str) -> Settings:
    for layer in image_advice(image, architecture):
        settings = settings.with_layer(layer)
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetched:
    """An image's merged layers in a repository, and what of it can be booted."""

    repository: Repository
    own: bool
    """Nobody else can write to the repository."""

    tree: Directory
    reader: ImageReader
    artifacts: tuple[BootArtifacts, ...]
    sealed: tuple[SealedDigest, ...]


def _pulled(judged: JudgedImage, repository: Repository, services: Services, path: Path) -> _Fetched:
    # In a repository of our own what was verified stays so, and what the disk gets of it is read back against digests.
    own = is_own(path)
    tree, _ = pull(judged, repository, services, verify=not own)
    reader = ImageReader(tree, repository.content)
    artifacts = find_artifacts(reader)
    sealed = sealed_words(artifacts[0]) if artifacts else ()
    return _Fetched(repository=repository, own=own, tree=tree, reader=reader, artifacts=artifacts, sealed=sealed)


@contextmanager
def _fetched(
    judged: JudgedImage, storage: StorageFormat, request: DeploymentRequest, services: Services
) -> Iterator[_Fetched]:
    """Pull into ``--repo`` or the user's own repository; yield the one that can have the identity of a sealed image.

    A repository has one hash. Which one a UKI was sealed with is known when its layer is here; an image of the other
    hash is kept in a second repository beside the first. ``--repo`` names one repository, so nothing is made beside it.
    """
    path = request.repo or services.default_repository()
    with ExitStack() as stack:
        repository = stack.enter_context(open_repository(services, storage, path))
        found = _pulled(judged, repository, services, path)
        wanted = _other_hash(found.sealed, repository.options.algorithm)
        if wanted is not None and request.repo is None:
            # It stays, as the first one does: the next install of an image that is sealed like this finds its layers
            # there.
            beside = path.with_name(f"{path.name}-{wanted.value}")
            services.emit(Event(name="repository.other-hash", facts={"hash": wanted.value, "path": str(beside)}))
            repository = stack.enter_context(open_repository(services, storage, beside, algorithm=wanted))
            found = _pulled(judged, repository, services, beside)
        yield found


def _other_hash(sealed: tuple[SealedDigest, ...], algorithm: HashAlgorithm | None) -> HashAlgorithm | None:
    """Return the hash an image is sealed with, if a repository of *algorithm* cannot have what it names."""
    found = effective(sealed, algorithm)
    if not sealed or (found is not None and found.algorithm is algorithm):
        return None
    return next((word.algorithm for word in sealed if word.algorithm is not algorithm), None)


def _matching_options(fetched: _Fetched, storage: StorageFormat, seal: SealedDigest) -> FormatOptions:
    """Find under which choices this tree has the identity a UKI was sealed with.

    Raises:
        VerificationError: under none.
    """
    tree, repository = fetched.tree, fetched.repository
    algorithm = repository.options.algorithm
    if seal.algorithm is not algorithm:
        msg = f"the UKI of this image is sealed with {seal.algorithm}, and the repository keeps {algorithm}"
        hint = f"seal the image with --hash {algorithm}; an install may leave --repo out, or name another repository"
        raise VerificationError(msg, hint=hint, facts={"expected": seal.hex})
    # V1 is what composefs-rs and bootc seal with today, and both leave user.* attributes out: most likely comes first.
    candidates = [
        FormatOptions(version=version, algorithm=algorithm, keep_user_xattrs=keep)
        for keep, version in product((False, True), (FormatVersion.V1, FormatVersion.V2, FormatVersion.V0))
    ]
    for options in candidates:
        (found,) = repository.image_ids(tree, [options], bootable=True)
        if found == seal.hex:
            return options
    (ours,) = repository.image_ids(tree, candidates[:1], bootable=True)
    different = _differences(fetched, storage, candidates[0])
    msg = f"the UKI of this image is sealed for {seal.hex:.16}…, but its files make {ours:.16}…"
    if different:
        msg += f": {different[0]}" + (f" (and {len(different) - 1} more)" if len(different) > 1 else "")
    hint = (
        "build the UKI again for this image: `cfs image digest --bootable` prints the digest it must carry, and the "
        "first composefs= of its command line counts"
    )
    raise VerificationError(msg, hint=hint, facts={"expected": seal.hex, "found": ours, "differences": different})


def _differences(fetched: _Fetched, storage: StorageFormat, options: FormatOptions) -> list[str]:
    """Return what differs from the dump that the sealer left, if there is one; the tree is no other's after that."""
    expected = sealed_dump(fetched.reader, fetched.artifacts[0].uki_name or "")
    if expected is None:
        return []
    storage.canonical(fetched.tree, options)
    storage.bootable(fetched.tree, fetched.reader)
    out = io.BytesIO()
    storage.write_dump(fetched.tree, out, options)
    return list(differences(expected, out.getvalue().decode("utf-8", "surrogateescape").splitlines()))
