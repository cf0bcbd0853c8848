"""Judgements about an image as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cfs_core.cli.output import on_terminal, say, show_json
from cfs_core.cli.plan_text import COLORS
from cfs_core.documents.judgements import judged, junit, sarif

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.install.check import Judgement


def show_judgements(reference: str, judgements: Sequence[Judgement], output: str) -> None:
    """Print what was found about the image *reference*, in one of the forms."""
    if output == "json":
        show_json(judged(reference, judgements))
    elif output == "junit":
        say(junit(reference, judgements))
    elif output == "sarif":
        show_json(sarif(reference, judgements))
    else:
        _show_text(reference, judgements)


def _show_text(reference: str, judgements: Sequence[Judgement]) -> None:
    for judgement in judgements:
        verdict = "bootable" if judgement.error is None else "refused"
        say(f"{reference} ({judgement.name}): {verdict}")
        if judgement.kernel:
            say(f"  kernel {judgement.kernel_version or 'unknown'} ({judgement.kernel})")
        for finding in judgement.findings:
            word = finding.severity.value
            if on_terminal():
                word = click.style(word, fg=COLORS[finding.severity])
            say(f"  {word}: {finding.message} [{finding.code}]")
            if finding.hint:
                say(f"    hint: {finding.hint}")
