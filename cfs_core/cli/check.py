"""``cfs image check``: would an install succeed? For the CI of who builds images."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import click

from cfs_core.cli.output import ResultCommand, authfile_option, platform_option, repo_option
from cfs_core.cli.plan_options import plan_fields, plan_options, plan_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.app.app import App

FORMATS = ("text", "json", "junit", "sarif")


@click.command(cls=ResultCommand)
@click.argument("reference")
@click.option(
    "--bootloader", "bootloaders", multiple=True, metavar="NAME", help="Judge with this bootloader (repeatable)."
)
@click.option(
    "--firmware",
    "firmwares",
    multiple=True,
    type=click.Choice(["uefi", "bios", "both", "u-boot"]),
    help="Judge for this firmware (repeatable).",
)
@click.option(
    "--filesystem", "filesystems", multiple=True, metavar="NAME", help="Judge with this root filesystem (repeatable)."
)
@plan_options
@authfile_option
@repo_option
@platform_option
@click.option(
    "--format", "output", type=click.Choice(FORMATS), default="text", show_default=True, help="Form of the result."
)
@click.pass_obj
def check(app: App, /, reference: str, repo_path: Path | None, output: str, **options: Any) -> None:  # noqa: ANN401 - the options above
    """Say whether an image would install so that it boots, without a disk; the exit status is the install's.

    The image is fetched and judged as `cfs install to-disk` judges it. Options given several times are combined with
    each other, and each combination is judged; what none names is chosen as the install chooses it. All other options
    mean what they mean there.

    \b
    Examples:
      cfs image check oci:./debian:latest
      cfs image check oci:./debian:latest --bootloader grub --firmware uefi --firmware bios --format junit
    """
    from cfs_core.cli.judgements import show_judgements
    from cfs_core.install.check import check as judge
    from cfs_core.install.request import PlanRequest

    app.add_options(plan_settings(options))
    request = PlanRequest(
        source=app.locate(reference),
        **plan_fields(options),
        repo=repo_path,
        dry_run=True,
    )
    judgements = judge(request, list(_choices(options)), app)
    app.progress.close()
    show_judgements(reference, judgements, output)
    for judgement in judgements:
        if judgement.error is not None:
            raise judgement.error


def _choices(options: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Yield every combination of what was asked for, as settings."""
    names = ("bootloader", "firmware", "filesystem")
    for values in product(*(options[f"{name}s"] or (None,) for name in names)):
        yield {f"install.{name}": value for name, value in zip(names, values, strict=True)}
