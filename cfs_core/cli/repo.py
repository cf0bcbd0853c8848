"""``cfs repo``: make, check and clean repositories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfs_core.cli.image import open_repository
from cfs_core.cli.output import (
    ResultGroup,
    erofs_option,
    format_option,
    hash_option,
    repo_option,
    say,
    show_found,
    show_json,
)
from cfs_core.documents import images as documents
from cfs_core.errors import UsageError
from cfs_core.model.deployment import FormatOptions, FormatVersion
from cfs_core.model.digest import HashAlgorithm
from cfs_core.report.progress import counted, human_bytes
from cfs_core.system.atomic import make_parent

if TYPE_CHECKING:
    from cfs_core.app.app import App
    from cfs_core.model.plan import Finding


@click.group(cls=ResultGroup)
def repo() -> None:
    """Make, check and clean repositories."""


@repo.command()
@repo_option
@hash_option
@erofs_option
@click.pass_obj
def init(app: App, repo_path: Path | None, algorithm: str, version: str) -> None:
    """Make an empty repository.

    \b
    Example:
      cfs repo init --repo ./repo
    """
    from cfs_core.deploy.trust import check_trust

    where = repo_path or app.default_repository()
    make_parent(where)
    check_trust(app.settings, where)
    options = FormatOptions(version=FormatVersion(version), algorithm=HashAlgorithm(algorithm))
    app.storage().open(where, create=True, options=options).close()
    say(where)


@repo.command()
@repo_option
@click.option(
    "--disk",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Look inside this disk image instead; nothing is mounted.",
)
@format_option
@click.pass_obj
def fsck(app: App, repo_path: Path | None, disk: Path | None, output: str) -> int:
    """Read everything and say what is wrong; exit status 9 if anything is.

    \b
    Examples:
      cfs repo fsck --repo ./repo
      cfs repo fsck --disk disk.img
    """
    if disk is not None and repo_path is not None:
        msg = "--disk and --repo contradict each other"
        raise UsageError(msg, hint="--disk checks the repository on a disk, --repo one of this host")
    problems: list[Finding] = []
    if disk is not None:
        from cfs_core.examine.disk import examine_disk

        problems = list(examine_disk(app, disk))
    else:
        with open_repository(app, repo_path) as repository:
            problems = list(repository.fsck())
    if output == "json":
        show_json(documents.examined(problems))
    else:
        show_found(problems)
        say(counted(len(problems), "problem") if problems else "clean")
    # As `StorageError`: something that is stored is damaged, on whichever volume of a disk.
    return 9 if problems else 0


@repo.command()
@repo_option
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@format_option
@click.pass_obj
def gc(app: App, repo_path: Path | None, output: str, *, dry_run: bool) -> None:
    """Remove what no image needs.

    \b
    Example:
      cfs repo gc --dry-run
    """
    with open_repository(app, repo_path) as repository:
        report = repository.collect_garbage(dry_run=dry_run)
    if output == "json":
        show_json(documents.collected(report))
        return
    verb = "would remove" if dry_run else "removed"
    freed = human_bytes(report.bytes_freed)
    say(f"{verb} {counted(report.objects_removed, 'object')} ({freed}), kept {report.objects_kept}")
