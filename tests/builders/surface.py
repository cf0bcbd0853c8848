"""The surface that plugins may use, as text: names, signatures, fields, members, error codes.

`make surface` (``PYTHONPATH=tests python -m builders.surface``) writes it anew to tests/unit/surface.txt.
"""

import dataclasses
import enum
import functools
import importlib
import inspect
import types
from pathlib import Path

FILE = Path(__file__).parents[1] / "unit" / "surface.txt"
MODULES = ("cfs_core.plugin", "cfs_core.tar", "cfs_core.bls", "cfs_core.sealing", "cfs_core.testing")
HIDDEN_BASES = {"object", "ABC", "Generic", "Protocol", "Enum", "str", "int"}
OPERATORS = {"__init__", "__enter__", "__truediv__", "__iter__", "__len__", "__contains__"}


def text():
    """Return the whole surface."""
    from cfs_core import hookspecs
    from cfs_core.plugin import API_VERSION

    lines = [f"Plugin API {API_VERSION[0]}.{API_VERSION[1]}", "", "hooks"]
    for name, function in vars(hookspecs).items():
        if hasattr(function, f"{hookspecs.PROJECT}_spec"):
            options = [key for key, value in function.cfs_spec.items() if value]
            lines.append(f"  {name}{signature(function)}" + (f" [{', '.join(options)}]" if options else ""))
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines += ["", module_name]
        for name in sorted({*module.__all__} - {"__version__"}):
            lines += [f"  {line}" for line in described(name, getattr(module, name))]
    return "\n".join(lines) + "\n"


def described(name, value):
    """Yield lines about one exported name."""
    if isinstance(value, types.ModuleType):
        return [f"{name}: module {value.__name__}"]
    if inspect.isfunction(value):
        return [f"{name}{signature(value)}"]
    if isinstance(value, type) and value.__module__.startswith("cfs_core"):
        return class_lines(name, value)
    if hasattr(value, "__supertype__"):
        return [f"{name}: NewType of {value.__supertype__.__name__}"]
    return [f"{name} = {shown(value)}"]


def class_lines(name, value):
    bases = [base.__name__ for base in value.__bases__ if base.__name__ not in HIDDEN_BASES]
    head = f"{name}({', '.join(bases)})" if bases else name
    if issubclass(value, enum.Enum):
        return [f"enum {head}", *(f"  {member.name} = {member.value!r}" for member in value), *methods(value)]
    if issubclass(value, BaseException):
        return [f"error {head}: {value.code}, exit status {value.exit_status}", *methods(value)]
    if dataclasses.is_dataclass(value):
        frozen = "frozen " if value.__dataclass_params__.frozen else ""
        return [f"{frozen}dataclass {head}", *map(field_line, dataclasses.fields(value)), *methods(value)]
    attributes = [
        f"  {attribute}: {annotation}"
        for attribute, annotation in inspect.get_annotations(value).items()
        if not attribute.startswith("_")
    ]
    return [f"class {head}", *attributes, *methods(value)]


def field_line(field):
    default = ""
    if field.default is not dataclasses.MISSING:
        default = f" = {shown(field.default)}"
    elif field.default_factory is not dataclasses.MISSING:
        default = f" = {field.default_factory.__name__}()"
    return f"  {'' if field.kw_only else 'positional '}{field.name}: {field.type}{default}"


def methods(value):
    """Return lines about methods and properties; private ones only where plugins implement them."""
    lines = []
    for name, member in sorted(vars(value).items()):
        function = getattr(member, "__func__", member)
        if isinstance(member, property | functools.cached_property):
            getter = member.fget if isinstance(member, property) else member.func
            if not name.startswith("_"):
                lines.append(f"  {name}: {inspect.signature(getter).return_annotation} [property]")
            continue
        if not inspect.isfunction(function) or not is_public(name, function, value):
            continue
        marks = [kind.__name__ for kind in (classmethod, staticmethod) if isinstance(member, kind)]
        marks += ["abstract"] if getattr(function, "__isabstractmethod__", False) else []
        marks += ["final"] if getattr(function, "__final__", False) else []
        lines.append(f"  {name}{signature(function)}" + (f" [{', '.join(marks)}]" if marks else ""))
    return lines


def is_public(name, function, owner):
    """Return whether *function* is for plugins: not made by dataclasses, and private only where they implement it."""
    if name.startswith("__"):
        made = name == "__init__" and dataclasses.is_dataclass(owner)
        return name in OPERATORS and function.__module__.startswith("cfs_core") and not made
    return not name.startswith("_") or (inspect.isabstract(owner) and bool(function.__doc__))


def signature(function):
    """Return a signature as it is written, whatever the version of Python."""
    found = inspect.signature(function)
    words = []
    starred = False
    for item in found.parameters.values():
        if item.kind is item.KEYWORD_ONLY and not starred:
            words.append("*")
        starred = starred or item.kind in {item.KEYWORD_ONLY, item.VAR_POSITIONAL}
        word = {item.VAR_POSITIONAL: "*", item.VAR_KEYWORD: "**"}.get(item.kind, "") + item.name
        word += f": {item.annotation}" if item.annotation is not item.empty else ""
        word += f" = {shown(item.default)}" if item.default is not item.empty else ""
        words.append(word)
    returned = f" -> {found.return_annotation}" if found.return_annotation is not found.empty else ""
    return f"({', '.join(words)}){returned}"


def shown(value):
    """Return a value as text that is the same in every run."""
    if isinstance(value, types.UnionType):
        return " | ".join(item.__name__ for item in value.__args__)
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(shown, value)))}}}" if value else "frozenset()"
    if isinstance(value, types.FunctionType):
        return "<function>"
    text_of = repr(value)
    return f"<{type(value).__name__}>" if " at 0x" in text_of else text_of


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
