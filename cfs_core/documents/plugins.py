"""What ``cfs plugins`` and ``cfs config`` say as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfs_core.plugin import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cfs_core.config.settings import Setting
    from cfs_core.interfaces.block_hashing import Choice
    from cfs_core.model.digest import HashAlgorithm
    from cfs_core.pluginhost.registry import PluginId, Registry, Trouble


def providers(registries: Mapping[str, Registry[Any]]) -> Iterator[dict[str, object]]:
    """Yield what is offered, by the names of families; what two offer alike is withheld."""
    for family, registry in registries.items():
        for name, (owner, provider) in registry.providers.items():
            yield _provider(family, name, owner, provider.summary, getattr(provider, "schemes", ()), "usable")
        for name, owners in registry.withheld.items():
            for owner in owners:
                yield _provider(family, name, owner, "withheld: offered twice", (), "withheld")


def _provider(
    family: str, name: str, owner: PluginId, summary: str, schemes: Sequence[str], status: str
) -> dict[str, object]:
    return {
        "family": family,
        "name": name,
        "summary": summary,
        "schemes": list(schemes),
        "plugin": owner.name,
        "distribution": owner.distribution,
        "version": owner.version,
        "status": status,
    }


def listed(offered: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return ``plugins list``."""
    return {"api": list(API_VERSION), "providers": offered}


def diagnosed(
    plugins: Sequence[PluginId],
    troubles: Sequence[Trouble],
    missing: Sequence[str],
    hashing: Mapping[HashAlgorithm, Choice],
) -> dict[str, object]:
    """Return ``plugins doctor``; rates of hashing are bytes per second."""
    return {
        "healthy": not any(trouble.fatal for trouble in troubles),
        "plugins": [
            {"name": owner.name, "distribution": owner.distribution, "version": owner.version} for owner in plugins
        ],
        "troubles": [
            {
                "plugin": trouble.plugin.name,
                "distribution": trouble.plugin.distribution,
                "version": trouble.plugin.version,
                "hook": trouble.hook,
                "problem": trouble.problem,
                "fatal": trouble.fatal,
            }
            for trouble in troubles
        ],
        "missing": missing,
        "hashing": {
            algorithm.value: {"name": choice.name, "rates": choice.rates, "refused": choice.refused}
            for algorithm, choice in hashing.items()
        },
    }


def reference(names: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return ``plugins docs``."""
    return {"api": list(API_VERSION), "names": names}


def written(path: Path) -> dict[str, object]:
    """Return ``plugins new``."""
    return {"path": path}


def settings(rows: Iterable[tuple[str, Setting]]) -> dict[str, object]:
    """Return ``config show``."""
    return {name: {"value": setting.value, "origin": setting.origin} for name, setting in rows}
