"""``cfs plugins``: what is installed, and what is wrong with it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfs_core.cli.output import ResultGroup, format_option, say, show_json, table
from cfs_core.documents import plugins as documents
from cfs_core.interfaces import block_hashing
from cfs_core.plugin import HashAlgorithm
from cfs_core.pluginhost import families
from cfs_core.pluginhost.distributions import DEFAULTS
from cfs_core.pluginhost.registry import Trouble
from cfs_core.pluginhost.schemes import scheme_owners

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_core.app.app import App
    from cfs_core.interfaces.provider import TransportProvider
    from cfs_core.pluginhost.registry import Registry

NEEDED = (families.TRANSPORTS, families.STORAGE, families.BOOTLOADERS, families.LAYOUTS, families.FILESYSTEMS)
"""Families that an install cannot do without."""

FAMILIES: dict[str, families.Family[Any]] = {
    "bootloader": families.BOOTLOADERS,
    "transport": families.TRANSPORTS,
    "storage": families.STORAGE,
    "policy": families.POLICIES,
}
"""Kinds of plugins that `new` writes."""


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
    records = list(documents.providers({family.name: app.host.collect(family) for family in families.ALL}))
    if output == "json":
        show_json(documents.listed(records))
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
    is a warning at the end of that run. What hashes files on this machine, and how fast, is measured.

    \b
    Example:
      cfs plugins doctor
    """
    app.configure(warn_of_plugins=False)  # they are the result
    registries = {family: app.host.collect(family) for family in families.ALL}
    troubles = list({str(trouble): trouble for trouble in app.host.trouble}.values())
    troubles += _contested(registries[families.TRANSPORTS])
    broken = {trouble.plugin for trouble in troubles if trouble.fatal}
    missing = [family.name for family, registry in registries.items() if family in NEEDED and not registry.providers]
    healthy = not broken
    choices = {algorithm: block_hashing.measured(algorithm) for algorithm in HashAlgorithm}
    if output == "json":
        show_json(documents.diagnosed(app.host.plugins, troubles, missing, choices))
    else:
        for owner in app.host.plugins:
            if owner not in broken:
                say(f"ok       {owner}")
        for line in _hashing(choices):
            say(line)
        for trouble in troubles:
            say(f"{'broken ' if trouble.fatal else 'warning'}  {trouble}")
        for name in missing:
            say(f"missing  no plugin offers a {name}; an install needs one")
        if missing:
            say(f"hint: `pip install {DEFAULTS}` brings all that an install needs")
    # As `PluginError`: what a run that needed the plugin would end with.
    return 0 if healthy else 4


def _hashing(choices: Mapping[HashAlgorithm, block_hashing.Choice]) -> Iterator[str]:
    """Yield what hashes the blocks of fs-verity on this machine, how fast, and what does not."""
    for algorithm, choice in choices.items():
        rates = ", ".join(f"{name} {rate / 1e6:,.0f} MB/s" for name, rate in choice.rates.items())
        yield f"hashing  {algorithm.value} by {choice.name} ({rates})"
    for name, reason in {
        name: reason for choice in choices.values() for name, reason in choice.refused.items()
    }.items():
        yield f"unused   hasher {name}: {reason}"


def _contested(transports: Registry[TransportProvider]) -> Iterator[Trouble]:
    """Yield what is wrong where several transports claim a scheme."""
    for scheme, names in scheme_owners(transports)[1].items():
        for name in names:
            others = ", ".join(f"{other} of {transports.owner(other)}" for other in names if other != name)
            problem = f"the transport {name!r} claims {scheme}:, and so does {others}; neither is used for it"
            yield Trouble(plugin=transports.owner(name), hook=families.TRANSPORTS.hook, problem=problem)


@plugins.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Describe everything: the whole reference, for a pager.")
@format_option
def docs(names: tuple[str, ...], *, everything: bool, output: str) -> None:
    """Print the reference for authors of plugins: hooks, interfaces, facts, enumerations, errors, the kit for tests.

    Without NAMES it lists them. A name is that of a hook, a class, a function or a value; a module's describes all that
    may be imported from it. The kit is described where cfs-plugin-testkit is installed.

    \b
    Examples:
      cfs plugins docs
      cfs plugins docs cfs_register_bootloaders BootFacts Volume
      cfs plugins docs --all | less
    """
    from cfs_core.cli import reference_text
    from cfs_core.cli.reference import every_entry, records

    chosen = reference_text.chosen(every_entry(), names)
    if output == "json":
        show_json(documents.reference(records(chosen)))
    elif names or everything:
        for entry in chosen:
            say("\n".join(reference_text.described(entry)) + "\n")
    else:
        table([(entry.module, entry.name, entry.kind, entry.summary) for entry in chosen], reference_text.HEADINGS)


@plugins.command()
@click.argument("kind", type=click.Choice(list(FAMILIES)))
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to put it (default: ./cfs-NAME).")
@format_option
@click.pass_obj
def new(app: App, kind: str, name: str, directory: Path | None, output: str) -> None:
    """Write the project of a new plugin: code that works, tests that pass.

    NAME is what people choose it by; the distribution is called cfs-NAME. Names that installed plugins, their
    distributions or packages of cfs have are refused.

    \b
    Example:
      cfs plugins new bootloader my-loader
    """
    from cfs_core.cli.scaffold import write_project

    registry = app.host.collect(FAMILIES[kind])
    offered = {name: str(owner) for name, (owner, _) in registry.providers.items()}
    for owner, provider in registry.providers.values():
        offered |= dict.fromkeys(getattr(provider, "schemes", ()), str(owner))
    path = write_project(kind, name, directory, offered=offered)
    if output == "json":
        show_json(documents.written(path))
        return
    if importlib.util.find_spec("cfs_testkit") is not None:
        say(f"{path} is ready; try `cd {path} && pip install -e '.[test]' && pytest`")
    else:
        say(f"{path} is ready; {path / 'README.md'} says where its tests get cfs-plugin-testkit from")
