"""A filesystem that is right: hook functions only."""

from cfs_core.plugin import FilesystemProvider, hookimpl

CFS_PLUGIN_API = (2, 0)


def _make(context):
    from cfs_mutant.filesystem import Toy

    return Toy(context)


@hookimpl
def cfs_register_filesystems():
    return [FilesystemProvider(name="mutant", summary="files behind an index", factory=_make, verity=True)]
