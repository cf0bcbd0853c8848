"""A hasher that is right: hook functions only."""

from cfs_core.plugin import HasherProvider, hookimpl

CFS_PLUGIN_API = (2, 0)


def _make(context):
    from cfs_mutant.hasher import Lanes

    return Lanes()


@hookimpl
def cfs_register_hashers():
    return [HasherProvider(name="mutant", summary="hashes eight blocks, then the next eight", factory=_make)]
