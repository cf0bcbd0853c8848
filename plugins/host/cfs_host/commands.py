"""``cfs host install``."""

from __future__ import annotations

from pathlib import Path

import click

from cfs_host.place import place

HELP = """
Puts units of systemd into the root of an image that is being built: what finalizes a staged upgrade at shutdown, what
says that a boot was good or was not, and a timer that stages upgrades, which is off.

\b
Example, in a Containerfile:
  RUN cfs host install --root /
"""


def make_install() -> click.Command:
    """Return the command."""
    return click.Command(
        "install",
        callback=_install,
        params=[
            click.Option(
                ["--root"],
                type=click.Path(path_type=Path),
                required=True,
                help="Directory that becomes the image's root.",
            ),
            click.Option(["--timer"], is_flag=True, help="Switch the timer on: upgrades are staged by themselves."),
        ],
        help=HELP,
        short_help="Put the units of an installed machine into an image.",
    )


def _install(root: Path, *, timer: bool) -> None:
    for path in place(root, timer=timer):
        click.echo(path)
