"""Is a provider what its class says? Its declarations are read in runs that do not need it, so they must be right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cfs_core.interfaces.provider import Capability, ProviderSetting
from cfs_core.model.boot import EntryKind, Firmware

if TYPE_CHECKING:
    from cfs_core.interfaces.provider import Provider

_NAME: Final = re.compile(r"[a-z0-9]+([ -][a-z0-9]+)*\Z")
_SEVERAL: Final[dict[str, tuple[tuple[type, ...], type]]] = {
    "schemes": ((tuple, list), str),
    "marker_paths": ((tuple, list), str),
    "firmware": ((frozenset, set), Firmware),
    "entries": ((frozenset, set), EntryKind),
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
    return None
