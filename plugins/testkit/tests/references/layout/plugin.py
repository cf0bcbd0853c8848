"""A layout that is right: hook functions only."""

from cfs_core.plugin import LayoutProvider, hookimpl

CFS_PLUGIN_API = (2, 0)


def _make(context):
    from cfs_mutant.layout import Toy

    return Toy()


@hookimpl
def cfs_register_layouts():
    return [LayoutProvider(name="mutant", summary="a table in JSON", factory=_make)]
