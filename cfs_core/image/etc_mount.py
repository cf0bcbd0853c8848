"""How early boot mounts /etc of an image: ``setup-root-conf.toml`` (formats F.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import ConfigError
from cfs_core.system.strict_toml import parse_toml

if TYPE_CHECKING:
    from cfs_core.interfaces.storage import TreeReader

CONFIG = "/usr/lib/composefs/setup-root-conf.toml"
_CONFIG_LIMIT = 1 << 16


def etc_mount(image: TreeReader) -> str:
    """Return what the image says: ``bind``, ``overlay``, ``transient``, ``none``, or a word that nobody knows.

    What is no TOML says ``bind``; whoever looks into the initramfs tells of it.

    Raises:
        LimitError: the file is longer than 64 KiB.
    """
    raw = image.read(CONFIG, limit=_CONFIG_LIMIT)
    if raw is None:
        return "bind"
    try:
        table = parse_toml(raw, CONFIG)
    except ConfigError:
        return "bind"
    etc, root = table.get("etc"), table.get("root")
    if isinstance(etc, dict):
        return "transient" if etc.get("transient") is True else str(etc.get("mount", "bind"))
    return "transient" if isinstance(root, dict) and root.get("transient") is True and etc is None else "bind"
