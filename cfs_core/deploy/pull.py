"""The only ways an image comes in or goes on: judged first."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cfs_core.deploy.limits import image_limits
from cfs_core.deploy.trust import check_trust
from cfs_core.image.copy import copy_image
from cfs_core.image.pull import merged_tree, pull_layers
from cfs_core.model.deployment import FormatOptions, FormatVersion
from cfs_core.model.digest import HashAlgorithm
from cfs_core.system.atomic import make_parent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.deploy.judge import JudgedImage, JudgedSource
    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.fetcher import Fetcher
    from cfs_core.interfaces.storage import Identifier, Repository, StorageFormat
    from cfs_core.model.digest import Digest
    from cfs_core.model.reference import ImageReference
    from cfs_core.model.tree import Directory


def pull(judged: JudgedImage, repository: Identifier, services: Services, *, verify: bool) -> tuple[Directory, int]:
    """Fetch what *repository* lacks of an image; return its merged tree and how many layers were fetched.

    With *verify*, layers that are there are hashed again: without it they are taken to be what they were.

    Raises:
        TransportError, VerificationError, ImageError, StorageError: nothing of the failing layer is published.
    """
    limits = image_limits(services.settings)
    fetched = pull_layers(
        judged.transport,
        judged.image,
        repository,
        progress=services.progress,
        emit=services.emit,
        workers=services.settings.value("pull.workers"),
        limits=limits,
        verify=verify,
    )
    return merged_tree(repository, judged.image, emit=services.emit, limits=limits), fetched


def copy(judged: JudgedSource, destination: Fetcher, target: ImageReference, services: Services) -> Digest:
    """Copy what was judged to *target* and return the digest it has in both places.

    Raises:
        RefusedError: *target* cannot be written to.
        TransportError, VerificationError, ImageError: nothing is visible at the target then.
    """
    return copy_image(
        judged.transport,
        judged.reference,
        destination,
        target,
        platform=judged.platform,
        progress=services.progress,
        emit=services.emit,
    )


@contextmanager
def open_repository(
    services: Services, storage: StorageFormat, path: Path, *, algorithm: HashAlgorithm | None = None
) -> Iterator[Repository]:
    """Open the repository at *path*; where there is none make one, of *algorithm* or as settings say.

    Raises:
        StorageError: it is no repository, damaged or locked.
        ForeignRepositoryError: somebody else can write to it, and ``repo.trust`` is ``own``.
        HostError: it cannot be made there.
    """
    options = None
    if not storage.is_repository(path):
        make_parent(path)
        options = FormatOptions(
            version=FormatVersion(services.settings.value("install.erofs")),
            algorithm=algorithm or HashAlgorithm(services.settings.value("install.hash")),
        )
    check_trust(services.settings, path)
    with storage.open(path, create=True, options=options) as repository:
        yield repository
