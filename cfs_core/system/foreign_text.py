"""Words and addresses of others, before they are shown or logged: one line, bounded, no secrets."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

REDACTED = "[redacted]"
LIMIT = 200
"""Characters that are kept of what somebody else says."""

_SHORTEST = 4
"""Characters; replacing shorter secrets would garble everything and tell them by it."""

_USER = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s@'\"<>]*@")
_QUERY = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s?#'\"<>]*)[?#][^\s'\"<>)\],]*")
_PATH_QUERY = re.compile(
    r"(?i)([?&](?:x-amz-[a-z-]+|x-goog-[a-z-]+|sig|signature|token|key|expires|policy)=)[^\s&'\"<>)\],]*"
)
_URL_QUERY = re.compile(r"(?i)(\burl:? ['\"]?/[^\s?'\"]*)\?[^\s'\")\]]*")
_SCHEME = re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{6,}")
_NAMED = re.compile(
    r"(?i)(\b[a-z_-]*(?:passw(?:or)?d|passphrase|secret|token|api_?key|access_?key|private_?key)[\"']?\s*[:=]\s*)"
    r"(\"[^\"]*\"?|'[^']*'?|[^\s\"',;&)}\]]+)"
)


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Return *text* without credentials: *secrets*, users in addresses, their queries, and values called passwords.

    A query goes as a whole: who presigns an address (S3, GCS, Azure) puts the right to read into it.
    """
    for secret in sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = _USER.sub(rf"\1{REDACTED}@", text)
    text = _QUERY.sub(rf"\1?{REDACTED}", text)
    text = _PATH_QUERY.sub(rf"\1{REDACTED}", text)
    text = _URL_QUERY.sub(rf"\1?{REDACTED}", text)
    text = _SCHEME.sub(REDACTED, text)
    return _NAMED.sub(rf"\1{REDACTED}", text)


def clean_text(text: object, *, secrets: Iterable[str] = (), limit: int = LIMIT) -> str:
    """Return what somebody else said as one printable line without secrets, at most *limit* characters."""
    cleaned = without_secrets(str(text), secrets)
    line = " ".join("".join(c if c.isprintable() else " " for c in cleaned).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def clean_address(address: str) -> str:
    """Return an address as it may be shown: without user, password, query and fragment."""
    return clean_text(_USER.sub(r"\1", re.split("[?#]", address, maxsplit=1)[0]))


def printable(text: str) -> str:
    r"""Return *text* with everything that moves a terminal's cursor or its direction of writing escaped.

    Newlines and tabs stay. What is not UTF-8 in a name (surrogates) becomes ``\xNN``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" or _is_space(c) else _escaped(c) for c in text)


def one_line(text: str) -> str:
    r"""Return `printable` *text* in one line: newlines and tabs become ``\n`` and ``\t``."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _is_space(c: str) -> bool:
    return unicodedata.category(c) == "Zs"  # other spaces than U+0020 take room and do nothing else


def _escaped(c: str) -> str:
    number = ord(c)
    if 0xDC80 <= number <= 0xDCFF:  # noqa: PLR2004 - PEP 383
        number -= 0xDC00
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"  # noqa: PLR2004
