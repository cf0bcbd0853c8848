"""What the conformance kit uses of core besides `cfs_core.plugin`: as stable as that, and of no use to a plugin."""

from __future__ import annotations

from cfs_core import __version__
from cfs_core.image.layers import VerifiedLayer, open_layer
from cfs_core.image.pull import merged_tree
from cfs_core.image.reader import ImageReader
from cfs_core.image.resolve import resolve
from cfs_core.pluginhost import families
from cfs_core.pluginhost.families import Family
from cfs_core.pluginhost.load import PluginHost
from cfs_core.pluginhost.registry import PluginId, Trouble
from cfs_core.system.command import HostCommands
from cfs_core.target.execute import first_k
from cfs_core.target.memory import MemoryTarget
from cfs_core.target.read import open_disk

__all__ = [
    "Family",
    "HostCommands",
    "ImageReader",
    "MemoryTarget",
    "PluginHost",
    "PluginId",
    "Trouble",
    "VerifiedLayer",
    "__version__",
    "families",
    "first_k",
    "merged_tree",
    "open_disk",
    "open_layer",
    "resolve",
]
