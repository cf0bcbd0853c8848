"""Settings that an image advises: our own files, and bootc's so that existing images work unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.config.settings import Layer, Rank, layer_from_table, parse_toml

if TYPE_CHECKING:
    from cfs_core.interfaces.storage import TreeReader

BOOTC_FOLDER = "/usr/lib/bootc/install"
CFS_FOLDER = "/usr/lib/cfs/install.d"
ADVICE = "image:"
"""Starts the origin of every setting that an image advises."""


def image_advice(image: TreeReader) -> tuple[Layer, ...]:
    """Read ``/usr/lib/bootc/install/*.toml`` and ``/usr/lib/cfs/install.d/*.toml`` of an image, in this order.

    Raises:
        ConfigError: not TOML, or an allowed key with a value of the wrong type.
    """
    layers: list[Layer] = []
    for folder, translate in ((BOOTC_FOLDER, _from_bootc), (CFS_FOLDER, None)):
        for name in image.names(folder):
            if not name.endswith(".toml"):
                continue
            path = f"{folder}/{name}"
            data = image.read(path)
            if data:
                table = parse_toml(data, f"{ADVICE}{path}")
                layers.append(layer_from_table(translate(table) if translate else table, f"{ADVICE}{path}", Rank.IMAGE))
    return tuple(layers)


def _from_bootc(table: dict[str, object]) -> dict[str, object]:
    """Translate the keys of bootc-install-config(5) that have a meaning here; others are bootc's own business."""
    install = table.get("install")
    if not isinstance(install, dict):
        return {}
    ours: dict[str, object] = {}
    for theirs in ("kargs", "bootloader"):
        if theirs in install:
            ours[theirs] = install[theirs]
    filesystem = install.get("filesystem")
    root = filesystem.get("root") if isinstance(filesystem, dict) else None
    kind = root.get("type") if isinstance(root, dict) else install.get("root-fs-type")
    if isinstance(kind, str):
        ours["filesystem"] = kind
    return {"install": ours}
