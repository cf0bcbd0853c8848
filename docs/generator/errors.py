"""Every error class there is, core's and those of the plugins that are installed."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
from importlib import metadata
from typing import TYPE_CHECKING

import cfs_core
from cfs_core.errors import CfsError
from generator.distributions import ours

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

INTERNAL = "A fault in cfs itself: something happened that it has no explanation for. Please report it."


def every_error() -> list[type[CfsError]]:
    """Return all error classes, ordered by exit status and code."""
    _import_everything(cfs_core)
    for entry in metadata.entry_points(group="cfs.plugins"):
        if entry.dist is not None and entry.dist.metadata["Name"] in ours():
            _import_everything(importlib.import_module(entry.module.partition(".")[0]))
    found = {
        kind for kind in _below(CfsError) if kind.__module__.startswith("cfs_") and not kind.__name__.startswith("_")
    }
    return sorted(found, key=lambda kind: (kind.exit_status, kind.code, kind.__name__))


def exit_statuses() -> Iterator[tuple[int, str, str]]:
    """Yield exit status, the code that all codes of this status begin with, and what it means."""
    for kind in every_error():
        if kind is CfsError:
            yield kind.exit_status, kind.code, INTERNAL
        elif "." not in kind.code and "code" in vars(kind):
            yield kind.exit_status, kind.code, summary(kind)


def summary(kind: type) -> str:
    """Return the first paragraph of a class's docstring on one line."""
    if kind is CfsError:
        return "The class that all errors are kinds of; by itself, a fault in cfs."
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())


def distribution(kind: type) -> str:
    """Return the import package a class comes from."""
    return kind.__module__.partition(".")[0]


def _below(kind: type[CfsError]) -> Iterator[type[CfsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _below(child)


def _import_everything(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # what is for another system only
                importlib.import_module(module.name)
