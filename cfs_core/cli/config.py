"""``cfs config``: settings and where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cfs_core.cli.output import ResultGroup, format_option, show_json, table
from cfs_core.documents.plugins import settings
from cfs_core.documents.values import plain

if TYPE_CHECKING:
    from cfs_core.app.app import App


@click.group(cls=ResultGroup)
def config() -> None:
    """Show settings and where they come from."""


@config.command()
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@format_option
@click.pass_obj
def show(app: App, output: str, *, origin: bool) -> None:
    """Print all settings in force, those of installed plugins too.

    \b
    Example:
      cfs config show --origin
    """
    from cfs_core.deploy.provider_settings import provider_listing

    rows = [*app.settings.listing(), *provider_listing(app.settings, app.host)]
    if output == "json":
        show_json(settings(rows))
        return
    cells = [(name, str(plain(setting.value)), setting.origin) for name, setting in rows]
    table(
        [cell if origin else cell[:2] for cell in cells],
        ("SETTING", "VALUE", "ORIGIN") if origin else ("SETTING", "VALUE"),
    )
