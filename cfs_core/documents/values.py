"""Values as JSON has them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cfs_core.model.digest import Digest

if TYPE_CHECKING:
    from cfs_core.model.plan import Finding


def plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Turn facts into what JSON can hold: records by their fields, bytes as text, all else as it is written."""
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


def found(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """Return what was found; what no plugin found is core's."""
    return [
        {
            "severity": each.severity.value,
            "code": each.code,
            "where": each.where,
            "message": each.message,
            "hint": each.hint,
            "repairable": each.repairable,
            "origin": each.origin or "cfs-core",
        }
        for each in findings
    ]
