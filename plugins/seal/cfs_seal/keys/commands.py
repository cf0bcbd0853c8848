"""``cfs secureboot``: keys, what is in variables, variables of virtual machines."""

from __future__ import annotations

import datetime as dt
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfs_core.plugin import OutputFormat, RefusedError

if TYPE_CHECKING:
    from cfs_core.plugin import CommandContext, Output

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
KEYS_HELP = """
Make keys for Secure Boot in the new directory DIR: PK, KEK and db, each with certificate, signature list (.esl) and
signed update (.auth). Seal with db; `cfs install to-disk --secure-boot-enroll DIR` puts the updates where systemd-boot
enrols them. Keep PK.key and KEK.key away from machines that build images.

Microsoft's certificates stay in KEK and db: without them the firmware of graphics and network cards does not start, and
there are laptops that then never start again.

\b
Example:
  cfs secureboot keys ./keys --name "Example Ltd"
"""
SHOW_HELP = """
Show what firmware would trust: certificates and numbers of hashes in PK, KEK, db and dbx of PATH, a directory of keys,
an .esl or .auth file, or the variables of a virtual machine.

\b
Example:
  cfs secureboot show ./keys
"""
ENROLL_HELP = """
Write the variables of a virtual machine, IN, to OUT with the keys of DIR enrolled and Secure Boot on.

\b
Example:
  cfs secureboot enroll ./keys /usr/share/OVMF/OVMF_VARS_4M.fd vars.fd
"""
BRICKS = "Without Microsoft's certificates some machines never start again, and nothing undoes it. Go on?"
SURE = "Are all cards of all machines that will enrol these keys known to start without them?"


def make_keys_command(context: CommandContext) -> click.Command:
    """Return ``cfs secureboot keys``."""
    return click.Command(
        "keys",
        callback=functools.partial(_keys, context),
        help=KEYS_HELP,
        short_help="Make PK, KEK and db for Secure Boot.",
        params=[
            click.Argument(["directory"], type=_FOLDER),
            click.Option(["--name"], default="cfs", show_default=True, help="Begin of the certificates' names."),
            click.Option(["--no-microsoft"], is_flag=True, help="Leave out Microsoft's certificates (asked twice)."),
            click.Option(
                ["--yes", "-y"], count=True, help="Answer yes once; twice (-yy) where --no-microsoft asks twice."
            ),
        ],
    )


def make_show_command(context: CommandContext) -> click.Command:
    """Return ``cfs secureboot show``."""
    return click.Command(
        "show",
        callback=functools.partial(_show_contents, context.output),
        help=SHOW_HELP,
        short_help="Show certificates and hashes in Secure Boot's variables.",
        params=[
            click.Argument(["path"], type=click.Path(path_type=Path)),
        ],
    )  # fmt: skip


def make_enroll_command(context: CommandContext) -> click.Command:
    """Return ``cfs secureboot enroll``."""
    return click.Command(
        "enroll",
        callback=functools.partial(_enroll, context.output),
        help=ENROLL_HELP,
        short_help="Enrol keys in the variables of a virtual machine.",
        params=[
            click.Argument(["directory"], type=_FOLDER),
            click.Argument(["variables"], type=_FILE, metavar="IN"),
            click.Argument(["out"], type=click.Path(path_type=Path, dir_okay=False), metavar="OUT"),
        ],
    )


def _keys(context: CommandContext, /, directory: Path, *, name: str, no_microsoft: bool, yes: int) -> None:
    from cfs_seal.keys.variables import make_keys

    if no_microsoft:
        for number, question in enumerate((BRICKS, SURE), 1):
            if yes >= number:
                continue
            if not sys.stdin.isatty():
                msg = "leaving out Microsoft's certificates must be confirmed twice, and there is nobody to ask"
                raise RefusedError(msg, hint="leave --no-microsoft out, or give -yy")
            click.confirm(question, abort=True, err=True)
    epoch = context.source_date_epoch
    when = dt.datetime.now(dt.UTC) if epoch is None else dt.datetime.fromtimestamp(epoch, dt.UTC)
    make_keys(directory, name, microsoft=not no_microsoft, when=when.replace(microsecond=0))
    context.output.say(
        f"{directory}: PK, KEK and db; seal with --key {directory}/db.key --certificate {directory}/db.pem"
    )


def _show_contents(output: Output, /, path: Path) -> None:
    from cfs_seal.keys.variables import contents

    found = list(contents(path))
    if output.format is OutputFormat.JSON:
        output.show([{name: getattr(each, name) for name in each.__slots__} for each in found])
        return
    for each in found:
        output.say(f"{each.variable:<4} {(each.fingerprint or '')[:16]:<16} {each.what}")


def _enroll(output: Output, /, directory: Path, variables: Path, out: Path) -> None:
    from cfs_seal.keys.variables import enroll

    enroll(directory, variables, out)
    output.say(str(out))
