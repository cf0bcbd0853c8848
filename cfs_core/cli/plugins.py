"""``cfs plugins``: what is installed, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfs_core.cli.output import ResultGroup, format_option, say, show_json, table
from cfs_core.plugin import API_VERSION
from cfs_core.pluginhost import families
from cfs_core.pluginhost.distributions import DEFAULTS
from cfs_core.pluginhost.load import scheme_owners
from cfs_core.pluginhost.registry import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.cli.app import App
    from cfs_core.interfaces.provider import TransportProvider
    from cfs_core.pluginhost.registry import Registry

NEEDED = (families.TRANSPORTS, families.STORAGE, families.BOOTLOADERS, families.LAYOUTS, families.FILESYSTEMS)
"""Families that an install cannot do without."""


@click.group(cls=ResultGroup)
def plugins() -> None:
    """Show plugins and what is wrong with them."""


@plugins.command("list")
@format_option
@click.pass_obj
def list_plugins(app: App, output: str) -> None:
    """List providers and the distribution each comes from.

    \b
    Example:
      cfs plugins list --format json
    """
    records = []
    for family in families.ALL:
        registry = app.host.collect(family)
        for name, (owner, provider) in registry.providers.items():
            schemes = getattr(provider, "schemes", ())
            records.append(
                {
                    "family": family.name,
                    "name": name,
                    "summary": provider.summary,
                    "schemes": list(schemes),
                    "plugin": owner.name,
                    "distribution": owner.distribution,
                    "version": owner.version,
                    "status": "usable",
                }
            )
        for name, owners in registry.withheld.items():
            records.extend(
                {
                    "family": family.name,
                    "name": name,
                    "summary": "withheld: offered twice",
                    "schemes": [],
                    "plugin": owner.name,
                    "distribution": owner.distribution,
                    "version": owner.version,
                    "status": "withheld",
                }
                for owner in owners
            )
    if output == "json":
        show_json({"api": list(API_VERSION), "providers": records})
        return
    if not records:
        say(f"no plugins are installed; `pip install {DEFAULTS}` adds the default ones")
        return
    table(
        [(str(r["family"]), str(r["name"]), f"{r['distribution']} {r['version']}", str(r["summary"])) for r in records],
        ("FAMILY", "NAME", "DISTRIBUTION", "SUMMARY"),
    )


@plugins.command()
@format_option
@click.pass_obj
def doctor(app: App, output: str) -> int:
    """Load every plugin, ask what it offers, and tell what is wrong.

    Exit status 4 if a plugin is broken. What an install needs and no plugin offers is said too, but is nothing wrong
    with those that are there. What a plugin does wrong only when it is used (in an event, a check of a plan, a method)
    is a warning at the end of that run.

    \b
    Example:
      cfs plugins doctor
    """
    app.warn_of_plugins = False  # they are the result
    registries = {family: app.host.collect(family) for family in families.ALL}
    troubles = list({str(trouble): trouble for trouble in app.host.trouble}.values())
    troubles += _contested(registries[families.TRANSPORTS])
    broken = {trouble.plugin for trouble in troubles if trouble.fatal}
    missing = [family.name for family, registry in registries.items() if family in NEEDED and not registry.providers]
    healthy = not broken
    if output == "json":
        records = [
            {
                "plugin": trouble.plugin.name,
                "distribution": trouble.plugin.distribution,
                "version": trouble.plugin.version,
                "hook": trouble.hook,
                "problem": trouble.problem,
                "fatal": trouble.fatal,
            }
            for trouble in troubles
        ]
        show_json({"healthy": healthy, "plugins": app.host.plugins, "troubles": records, "missing": missing})
    else:
        for owner in app.host.plugins:
            if owner not in broken:
                say(f"ok       {owner}")
        for trouble in troubles:
            say(f"{'broken ' if trouble.fatal else 'warning'}  {trouble}")
        for name in missing:
            say(f"missing  no plugin offers a {name}; an install needs one")
        if missing:
            say(f"hint: `pip install {DEFAULTS}` brings all that an install needs")
    # As `PluginError`: what a run that needed the plugin would end with.
    return 0 if healthy else 4


def _contested(transports: Registry[TransportProvider]) -> Iterator[Trouble]:
    """Yield what is wrong where several transports claim a scheme."""
    for scheme, names in scheme_owners(transports)[1].items():
        for name in names:
            others = ", ".join(f"{other} of {transports.owner(other)}" for other in names if other != name)
            problem = f"the transport {name!r} claims {scheme}:, and so does {others}; neither is used for it"
            yield Trouble(plugin=transports.owner(name), hook=families.TRANSPORTS.hook, problem=problem)


@plugins.command()
@click.argument("kind", type=click.Choice(["bootloader", "transport", "storage", "policy"]))
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to put it (default: ./cfs-NAME).")
@format_option
def new(kind: str, name: str, directory: Path | None, output: str) -> None:
    """Write the project of a new plugin: code that works, tests that pass.

    \b
    Example:
      cfs plugins new bootloader my-loader
    """
    from cfs_core.cli.scaffold import write_project

    path = write_project(kind, name, directory)
    if output == "json":
        show_json({"path": path})
        return
    say(f"{path} is ready; try `cd {path} && pip install -e '.[test]' && pytest`")
