"""Which storage format a repository is of: the formats are asked, as nothing on a disk names its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.deploy.services import each_made
from cfs_core.errors import PluginError
from cfs_core.pluginhost import families
from cfs_core.target.folder import FolderReader

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.storage import FileReader, StorageFormat


def storage_of(services: Services, files: FileReader, root: str) -> StorageFormat | None:
    """Return the format of the repository at *root*; None if no installed one knows it.

    Raises:
        PluginError: several say that it is theirs.
    """
    found: dict[str, StorageFormat] = {
        name: storage for name, storage in each_made(services, families.STORAGE) if storage.recognises(files, root)
    }
    if len(found) > 1:
        msg = f"the repository at {root} is claimed by the storage formats {' and '.join(found)}; neither is used"
        raise PluginError(msg, hint="switch one off with --disable-plugin NAME")
    return next(iter(found.values()), None)


def storage_at(services: Services, path: Path) -> StorageFormat | None:
    """Return the format of the repository at *path* of this host; None where there is none that is known.

    Raises:
        PluginError: several say that it is theirs.
    """
    try:
        return storage_of(services, FolderReader(path), "/")
    except OSError:  # who may not read it learns why when it is opened
        return None
