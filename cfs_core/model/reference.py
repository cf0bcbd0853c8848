"""Image references: where an image is asked for, split once at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.errors import UsageError

if TYPE_CHECKING:
    from cfs_core.model.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """One image as a person names it. ``name`` is a path or repository, in the transport's grammar."""

    scheme: str
    """The word before the colon, which chooses the transport."""

    name: str
    """A path or repository."""

    tag: str | None = None
    """The tag; None where none is named."""

    digest: Digest | None = None
    """The digest that is asked for; None where none is named."""

    text: str
    """What the person wrote, for messages and origin files."""

    def __str__(self) -> str:
        return self.text


def split_scheme(text: str) -> tuple[str, str]:
    """Split ``scheme:rest``; ``//`` after the colon belongs to the rest.

    Raises:
        UsageError: no scheme.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or not rest or not scheme.replace("-", "").isalnum():
        msg = f"{text!r} names no transport"
        raise UsageError(msg, hint="write it as oci:DIRECTORY:TAG, docker://HOST/NAME:TAG or containers-storage:NAME")
    return scheme, rest
