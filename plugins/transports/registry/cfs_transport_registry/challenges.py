"""What a registry offers to log in with: the challenges of ``WWW-Authenticate`` (RFC 9110 §11.6.1, RFC 6750 §3)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cfs_core.plugin import ServerError, clean_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LONGEST = 8192
"""Characters of all challenges together."""

_SEPARATORS = re.compile(r"[\s,]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_EQUALS = re.compile(r"\s*=\s*")
_VALUE = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|\Z))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in: its scheme in lower case, and its parameters by their names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(text: str) -> tuple[Challenge, ...]:
    """Return all challenges of one or more ``WWW-Authenticate`` headers, which HTTP joins with commas.

    What cannot be read ends the list: what stands before it counts.
    """
    found: list[tuple[str, dict[str, str]]] = []
    text = text[:_LONGEST]
    at = 0
    while True:
        at = _end(_SEPARATORS.match(text, at), at)
        word = _TOKEN.match(text, at)
        if word is None:
            break
        at = word.end()
        if found and (equals := _EQUALS.match(text, at)) is not None:
            value = _VALUE.match(text, equals.end())
            if value is None:
                break
            at = value.end()
            plain = value[2] if value[1] is None else re.sub(r"\\(.)", r"\1", value[1])
            found[-1][1].setdefault(word[0].lower(), plain)
            continue
        found.append((word[0].lower(), {}))
        at = _end(_TOKEN68.match(text, at), at)
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def choose(challenges: Sequence[Challenge], *, basic: bool) -> Challenge | None:
    """Return the challenge to answer: a token's before a password's, that only with credentials for it (*basic*)."""
    for scheme in ("bearer", "basic") if basic else ("bearer",):
        for challenge in challenges:
            if challenge.scheme == scheme:
                return challenge
    return None


def realm_of(challenge: Challenge, host: str, *, scheme: str) -> str:
    """Return the address of the token server; *scheme* is for one that names none.

    Raises:
        ServerError: no address with a host.
    """
    realm = challenge.parameters.get("realm", "")
    if not realm:
        msg = f"{host} wants a token and does not say from where"
        raise ServerError(msg, hint=_HINT, facts={"host": host})
    address = realm if "://" in realm else f"{scheme}://{realm}"
    try:
        parts = urlsplit(address)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not address.isprintable():
        msg = f"{host} wants a token from {clean_address(realm)!r}, which is no web address with a host"
        raise ServerError(msg, hint=_HINT, facts={"host": host})
    return address


_HINT = "the registry is set up wrongly (the realm of its WWW-Authenticate header): tell whoever runs it"


def _end(match: re.Match[str] | None, at: int) -> int:
    return at if match is None else match.end()
