"""Identities of images that nobody wants stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import StorageError
from cfs_storage_composefs.fsverity import Digester, digest_bytes
from cfs_storage_composefs.repository.identities import ComposefsIdentifier

if TYPE_CHECKING:
    from cfs_core.plugin import (
        Content,
        FormatOptions,
        HashAlgorithm,
        SourceFile,
    )
    from cfs_storage_composefs.objects.names import Writer
    from cfs_storage_composefs.objects.store import ObjectStore
    from cfs_storage_composefs.repository.directory import RepositoryDirectory

# What is read of an image after its layers: boot files and kernels (`cfs_core.image.artifacts`), loaders (grub,
# systemd-boot, bootupd), install advice and kernel arguments (bootc, cfs), os-release, SELinux policies below /etc. A
# path that is missing here is an error that names it ("was not kept"), never another identity.
_KEPT = (
    b"/boot/",
    b"/etc/",
    b"/usr/etc/",
    b"/usr/lib/bootc/",
    b"/usr/lib/bootupd/",
    b"/usr/lib/cfs/",
    b"/usr/lib/composefs/",
    b"/usr/lib/efi/",
    b"/usr/lib/grub/",
    b"/usr/lib/kernel/",
    b"/usr/lib/modules/",
    b"/usr/lib/os-release",
    b"/usr/lib/ostree/",
    b"/usr/lib/systemd/boot/",
    b"/usr/share/cfs/",
    b"/usr/share/grub/",
)


def asked_for_later(path: bytes) -> bool:
    """Say whether boot artifacts, settings or SELinux policies may be at *path*. Kernel modules are not."""
    if not path.startswith(_KEPT):
        return False
    return not (path.startswith(b"/usr/lib/modules/") and path.split(b"/")[5:6] == [b"kernel"])


class ScratchStore:
    """Remembers the name of everything and the content of little."""

    def __init__(self, kept: ObjectStore) -> None:
        self.algorithm = kept.algorithm
        self._kept = kept
        self._seen: set[bytes] = set()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._seen or digest in self._kept

    def put(
        self,
        data: bytes,
        created: list[bytes],
        *,
        keep: bool = True,
        source: SourceFile | None = None,
        digest: bytes | None = None,
    ) -> bytes:
        """Return the digest of *data*, and keep it if asked to.

        Raises:
            OSError: it could not be written.
        """
        if keep:
            return self._kept.put(data, created, source=source, digest=digest)
        digest = digest or digest_bytes(data, self.algorithm)
        self._seen.add(digest)
        return digest

    def writer(self, *, keep: bool = True, source: SourceFile | None = None) -> Writer:
        """Begin an object whose content comes in pieces."""
        return self._kept.writer(source=source) if keep else _Forgetful(self.algorithm, self._seen)

    def content(self, digest: bytes) -> Content:
        """Return kept content.

        Raises:
            StorageError: it was not kept.
        """
        if digest in self._seen and digest not in self._kept:
            msg = f"the content of object {digest.hex()} was not kept: only its name was wanted"
            raise StorageError(msg, hint="pull the image into a repository (cfs image pull)")
        return self._kept.content(digest)

    def unchecked(self, digest: bytes) -> Content:
        """Return kept content; what was written in this run needs no check.

        Raises:
            StorageError: it was not kept.
        """
        return self.content(digest)


class _Forgetful:
    """Hashes and keeps nothing."""

    def __init__(self, algorithm: HashAlgorithm, seen: set[bytes]) -> None:
        self._digester = Digester(algorithm)
        self._seen = seen

    def write(self, chunk: bytes) -> None:
        """Hash."""
        self._digester.update(chunk)

    def finish(self, created: list[bytes]) -> bytes:  # noqa: ARG002 - nothing is created
        """Return the digest."""
        digest = self._digester.digest()
        self._seen.add(digest)
        return digest

    def abort(self) -> None:
        """Do nothing: there is nothing to forget."""


class ScratchIdentifier(ComposefsIdentifier):
    """Takes layers and tells identities; `content` has boot files, settings and policies."""

    def __init__(self, directory: RepositoryDirectory, objects: ObjectStore, options: FormatOptions) -> None:
        super().__init__(
            directory,
            objects,
            store=ScratchStore(objects),
            keep=asked_for_later,
            keep_user_xattrs=options.keep_user_xattrs,
        )

    def layer_job(self) -> None:
        """Return None: what another process has hashed and not kept would not be known here."""

    def _sync(self) -> None:
        """Do nothing: what is here goes away with the run."""
