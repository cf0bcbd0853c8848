"""Whether a repository can be trusted: what is in it was verified once, by whoever could write to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import StorageError
from cfs_core.system.ownership import somebody_else

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.config.settings import Settings


class ForeignRepositoryError(StorageError):
    """Somebody else can write to a repository."""

    code = "storage.not-own"


def is_own(path: Path) -> bool:
    """Return whether nobody but the caller and root can change what is in the repository at *path*."""
    return somebody_else(path, inside=True) is None


def check_trust(settings: Settings, path: Path) -> None:
    """Refuse the repository at *path* (or a place for one) that others can write to, unless settings trust it.

    Raises:
        ForeignRepositoryError: who can write where; what trusting it nevertheless risks.
    """
    trust = settings.get("repo.trust")
    if trust.value == "any":
        return
    reason = somebody_else(path, inside=True)
    if reason is None:
        return
    msg = f"the repository at {path} is not only yours: {reason} (repo.trust = {trust.value}, {trust.origin})"
    hint = (
        "use a repository of your own (--repo), or take the others' rights away; the setting repo.trust = any "
        "(CFS_REPO_TRUST=any) uses it: whoever can write there can then change what is installed while it is read"
    )
    raise ForeignRepositoryError(msg, hint=hint, facts={"path": str(path), "reason": reason})
