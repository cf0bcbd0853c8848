"""What would be trusted less after a switch than before: told, and refused unless somebody wants it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.errors import RefusedError
from cfs_core.model.boot import EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.config.settings import Settings
    from cfs_core.lifecycle.status import DeploymentStatus

_PINNED = re.compile(r"@sha(?:256|512):[0-9a-f]+\Z")


def before_fetching(running: DeploymentStatus, reference: str, settings: Settings) -> Iterator[str]:
    """Yield what is weaker about *reference*, as far as can be said without the image."""
    required = settings.value("policy.require")
    if running.verified and not required:
        yield f"the running image was judged ({running.verified[0]}), and no policy would judge the next one"
    # A record is the policy's name, a colon, and what it proved (`judge`).
    judged = dict.fromkeys(text.partition(":")[0] for text in running.verified if required)
    for policy in (name for name in judged if name not in required):
        yield f"policy {policy} judged the running image, and is not required of the next one"
    if running.image is not None and _PINNED.search(running.image) and not _PINNED.search(reference):
        yield f"{running.image} names one image by its digest, and {reference} whatever its tag will lead to"


def after_fetching(running: DeploymentStatus, *, sealed: bool) -> Iterator[str]:
    """Yield what is weaker about an image that is here; *sealed*: its kernel is a UKI that names it."""
    if running.layout is EntryKind.UKI and not sealed:
        yield "the running image is sealed in a unified kernel image, and the next one is not"


def refuse(found: list[str], *, allowed: bool) -> None:
    """Stop at the first of *found* unless it is *allowed*.

    Raises:
        RefusedError: with all of them in ``facts['weaker']``.
    """
    if found and not allowed:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        msg = f"{found[0]}{more}"
        raise RefusedError(
            msg,
            hint="pass --allow-weaker if that is meant",
            code="state.weaker",
            facts={"weaker": tuple(found)},
        )
