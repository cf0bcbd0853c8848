"""Settings with their origin: defaults < image advice < vendor < /etc < user < file < environment < command line."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfs_core.config.keys import BY_NAME, KEYS, OTHER_NAMES, Kind
from cfs_core.config.values import checked, from_text
from cfs_core.errors import ConfigError
from cfs_core.system import strict_toml
from cfs_core.system.environment import directory_of
from cfs_core.system.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FILE_LIMIT = 1 << 20
"""Bytes; settings files are small."""


class Rank(enum.IntEnum):
    """Classes of origins, the weakest first. Options are settings like all others: the uppermost."""

    DEFAULT = 0
    IMAGE = 1
    VENDOR = 2
    ETC = 3
    USER = 4
    FILE = 5
    ENVIRONMENT = 6
    COMMAND_LINE = 7


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, where it came from in words, and the class of that origin."""

    value: object
    origin: str
    rank: Rank = Rank.DEFAULT


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one origin. ``trusted`` layers were written by the operator: an unknown key there is an error."""

    origin: str
    values: Mapping[str, object]
    rank: Rank
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """All layers, lowest first; immutable, `with_layer` returns new ones."""

    layers: tuple[Layer, ...] = field(default=())

    def with_layer(self, layer: Layer) -> Settings:
        """Return settings with one more layer, in its rank."""
        return Settings(tuple(sorted((*self.layers, layer), key=lambda item: item.rank)))

    def get(self, name: str) -> Setting:
        """Return the winning value of *name* and its origin."""
        key = BY_NAME[name]
        for layer in reversed(self.layers):
            if name in layer.values:
                return Setting(layer.values[name], layer.origin, layer.rank)
        return Setting(key.default, "default")

    def value(self, name: str) -> Any:  # noqa: ANN401 - the key's kind says what it is
        """Return the winning value of *name*."""
        return self.get(name).value

    def every(self, name: str) -> tuple[Setting, ...]:
        """Return the values of all layers, lowest first; for lists that add up."""
        return tuple(
            Setting(layer.values[name], layer.origin, layer.rank) for layer in self.layers if name in layer.values
        )

    def section(self, name: str, part: str) -> Mapping[str, object]:
        """Return one table of a table key, merged over the layers."""
        return {key: setting.value for key, setting in self.table(name, part).items()}

    def table(self, name: str, part: str) -> Mapping[str, Setting]:
        """Return one table of a table key, merged over the layers, each value with its origin."""
        merged: dict[str, Setting] = {}
        for setting in self.every(name):
            table = setting.value
            if isinstance(table, dict) and isinstance(table.get(part), dict):
                merged |= {key: Setting(value, setting.origin, setting.rank) for key, value in table[part].items()}
        return merged

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was ignored, and why."""
        return tuple(warning for layer in self.layers for warning in layer.warnings)

    def listing(self) -> Iterable[tuple[str, Setting]]:
        """Yield every key with its winning value."""
        for key in KEYS:
            yield key.name, self.get(key.name)


def layer_from_table(table: Mapping[str, object], origin: str, rank: Rank) -> Layer:
    """Check one parsed file.

    Raises:
        ConfigError: a value of the wrong type; an unknown key in a file the operator wrote.
    """
    values: dict[str, object] = {}
    warnings: list[str] = []
    advice = rank in {Rank.IMAGE, Rank.VENDOR}
    for written, value in _flatten(table):
        name = OTHER_NAMES.get(written, written)
        key = BY_NAME.get(name)
        if key is None or (rank is Rank.IMAGE and not key.image):
            problem = "is not a setting" if key is None else "cannot be set by an image"
            if not advice:
                msg = f"{name} in {origin} {problem}"
                raise ConfigError(msg, hint="see `cfs config show` for the settings there are")
            warnings.append(f"{name} in {origin} {problem}; ignored")
            continue
        values[name] = checked(key, value, origin)
    return Layer(origin, values, rank, tuple(warnings))


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, value in table.items():
        full = f"{prefix}{name}"
        key = BY_NAME.get(full)
        if isinstance(value, dict) and (key is None or key.kind is not Kind.TABLE):
            yield from _flatten(value, f"{full}.")
        else:
            yield full, value


def parse_toml(data: bytes, origin: str) -> dict[str, object]:
    """Parse one settings file.

    Raises:
        ConfigError: too long, or not TOML that can be read.
    """
    if len(data) > FILE_LIMIT:
        msg = f"{origin} is longer than {FILE_LIMIT} bytes"
        raise ConfigError(msg)
    return strict_toml.parse_toml(data, origin)


def load(environ: Mapping[str, str], *, file: Path | None = None, root: Path = Path("/")) -> Settings:
    """Read the settings of this host.

    Raises:
        ConfigError: a file is unreadable or has a fault.
    """
    settings = Settings()
    for path in _drop_ins((root / "usr/lib/cfs", root / "etc/cfs")):
        rank = Rank.ETC if path.is_relative_to(root / "etc") else Rank.VENDOR
        settings = settings.with_layer(layer_from_table(_read(path), str(path), rank))
    home = directory_of(environ, "XDG_CONFIG_HOME", ".config")
    if home and (path := home / "cfs" / "cfs.toml").is_file():
        settings = settings.with_layer(layer_from_table(_read(path), str(path), Rank.USER))
    if file is not None:
        settings = settings.with_layer(layer_from_table(_read(file), str(file), Rank.FILE))
    return settings.with_layer(_environment(environ))


def _drop_ins(folders: tuple[Path, ...]) -> list[Path]:
    """Return cfs.toml and cfs.toml.d/*.toml as systemd merges them: later folders and empty files mask."""
    found: dict[str, Path] = {}
    for folder in folders:
        if (main := folder / "cfs.toml").is_file():
            found["cfs.toml"] = main
        for path in sorted((folder / "cfs.toml.d").glob("*.toml")):
            found[f"cfs.toml.d/{path.name}"] = path
    kept = [path for path in found.values() if path.is_file() and path.stat().st_size]
    return sorted(kept, key=lambda path: (path.name != "cfs.toml", path.name))


def _read(path: Path) -> dict[str, object]:
    try:
        with open_regular(path) as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as cause:
        msg = f"{path} cannot be read: {cause.strerror}"
        raise ConfigError(msg, hint="a settings file is a regular file in TOML that you may read") from cause
    return parse_toml(data, str(path))


def _environment(environ: Mapping[str, str]) -> Layer:
    values: dict[str, object] = {}
    for key in KEYS:
        variable = "CFS_" + key.name.upper().replace(".", "_").replace("-", "_")
        if environ.get(variable) and key.kind is not Kind.TABLE:
            values[key.name] = from_text(key, environ[variable], variable)
    if environ.get("CFS_DISABLE_PLUGINS"):
        variable = "CFS_DISABLE_PLUGINS"
        values["plugins.disabled"] = from_text(BY_NAME["plugins.disabled"], environ[variable], variable)
    return Layer("environment", values, Rank.ENVIRONMENT)


def options_layer(values: Mapping[str, object]) -> Layer:
    """Make the top layer from options; None means not given."""
    given = {
        name: checked(BY_NAME[name], value, "command line")
        for name, value in values.items()
        if value is not None and value != ()
    }
    return Layer("command line", given, Rank.COMMAND_LINE)
