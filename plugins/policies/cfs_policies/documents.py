"""Strict JSON of policies and signatures: no key twice, none unknown, every value of its kind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable


class DocumentError(ConfigError):
    """A policy file or signature is not what its format says."""


def parse_object(raw: bytes | str, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        DocumentError: it is none, or has a key twice.
    """

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            msg = f"{where} has a key twice in one object"
            raise DocumentError(msg)
        return found

    try:
        value = json.loads(raw, object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        msg = f"{where} is not JSON: {error!s:.100}"
        raise DocumentError(msg) from error
    return as_object(value, where)


def as_object(value: object, where: str) -> dict[str, Any]:
    """Return *value* if it is an object.

    Raises:
        DocumentError: it is none.
    """
    if not isinstance(value, dict):
        msg = f"{where} is not an object"
        raise DocumentError(msg)
    return value


def check_keys(value: dict[str, Any], where: str, *, needed: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
    """Check which members an object has.

    Raises:
        DocumentError: one is missing, or unknown.
    """
    needed = set(needed)
    if missing := sorted(needed - set(value)):
        msg = f"{where} has no {missing[0]!r}"
        raise DocumentError(msg)
    if unknown := sorted(set(value) - needed - set(allowed)):
        msg = f"{where} has an unknown key {unknown[0]!r:.60}"
        raise DocumentError(msg)


def text_of(value: dict[str, Any], key: str, where: str) -> str:
    """Return a string member.

    Raises:
        DocumentError: it is none, or empty.
    """
    found = value.get(key)
    if not isinstance(found, str) or not found:
        msg = f"{key!r} of {where} is not a string"
        raise DocumentError(msg)
    return found
