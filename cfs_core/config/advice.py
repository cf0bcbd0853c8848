"""Settings that an image advises: our own files, and bootc's so that existing images work unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.config.settings import Layer, Rank, layer_from_table, parse_toml
from cfs_core.errors import ConfigError
from cfs_core.interfaces.image_settings import is_for, refuse_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.interfaces.storage import TreeReader

BOOTC_FOLDERS = ("/usr/lib/bootc/install", "/usr/local/lib/bootc/install", "/etc/bootc/install")
"""Of two files with one name that of the later folder counts; then all are taken in the order of their names
(bootc-install-config(5))."""

CFS_FOLDER = "/usr/lib/cfs/install.d"
ADVICE = "image:"
"""Starts the origin of every setting that an image advises."""

_TEXT, _TEXTS, _FLAG = "a string", "a list of strings", "true or false"
_USED = {
    "kargs": _TEXTS,
    "karg-deletes": _TEXTS,
    "match-architectures": _TEXTS,
    "bootloader": _TEXT,
    "root-fs-type": _TEXT,
    "filesystem.root.type": _TEXT,
}
_TOLD = {
    "block": (_TEXTS, "cfs makes partitions that are not encrypted"),
    "stateroot": (_TEXT, "there is no stateroot without ostree"),
    "root-mount-spec": (_TEXT, "the root is found by the UUID that it gets"),
    "boot-mount-spec": (_TEXT, "boot partitions are found by their types"),
    "bootupd.skip-boot-uuid": (_FLAG, "the loader is put in place without bootupd"),
    "ostree.bls-append-except-default": (_TEXT, "there is no ostree here"),
    "discoverable-partitions": (_FLAG, "partitions have the types of the discoverable partitions specification"),
    "enforce-container-sigpolicy": (_FLAG, "policies are for whoever runs cfs to ask for: policy.require"),
}
"""Keys of bootc that mean nothing here, with their kind and why."""

_HARMLESS = {"block": ["direct"], "discoverable-partitions": True, "enforce-container-sigpolicy": False}
"""Values that ask for what is done in any case."""


def image_advice(image: TreeReader, architecture: str = "") -> tuple[Layer, ...]:
    """Read bootc's install configuration and ``/usr/lib/cfs/install.d/*.toml`` of an image, in this order.

    *architecture* is the image's as OCI names it; what is for others is left out. Keys that are not known, or that
    mean nothing here, are in the layers' warnings.

    Raises:
        ConfigError: not TOML, a key with a value of the wrong type, or no directory where one belongs.
    """
    found: dict[str, str] = {}
    for folder in BOOTC_FOLDERS:
        found |= {name: f"{folder}/{name}" for name in _files(image, folder)}
    layers: list[Layer] = []
    for _, path in sorted(found.items()):
        if data := image.read(path):
            layers += _bootc_layer(parse_toml(data, f"{ADVICE}{path}"), f"{ADVICE}{path}", architecture)
    for name in _files(image, CFS_FOLDER):
        origin = f"{ADVICE}{CFS_FOLDER}/{name}"
        if data := image.read(f"{CFS_FOLDER}/{name}"):
            layers.append(layer_from_table(parse_toml(data, origin), origin, Rank.IMAGE))
    return tuple(layers)


def _files(image: TreeReader, folder: str) -> list[str]:
    refuse_file(image, folder)
    return [name for name in image.names(folder) if name.endswith(".toml") and not name.startswith(".")]


def _bootc_layer(table: dict[str, object], origin: str, architecture: str) -> tuple[Layer, ...]:
    """Translate the keys of bootc-install-config(5)."""
    warnings = [f"{name} in {origin} is no key of bootc's install configuration; ignored" for name in table]
    install = table.get("install", {})
    if "install" in table:
        warnings.remove(f"install in {origin} is no key of bootc's install configuration; ignored")
    if not isinstance(install, dict):
        msg = f"install in {origin} must be a table, not {install!r:.80}"
        raise ConfigError(msg, hint="write [install] above its keys", facts={"key": "install", "origin": origin})
    values = _flat(install)
    for name, value in values.items():
        warnings += _remarks(name, value, origin)
    if not is_for(architecture, values.get("match-architectures")):
        return ()
    ours: dict[str, object] = {name: values[name] for name in ("kargs", "karg-deletes", "bootloader") if name in values}
    kind = values.get("filesystem.root.type", values.get("root-fs-type"))
    if kind is not None:
        ours["filesystem"] = kind
    layer = layer_from_table({"install": ours}, origin, Rank.IMAGE)
    return (Layer(origin, layer.values, layer.rank, (*warnings, *layer.warnings)),)


def _flat(table: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, dict) and f"{prefix}{name}" not in _USED.keys() | _TOLD.keys():
            found |= _flat(value, f"{prefix}{name}.") or {f"{prefix}{name}": value}
        else:
            found[f"{prefix}{name}"] = value
    return found


def _remarks(name: str, value: object, origin: str) -> list[str]:
    """Return what is to be said about one key.

    Raises:
        ConfigError: a value of the wrong type.
    """
    kind, why = _TOLD.get(name, (_USED.get(name), ""))
    if kind is None:
        if value == {}:
            return []
        return [f"install.{name} in {origin} is no key of bootc's install configuration; ignored"]
    fits = {
        _TEXT: isinstance(value, str),
        _TEXTS: isinstance(value, list) and all(isinstance(each, str) for each in value),
        _FLAG: isinstance(value, bool),
    }
    if not fits[kind]:
        msg = f"install.{name} in {origin} must be {kind}, not {value!r:.80}"
        raise ConfigError(msg, hint="correct it in the image", facts={"key": f"install.{name}", "origin": origin})
    harmless = _HARMLESS.get(name)
    if not why or value == harmless or (isinstance(harmless, list) and isinstance(value, list) and "direct" in value):
        return []
    return [f"install.{name} in {origin} has no meaning here: {why}"]
