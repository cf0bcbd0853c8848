"""Writing YAML, as little of it as a document of JSON values needs: any text is quoted as JSON quotes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def to_yaml(value: object) -> str:
    """Return *value*, made of what JSON can hold, as a YAML document (every JSON scalar is one of YAML 1.2)."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: object) -> list[str]:
    if isinstance(value, Mapping) and value:
        found: list[str] = []
        for key, item in value.items():
            name = key if _PLAIN.match(key) and key.lower() not in _WORDS else json.dumps(key)
            found += _under(f"{name}:", item)
        return found
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [line for item in value for line in _item(item)]
    return [_scalar(value)]


def _under(head: str, item: object) -> list[str]:
    if isinstance(item, Mapping | list) and item:
        return [head, *(f"  {line}" for line in _lines(item))]
    return [f"{head} {_scalar(item)}"]


def _item(item: object) -> list[str]:
    first, *rest = _lines(item)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _scalar(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
