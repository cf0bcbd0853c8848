"""Is a provider what its class says? Its declarations are read in runs that do not need it, so they must be right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cfs_core.interfaces.bootloader import LoaderConsole
from cfs_core.interfaces.provider import Capability, ProviderSetting
from cfs_core.model.boot import EntryKind, Firmware, KernelForm

if TYPE_CHECKING:
    from cfs_core.interfaces.provider import Provider

_NAME: Final = re.compile(r"[a-z0-9]+([ -][a-z0-9]+)*\Z")
_SEVERAL: Final[dict[str, tuple[tuple[type, ...], type]]] = {
    "schemes": ((tuple, list), str),
    "marker_paths": ((tuple, list), str),
    "firmware": ((frozenset, set), Firmware),
    "entries": ((frozenset, set), EntryKind),
    "kernels": ((frozenset, set), KernelForm),
    "can": ((frozenset, set), Capability),
    "settings": ((tuple, list), ProviderSetting),
}
"""Fields with several values: the collection, and what is in it."""


def offer_problem(offer: Any, kind: type[Provider[Any]]) -> str | None:  # noqa: ANN401 - whatever a plugin returned
    """Return what is wrong with what a registration hook returned; None if it is a usable *kind*."""
    if not isinstance(offer, kind):
        return f"returned {type(offer).__name__}, not {kind.__name__}"
    declared = {field: getattr(offer, field) for field in kind.__dataclass_fields__}
    name = declared["name"]
    if not (isinstance(name, str) and _NAME.match(name)):
        return f"offers the name {name!r}; names are lower-case letters, digits and dashes"
    if not (isinstance(declared["summary"], str) and callable(declared["factory"])):
        return f"offers {name!r} without a summary (a string) and a factory (a callable)"
    for field, (collections, item) in _SEVERAL.items():
        value: Any = declared.get(field, collections[0]())
        if type(value) not in collections or not all(isinstance(element, item) for element in value):
            wanted = f"a {collections[0].__name__} of {item.__name__}"
            return f"offers {name!r} with {field}={value!r:.80}, which must be {wanted}"
    if "console" in declared:
        problem = _console_problem(declared["console"])
        return f"offers {name!r} with {problem}" if problem else None
    return None


def _console_problem(console: Any) -> str | None:  # noqa: ANN401 - whatever a plugin declared
    """Return what is wrong with what a loader says that it writes."""
    if type(console) is not LoaderConsole or not isinstance(console.name, str):
        return f"console={console!r:.80}, which must be a LoaderConsole with a name"
    for field in ("started", "failed", "harmless"):
        patterns = getattr(console, field)
        if type(patterns) not in {tuple, list} or not all(isinstance(pattern, str) for pattern in patterns):
            return f"console.{field}={patterns!r:.80}, which must be a tuple of str"
        for pattern in patterns:
            try:
                matches_nothing_too = re.compile(pattern).search("") is not None
            except re.error as cause:
                return f"console.{field} with {pattern!r:.80}, which is no regular expression: {cause}"
            if matches_nothing_too:
                return f"console.{field} with {pattern!r:.80}, which an empty line matches"
    return None
