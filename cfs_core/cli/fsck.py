"""``cfs fsck``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cfs_core.cli.machine import machine_options
from cfs_core.cli.output import ResultCommand, authfile_option, say, show_found, show_json
from cfs_core.documents.machine import examined
from cfs_core.report.progress import counted

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.app.app import App

FOUND = 9
"""Exit status where something is wrong and stays so, as `cfs repo fsck` has it."""


@click.command(cls=ResultCommand)
@click.option("--repair", is_flag=True, help="Mend what can be: fetch objects again, write boot files again.")
@machine_options
@authfile_option
@click.pass_obj
def fsck(app: App, root: Path, output: str, *, repair: bool) -> int:
    """Read everything of this machine and say what is wrong; exit status 9 if anything is, or is not mended.

    Repairing fetches broken and missing objects from the image they came from, makes EROFS images again, and writes
    boot files that differ from the image's. What cannot be proven right is told and left alone.

    \b
    Example:
      cfs fsck --repair
    """
    from cfs_core.lifecycle.fsck import examine_machine, repair_machine
    from cfs_core.lifecycle.session import session

    with session(root, app, "fsck", writable=repair) as opened:
        problems = tuple(examine_machine(opened))
        done = repair_machine(opened, problems) if repair and problems else ()
    app.progress.close()
    if output == "json":
        show_json(examined(problems, done))
    elif repair:
        for each in done:
            word = "mended" if each.done else "not mended"
            say(f"{word}: {each.problem.where}: {each.problem.message} ({each.what}) [{each.problem.code}]")
        say("clean" if not problems else counted(sum(not each.done for each in done), "problem") + " left")
    else:
        show_found(problems)
        say(counted(len(problems), "problem") if problems else "clean")
    wrong = any(not each.done for each in done) if repair else bool(problems)
    return FOUND if wrong else 0
