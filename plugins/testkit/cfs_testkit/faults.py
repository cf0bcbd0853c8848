"""What can go wrong with one HTTP answer; the registry simulator applies these to paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Fault:
    """Base of all faults. The plain one is an answer without a fault (to let the first request pass)."""


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Answer with this status instead of the content; one byte of the body per *drip_seconds*, if that is not 0."""

    code: int
    """HTTP's status."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers of the answer."""

    body: bytes = b""
    """What is sent in place of the content."""

    drip_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """Send *after* bytes of the body, then reset the connection."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Silence(Fault):
    """Send *after* bytes of the body (None: not even a status line), then nothing, and keep the connection open."""

    after: int | None = None


@dataclass(frozen=True, slots=True)
class Truncate(Fault):
    """Announce the whole body, send *after* bytes and close; without announcing a length if *chunked*."""

    after: int
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class Extra(Fault):
    """Send *data* behind the body, with a length that includes it."""

    data: bytes = b"x"


@dataclass(frozen=True, slots=True)
class Corrupt(Fault):
    """Flip the byte at *at* of the body."""

    at: int = 0


@dataclass(frozen=True, slots=True)
class Endless(Fault):
    """Never stop sending."""

    chunk: bytes = bytes(64 * 1024)
    """What is sent again and again."""


@dataclass(frozen=True, slots=True)
class Drip(Fault):
    """Send *size* bytes per *seconds*: never silent, hardly ever done."""

    seconds: float = 0.05
    size: int = 1


@dataclass(frozen=True, slots=True)
class DripHeaders(Fault):
    """Send one byte of status line and headers per *seconds*, for ever: never silent, never at the body."""

    seconds: float = 0.05


@dataclass(frozen=True, slots=True)
class Raw(Fault):
    """Send *parts* as they are in place of an answer, *seconds* apart, and close.

    They may be without end; each answer iterates them anew.
    """

    parts: Iterable[bytes]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Redirect(Fault):
    """Send the client elsewhere."""

    location: str
    """Where to."""

    code: int = 307
    """HTTP's status."""


@dataclass(frozen=True, slots=True)
class IgnoreRange(Fault):
    """Answer a range request with status 200 and the whole body."""


@dataclass(frozen=True, slots=True)
class WrongRange(Fault):
    """Answer a range request with status 206 and another range than was asked for."""


@dataclass(frozen=True, slots=True)
class ContentType(Fault):
    """State another content type (None: none at all), with another body if *body* is given."""

    value: str | None
    """The media type; None sends none."""

    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Header(Fault):
    """Add or replace one response header."""

    name: str
    """The header."""

    value: str
    """Its value."""


@dataclass(frozen=True, slots=True)
class Run(Fault):
    """Answer properly, and do something to the registry afterwards: move a tag, delete a manifest."""

    action: Callable[[], object]
    """What is called."""
