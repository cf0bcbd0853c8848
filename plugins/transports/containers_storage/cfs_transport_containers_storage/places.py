"""Where the store is: storage.conf, and the defaults of containers/storage for root and for other users."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cfs_core.plugin import ConfigError, UsageError, directory_of, parse_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DRIVERS = ("overlay", "vfs")
"""Drivers whose files lie in directories that can be read without mounting anything."""

_KNOWN = frozenset({"storage-conf", "root", "driver", "authfile"})
"""A credentials file is accepted and not needed: command lines name one for whatever transport there is."""

_SPECIFIER = re.compile(
    r"\[(?:(?P<driver>[a-z0-9]+)@)?(?P<root>/[^]+:]*)(?:\+(?P<run>/[^]:]*))?(?::(?P<options>[^]]*))?\]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Roots of stores, the writable one first. ``driver`` None: whichever is found there.

    ``graph`` is the root that policies name, for images of additional stores too (containers/image names no other).
    """

    roots: tuple[Path, ...]
    graph: Path
    driver: str | None = None
    origin: str = "the defaults"
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, section: Mapping[str, object], environ: Mapping[str, str], uid: int, root: Path = Path("/")) -> Self:
        """Read settings (``transport.containers-storage``), the environment and storage.conf below *root*.

        Raises:
            ConfigError: unknown setting, or a storage.conf that is malformed.
        """
        values = {key.replace("_", "-"): value for key, value in section.items() if value is not None}
        if unknown := sorted(set(values) - _KNOWN):
            msg = f"unknown setting transport.containers-storage.{unknown[0]}"
            raise ConfigError(msg, hint=f"known are {', '.join(sorted(_KNOWN))}")
        for key, value in values.items():
            if not isinstance(value, str | Path):
                msg = f"transport.containers-storage.{key} is {value!r}, not a string"
                raise ConfigError(msg)
        driver = _driver(values.get("driver") or environ.get("STORAGE_DRIVER"), "settings")
        if named := values.get("root"):
            graph = Path(str(named))
            return cls(roots=(graph,), graph=graph.resolve(), driver=driver, origin="settings", environ=environ)
        home = directory_of(environ, "HOME") or Path("/")
        data = directory_of(environ, "XDG_DATA_HOME") or home / ".local/share"
        default = root / "var/lib/containers/storage" if uid == 0 else data / "containers/storage"
        explicit = values.get("storage-conf") or environ.get("CONTAINERS_STORAGE_CONF")
        if explicit:
            return cls(**_from_file(Path(str(explicit)), default, environ, driver, rootless=False))
        for path in _files(environ, home, uid, root):
            if path.is_file():
                # system files name root's store; only the user's own file moves the user's store
                rootless = uid != 0 and not path.is_relative_to(home)
                return cls(**_from_file(path, default, environ, driver, rootless=rootless))
        return cls(roots=(default,), graph=default.resolve(), driver=driver, environ=environ)

    def narrowed(self, specifier: str) -> Places:
        """Return the places of ``[driver@root+runroot:options]``.

        Raises:
            UsageError: not of that form.
        """
        match = _SPECIFIER.fullmatch(specifier)
        if match is None:
            msg = f"{specifier!r} is not a store"
            raise UsageError(msg, hint="write [DRIVER@/ABSOLUTE/GRAPHROOT] or [/ABSOLUTE/GRAPHROOT]")
        driver = _driver(match["driver"], specifier)
        graph = Path(os.path.normpath(match["root"]))
        roots = (graph, *_stores_of((match["options"] or "").split(",")))
        return replace(self, roots=roots, graph=graph, driver=driver or self.driver, origin=specifier)


def _stores_of(options: Sequence[object]) -> Iterator[Path]:
    """Yield the stores that options of a driver add: ``[DRIVER.]additionalimagestore=PATH``, ``imagestore=PATH``."""
    for option in options:
        key, _, value = str(option).partition("=")
        if key.strip().rpartition(".")[2] in {"additionalimagestore", "imagestore"} and value.strip():
            yield Path(value.strip())


def _files(environ: Mapping[str, str], home: Path, uid: int, root: Path) -> Iterator[Path]:
    if uid != 0:
        yield (directory_of(environ, "XDG_CONFIG_HOME") or home / ".config") / "containers/storage.conf"
    yield root / "etc/containers/storage.conf"
    yield root / "usr/share/containers/storage.conf"


def _from_file(
    path: Path, default: Path, environ: Mapping[str, str], driver: str | None, *, rootless: bool
) -> dict[str, Any]:
    storage = _table(path, _read(path), "storage")
    options = _table(path, storage, "options")
    named = _text(path, storage, "rootless_storage_path" if rootless else "graphroot")
    graph = Path(_expand(named, environ)) if named else default
    roots = [graph]
    if image_store := _text(path, storage, "imagestore") or _text(path, options, "imagestore"):
        roots.insert(0, Path(_expand(image_store, environ)))
    additional = options.get("additionalimagestores") or []
    if not isinstance(additional, list) or not all(isinstance(each, str) for each in additional):
        msg = f"additionalimagestores in {path} is not a list of paths"
        raise ConfigError(msg)
    roots += [Path(_expand(each, environ)) for each in additional if each]
    roots += map(Path, map(str, _stores_of(environ.get("STORAGE_OPTS", "").split(","))))
    found = driver or _driver(_text(path, storage, "driver"), str(path))
    return {
        "roots": tuple(dict.fromkeys(roots)),
        "graph": graph.resolve(),
        "driver": found,
        "origin": str(path),
        "environ": environ,
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ConfigError(msg, hint="correct $CONTAINERS_STORAGE_CONF, or name a store: [overlay@/PATH]NAME") from error
    return parse_toml(raw, str(path))


def _table(path: Path, parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = parent.get(name, {})
    if not isinstance(table, dict):
        msg = f"{name} in {path} is not a table"
        raise ConfigError(msg)
    return table


def _text(path: Path, table: Mapping[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        msg = f"{key} in {path} is {value!r}, not a string"
        raise ConfigError(msg)
    return value or None


def _expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace ``$NAME`` as containers/storage does, from the environment."""
    return re.sub(r"\$(\w+|\{\w+\})", lambda match: environ.get(match[1].strip("{}"), ""), text)


def _driver(name: object, origin: str) -> str | None:
    if not name:
        return None
    plain = "overlay" if name == "overlay2" else str(name)
    if plain not in DRIVERS:
        msg = f"the storage driver {plain!r} ({origin}) cannot be read without mounting"
        raise ConfigError(msg, hint=f"known are {' and '.join(DRIVERS)}; copy the image: skopeo copy … oci:DIRECTORY")
    return plain
