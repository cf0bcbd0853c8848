"""Options of ``cfs install`` for the settings of first boot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfs_core.deploy.first_boot.request import FirstBootRequest

F = TypeVar("F", bound="Callable[..., Any]")

TEXTS = ("hostname", "locale", "timezone", "keymap")
"""Options that are settings, too."""

_OPTIONS = (
    click.option("--hostname", metavar="NAME", help="Host name of the machine."),
    click.option("--locale", metavar="NAME", help="Its locale, such as de_DE.UTF-8."),
    click.option("--timezone", metavar="ZONE", help="Its time zone, such as Europe/Berlin."),
    click.option("--keymap", metavar="NAME", help="Keymap of its consoles, such as de-latin1."),
    click.option("--root-password-hash", metavar="HASH", help="Root's password, as crypt(5) has it; or @FILE with it."),
    click.option(
        "--user",
        "users",
        multiple=True,
        metavar="NAME:HASH[:GROUPS]",
        help="Make a user, in groups that the image has (repeatable). HASH may be @FILE, or ! for none.",
    ),
    click.option("--machine-id", metavar="ID", help="The machine's id (default: made at first boot)."),
)


def first_boot_options(command: F) -> F:
    """Give *command* the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def first_boot_request(options: Mapping[str, Any]) -> FirstBootRequest:
    """Return what was asked for by options that are no settings.

    Raises:
        UsageError: a user of another form, or no password hash.
    """
    from cfs_core.deploy.first_boot.request import FirstBootRequest, parse_user, secret

    given = options["root_password_hash"]
    return FirstBootRequest(
        root_password_hash=None if given is None else secret(given, "--root-password-hash"),
        users=tuple(map(parse_user, options["users"])),
        machine_id=options["machine_id"],
    )
