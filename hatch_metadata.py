"""Dependencies of cfs-core: its own, and the default plugins.

In a checkout the plugins are path references, in a release (``CFS_RELEASE=1``) they are versions, and with
``CFS_CORE_ONLY=1`` they are left out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

CORE = [
    "click>=8.1",
    "pluggy>=1.5",
    "rich>=13.0",
    "structlog>=24.1",
    "zstandard>=0.23",
]

DEFAULT_PLUGINS = {
    "cfs-disk": "plugins/disk",
    "cfs-grub": "plugins/grub",
    "cfs-initramfs": "plugins/initramfs",
    "cfs-policies": "plugins/policies",
    "cfs-prove": "plugins/prove",
    "cfs-seal": "plugins/seal",
    "cfs-storage-composefs": "plugins/storage/composefs",
    "cfs-systemd-boot": "plugins/systemd_boot",
    "cfs-transport-containers-storage": "plugins/transports/containers_storage",
    "cfs-transport-oci-dir": "plugins/transports/oci_dir",
    "cfs-transport-registry": "plugins/transports/registry",
}


class DependencyHook(MetadataHookInterface):
    """Fill in ``project.dependencies``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dependencies for the kind of build the environment asks for."""
        dependencies = list(CORE)
        if os.environ.get("CFS_CORE_ONLY") != "1":
            dependencies += [self._plugin(name, folder) for name, folder in DEFAULT_PLUGINS.items()]
        metadata["dependencies"] = dependencies

    def _plugin(self, name: str, folder: str) -> str:
        if os.environ.get("CFS_RELEASE") == "1":
            return f"{name}=={self._version()}"
        return f"{name} @ {(Path(self.root) / folder).resolve().as_uri()}"

    def _version(self) -> str:
        init = Path(self.root, "cfs_core", "__init__.py").read_text(encoding="utf-8")
        return init.split('__version__ = "')[1].split('"')[0]
