"""Settings of providers, each in a table of its own: what they declare is what may stand there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfs_core.config.settings import Setting
from cfs_core.errors import ConfigError
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_core.config.settings import Settings
    from cfs_core.interfaces.provider import Provider, SettingKind
    from cfs_core.pluginhost.families import Family
    from cfs_core.pluginhost.load import PluginHost

_WORDS: dict[SettingKind, str] = {
    "text": "a string",
    "texts": "a list of strings",
    "flag": "true or false",
    "number": "a number",
    "table": "a table",
}


def settings_of(settings: Settings, family: Family[Any], provider: Provider[Any]) -> Mapping[str, object]:
    """Return the table of *provider*, by the names that it declares. ``_`` in a name counts as ``-``.

    Raises:
        ConfigError: a name that it does not declare, or a value of another kind; the message says where it stands.
    """
    if family.table is None:
        return {}
    declared = {_spelled(setting.name): setting for setting in provider.settings}
    found: dict[str, object] = {}
    for name, setting in settings.table(family.table, provider.name).items():
        known = declared.get(_spelled(name))
        full = f"{family.table}.{provider.name}.{name}"
        if known is None:
            names = ", ".join(sorted(item.name for item in provider.settings)) or "none"
            msg = f"{full} in {setting.origin} is not a setting of the {family.name} {provider.name!r}"
            raise ConfigError(
                msg,
                hint=f"it has: {names}; see `cfs config show`",
                facts={"key": full, "origin": setting.origin},
            )
        if not _is_of(known.kind, setting.value):
            msg = f"{full} in {setting.origin} must be {_WORDS[known.kind]}, not {setting.value!r:.80}"
            raise ConfigError(msg, hint="correct it, or leave it out", facts={"key": full, "origin": setting.origin})
        found[known.name] = setting.value
    return found


def provider_listing(settings: Settings, host: PluginHost) -> Iterator[tuple[str, Setting]]:
    """Yield the settings that installed providers declare, by full name, with the value in force."""
    for family in families.ALL:
        if family.table is None:
            continue
        for provider in host.collect(family):
            there = {_spelled(name): value for name, value in settings.table(family.table, provider.name).items()}
            for declared in provider.settings:
                value = there.get(_spelled(declared.name), Setting(declared.default, "default"))
                yield f"{family.table}.{provider.name}.{declared.name}", value


def tables_of_nobody(settings: Settings, host: PluginHost) -> Iterator[str]:
    """Yield a sentence for each table that is of no installed provider: a name that is misspelt, or a plugin gone."""
    for family in families.ALL:
        for setting in settings.every(family.table) if family.table is not None else ():
            names = setting.value if isinstance(setting.value, dict) else {}
            for name in names:
                if name not in host.collect(family):
                    known = ", ".join(provider.name for provider in host.collect(family)) or "none"
                    yield f"{family.table}.{name} in {setting.origin}: no {family.name} has that name (known: {known})"


def _spelled(name: str) -> str:
    return name.replace("_", "-")


def _is_of(kind: SettingKind, value: object) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "texts":
            return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        case "flag":
            return isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "table":
            return isinstance(value, dict)
