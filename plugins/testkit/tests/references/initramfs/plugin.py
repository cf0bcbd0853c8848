"""An initramfs provider that is right: hook functions only."""

from cfs_core.plugin import InitramfsProvider, hookimpl

CFS_PLUGIN_API = (2, 0)


def _make(context):
    from cfs_mutant.initramfs import Toy

    return Toy()


@hookimpl
def cfs_register_initramfs():
    return [InitramfsProvider(name="mutant", summary="knows /usr/lib/toy/mount", factory=_make)]
