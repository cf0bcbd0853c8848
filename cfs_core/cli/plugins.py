"""``cfs plugins``: what is installed, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfs_core.cli.output import ResultGroup, format_option, say, show_json, table
from cfs_core.plugin import API_VERSION
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from cfs_core.cli.app import App


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
        say("no plugins are installed; `pip install cfs-storage-composefs cfs-transport-oci-dir cfs-disk …` adds some")
        return
    table(
        [(str(r["family"]), str(r["name"]), f"{r['distribution']} {r['version']}", str(r["summary"])) for r in records],
        ("FAMILY", "NAME", "DISTRIBUTION", "SUMMARY"),
    )


@plugins.command()
@format_option
@click.pass_obj
def doctor(app: App, output: str) -> int:
    """Check every plugin; exit status 4 if one is broken.

    \b
    Example:
      cfs plugins doctor
    """
    found: dict[tuple[str, str | None, str], dict[str, object]] = {}
    registries = [app.host.collect(family) for family in families.ALL]
    for trouble in (*app.host.trouble, *(t for registry in registries for t in registry.trouble)):
        found[(str(trouble.plugin), trouble.hook, trouble.problem)] = {
            "plugin": trouble.plugin.name,
            "distribution": trouble.plugin.distribution,
            "version": trouble.plugin.version,
            "hook": trouble.hook,
            "problem": trouble.problem,
            "fatal": trouble.fatal,
        }
    for registry in registries:
        for name, owners in registry.withheld.items():
            for owner in owners:
                others = ", ".join(str(other) for other in owners if other != owner) or "itself"
                problem = f"offers the {registry.family} {name!r}, and so does {others}; neither is used"
                found[(str(owner), None, problem)] = {
                    "plugin": owner.name,
                    "distribution": owner.distribution,
                    "version": owner.version,
                    "hook": None,
                    "problem": problem,
                    "fatal": True,
                }
    missing = [
        family.name
        for family, registry in zip(families.ALL, registries, strict=True)
        if _needed(family.name) and not registry.providers
    ]
    healthy = not any(record["fatal"] for record in found.values()) and not missing
    if output == "json":
        show_json(
            {"healthy": healthy, "plugins": app.host.plugins, "troubles": list(found.values()), "missing": missing}
        )
    else:
        for owner in app.host.plugins:
            say(f"ok       {owner}")
        for record in found.values():
            word = "broken " if record["fatal"] else "warning"
            where = f" in {record['hook']}" if record["hook"] else ""
            say(
                f"{word}  {record['plugin']} ({record['distribution']} {record['version']}){where}: {record['problem']}"
            )
        for family in missing:
            say(f"missing  no plugin offers a {family}; an install needs one")
    return 0 if healthy else 4


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


def _needed(family: str) -> bool:
    return family in {"transport", "storage format", "bootloader", "layout", "filesystem"}
