"""Faults of the host that nobody met before: said as what they are, and not as faults of cfs or of a plugin."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cfs_core.errors import HostError

if TYPE_CHECKING:
    from cfs_core.pluginhost.registry import PluginId

ALWAYS = {
    errno.ENOSPC: "make room, or name another place",
    errno.EDQUOT: "make room within the quota, or name another place",
    errno.EFBIG: "name a place whose filesystem takes files so large",
    errno.EROFS: "name a place that can be written",
    errno.EIO: "a disk of this host seems to be broken; the kernel's log tells more",
    errno.EMFILE: "allow this process more open files (ulimit -n)",
    errno.ENFILE: "too many files are open on this host",
    errno.ENOMEM: "free memory, or give this process more of it",
}
"""Hints for what no program is to blame for."""

NAMED = {
    errno.ENOENT: "look whether the path is right",
    errno.ENOTDIR: "look whether the path is right",
    errno.EISDIR: "name a file, not a directory",
    errno.EACCES: "name a place that you may use, or run as somebody who may",
    errno.EPERM: "name a place that you may use, or run as somebody who may",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "the symbolic links there lead in a circle",
    errno.ETXTBSY: "it is a program that is running",
    errno.EBUSY: "something else uses it",
}
"""Hints for what depends on a path; without one, it is a fault of the program."""


def host_fault(error: OSError, owner: PluginId | None) -> HostError | None:
    """Return *error*, which came out of the plugin *owner* or of core, as an error of the host; None if it is none."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    hint = ALWAYS.get(error.errno or 0) or (NAMED.get(error.errno or 0) if names else None)
    if hint is None:
        return None
    where = f"{' -> '.join(names)}: " if names else ""
    plugin = owner.name if owner is not None else None
    return HostError(
        f"{where}{error.strerror}", hint=hint, facts={"errno": errno.errorcode.get(error.errno or 0), "plugin": plugin}
    )
