"""JSON from outside: limited in size and depth, no duplicate keys, typed access with the place in every message."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from cfs_core.errors import ImageError, LimitError

# Manifests and configs nest a handful deep. Python's parser recurses, which a few KiB of brackets would bring to its
# end.
DEPTH_LIMIT = 32
VALUE_LIMIT = 200_000
"""Values in one document, counted by its commas and brackets."""

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


class JsonFields:
    """A JSON object whose members are asked for by name and type."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            msg = f"{where} is not a JSON object"
            raise ImageError(msg)
        self._members: dict[str, object] = value
        self.where = where

    def has(self, name: str) -> bool:
        """Return whether there is such a member other than null."""
        return self._members.get(name) is not None

    def get(self, name: str) -> object:
        """Return a member as it is, None if there is none."""
        return self._members.get(name)

    def string(self, name: str, default: str | None = None) -> str:
        """Return a string member.

        Raises:
            ImageError: of another type, or missing without a default.
        """
        value = self._members.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            self._wrong(name, "a string", value)
        return value

    def size(self, name: str) -> int:
        """Return a number of bytes.

        Raises:
            ImageError: not an integer from 0 to 2**63 - 1.
        """
        value = self._members.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            self._wrong(name, "a number of bytes", value)
        return value

    def nested(self, name: str) -> JsonFields:
        """Return a member that is an object.

        Raises:
            ImageError: it is none.
        """
        return JsonFields(self._members.get(name), f"{name!r} in {self.where}")

    def array(self, name: str, limit: int) -> list[object]:
        """Return a member that is an array.

        Raises:
            ImageError: it is none.
            LimitError: more than *limit* members.
        """
        value = self._members.get(name)
        if not isinstance(value, list):
            self._wrong(name, "an array", value)
        if len(value) > limit:
            msg = f"{name!r} in {self.where} has {len(value)} members, more than {limit}"
            raise LimitError(msg, facts={"limit": limit})
        return value

    def strings(self, name: str) -> dict[str, str]:
        """Return a member that maps strings to strings; empty if missing or null.

        Raises:
            ImageError: it is something else.
        """
        value = self._members.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            self._wrong(name, "an object of strings", value)
        return value

    def _wrong(self, name: str, wanted: str, value: object) -> NoReturn:
        found = "missing" if value is None else f"{value!r:.100}"
        msg = f"{name!r} in {self.where} must be {wanted} and is {found}"
        raise ImageError(msg)


def parse_json(raw: bytes, where: str) -> JsonFields:
    """Parse a JSON object.

    Raises:
        ImageError: not JSON (RFC 8259, UTF-8), a key twice in one object, or no object.
        LimitError: nested deeper than `DEPTH_LIMIT`, or more than `VALUE_LIMIT` values.
    """
    _check_shape(raw, where)

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            msg = f"{where} has the key {twice!r:.100} twice in one object"
            raise ImageError(msg, hint="programs disagree about which of the two counts; make the image anew")
        return found

    def no_constant(name: str) -> NoReturn:
        msg = f"{where} contains {name}, which is not JSON"
        raise ImageError(msg)

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=members, parse_constant=no_constant)
    except ImageError:
        raise
    except ValueError as error:
        msg = f"{where} is not JSON: {error!s:.200}"
        raise ImageError(msg) from error
    except RecursionError as error:
        msg = f"{where} is nested too deeply"
        raise LimitError(msg) from error
    return JsonFields(value, where)


def _check_shape(raw: bytes, where: str) -> None:
    # Counted before anything is parsed: as Python objects, values take many times the memory of their text.
    openers = raw.count(b"[") + raw.count(b"{")
    if openers + raw.count(b",") > VALUE_LIMIT:
        msg = f"{where} has more than {VALUE_LIMIT} values"
        raise LimitError(msg, facts={"limit": VALUE_LIMIT})
    if openers <= DEPTH_LIMIT:
        return
    depth = 0
    for match in _STRUCTURE.finditer(raw):
        token = match[0]
        if token in {b"[", b"{"}:
            depth += 1
            if depth > DEPTH_LIMIT:
                msg = f"{where} is nested deeper than {DEPTH_LIMIT} levels"
                raise LimitError(msg, facts={"limit": DEPTH_LIMIT})
        elif token in {b"]", b"}"}:
            depth -= 1
