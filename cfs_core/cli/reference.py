"""The reference for authors of plugins, read from the code that is installed: hooks, and all that may be imported."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import pkgutil
import types
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

from cfs_core import hookspecs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HOOKS: Final = "hooks"
"""Stands where the name of a module stands for others: hooks are implemented, not imported."""

CORE: Final = ("cfs_core.plugin", "cfs_core.bls", "cfs_core.tar", "cfs_core.testing")
KIT: Final = "cfs_testkit"
_NOT_SHOWN: Final = (f"{KIT}.contracts.", f"{KIT}.conformance")
"""Modules of the kit that nobody imports: what they hold is a part of the classes in ``contracts``, or is pytest's."""

_OPERATORS: Final = {"__truediv__", "__iter__", "__len__", "__contains__", "__enter__"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A member, field, property or method."""

    name: str
    kind: str
    """``member``, ``field``, ``property``, ``method`` or ``check`` (a test of a contract)."""

    text: str
    """As it is written: ``firmware: frozenset[Firmware]``."""

    meaning: str


@dataclass(frozen=True)
class Entry:
    """One name, as an author uses it."""

    name: str
    module: str
    """Where it is imported from, or `HOOKS`."""

    value: object

    @property
    def kind(self) -> str:
        """``hook``, ``function``, ``enumeration``, ``error``, ``facts`` (a dataclass), ``class`` or ``value``."""
        value = self.value
        if self.module == HOOKS:
            return "hook"
        if inspect.isfunction(value):
            return "function"
        if not isinstance(value, type) or not _ours(value):
            return "value"
        if issubclass(value, enum.Enum):
            return "enumeration"
        if issubclass(value, BaseException):
            return "error"
        return "facts" if dataclasses.is_dataclass(value) else "class"

    @property
    def text(self) -> str:
        """What heads its description: a signature, bases, or a value."""
        value = self.value
        if inspect.isfunction(value):
            return f"{self.name}{signature(value)}"
        if self.kind == "value":
            return f"{self.name} = {shown(value)}"
        if isinstance(value, type):
            bases = [base.__name__ for base in value.__bases__ if _ours(base)]
            return f"{self.name}({', '.join(bases)})" if bases else self.name
        return self.name

    @property
    def use(self) -> str:
        """The line that an author writes to have it."""
        return (
            "from cfs_core.plugin import hookimpl" if self.module == HOOKS else f"from {self.module} import {self.name}"
        )

    @cached_property
    def meaning(self) -> str:
        """The docstring; empty where the code has none."""
        if self.kind == "value" and not isinstance(self.value, types.ModuleType):
            return _assigned_meaning(self.module, self.name)
        return inspect.cleandoc(self.value.__doc__ or "")

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Members, fields, properties and methods, inherited ones included; of an error only its own."""
        if self.kind in {"hook", "function", "value"} or not isinstance(self.value, type):
            return ()
        kinds = [kind for kind in reversed(self.value.__mro__) if _ours(kind)]
        found: dict[str, Part] = {}
        for kind in [self.value] if self.kind == "error" else kinds:
            for part in _parts_of(kind):
                found[part.name] = part
        order = ("member", "field", "property", "method", "check")
        return tuple(sorted(found.values(), key=lambda part: order.index(part.kind)))

    @property
    def summary(self) -> str:
        """The first sentence or line of `meaning`."""
        return " ".join(self.meaning.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def every_entry() -> dict[str, list[Entry]]:
    """Return all names by module, hooks first; without the kit where it is not installed."""
    hooks = [
        Entry(name, HOOKS, function)
        for name, function in vars(hookspecs).items()
        if hasattr(function, f"{hookspecs.PROJECT}_spec")
    ]
    found = {HOOKS: hooks}
    for name in CORE:
        module = importlib.import_module(name)
        names = sorted({*module.__all__} - {"__version__"}, key=str.lower)
        found[name] = [Entry(each, name, getattr(module, each)) for each in names]
    seen: set[int] = set()
    for name in _kit_modules():
        module = importlib.import_module(name)
        new = [Entry(each, name, value) for each, value in _public(module) if id(value) not in seen]
        seen |= {id(entry.value) for entry in new}
        if new:
            found[name] = new
    return found


def signature(function: Callable[..., object]) -> str:
    """Return a signature as it is written, without ``self``."""
    facts = inspect.signature(function)
    words: list[str] = []
    for item in facts.parameters.values():
        if item.name in {"self", "cls"} and not words:
            continue
        if item.kind is item.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        stars = "*" if item.kind is item.VAR_POSITIONAL else "**" if item.kind is item.VAR_KEYWORD else ""
        word = f"{stars}{item.name}"
        word += f": {_annotation(item.annotation)}" if item.annotation is not item.empty else ""
        words.append(word + (f" = {shown(item.default)}" if item.default is not item.empty else ""))
    returned = facts.return_annotation
    return f"({', '.join(words)})" + (f" -> {_annotation(returned)}" if returned is not facts.empty else "")


def shown(value: object) -> str:
    """Return a value as an author would write it; the same in every run."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, frozenset):
        return f"frozenset({{{', '.join(sorted(map(shown, value)))}}})" if value else "frozenset()"
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return value.__name__
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if hasattr(value, "__supertype__"):
        return f"NewType({value.__supertype__.__name__})"
    text = repr(value)
    return "…" if " at 0x" in text else text.replace("cfs_core.model.action.", "").replace("cfs_core.model.tree.", "")


def _annotation(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else shown(annotation)


def _ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in {"cfs_core", KIT}


def _kit_modules() -> Iterator[str]:
    if importlib.util.find_spec(KIT) is None:
        return
    kit = importlib.import_module(KIT)
    names = sorted(module.name for module in pkgutil.walk_packages(kit.__path__, f"{KIT}."))
    yield from (name for name in names if not name.startswith(_NOT_SHOWN))


def _public(module: types.ModuleType) -> Iterator[tuple[str, object]]:
    """Yield what *module* offers: what it lists, or what it defines itself."""
    listed = getattr(module, "__all__", None)
    documented = _assigned(module.__name__)
    for name, value in vars(module).items():
        function = getattr(value, "__wrapped__", value)  # of a fixture
        own = getattr(function, "__module__", None) == module.__name__ or bool(documented.get(name))
        if (name in listed if listed is not None else own) and not name.startswith(("_", "pytest_")):
            yield name, function if inspect.isfunction(function) else value


def _parts_of(kind: type) -> Iterator[Part]:
    """Yield what *kind* itself brings, in the order of its source."""
    meanings = _body_meanings(kind)
    if issubclass(kind, enum.Enum):
        for member in kind:
            text = f"{member.name} = {member.value!r}"
            yield Part(name=member.name, kind="member", text=text, meaning=meanings.get(member.name, ""))
    else:
        defaults = {field.name: field for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
        for name, annotation in inspect.get_annotations(kind).items():
            if not name.startswith("_"):
                text = f"{name}: {_annotation(annotation)}{_default(kind, name, defaults.get(name))}"
                yield Part(name=name, kind="field", text=text, meaning=meanings.get(name, ""))
    for name, member in vars(kind).items():
        yield from _method(kind, name, member)


def _method(kind: type, name: str, member: object) -> Iterator[Part]:
    if isinstance(member, property | cached_property):
        getter: Any = member.fget if isinstance(member, property) else member.func
        if not name.startswith("_"):
            text = f"{name}: {_annotation(inspect.signature(getter).return_annotation)}"
            yield Part(name=name, kind="property", text=text, meaning=inspect.cleandoc(getter.__doc__ or ""))
        return
    function = getattr(member, "__func__", getattr(member, "__wrapped__", member))
    if not inspect.isfunction(function) or not _is_for_authors(kind, name, function):
        return
    marks = [mark.__name__ for mark in (classmethod, staticmethod) if isinstance(member, mark)]
    marks += ["abstract"] if getattr(function, "__isabstractmethod__", False) else []
    text = f"{name}{signature(function)}" + (f"  [{', '.join(marks)}]" if marks else "")
    check = "check" if name.startswith("test_") else "method"
    yield Part(name=name, kind=check, text=text, meaning=inspect.cleandoc(function.__doc__ or ""))


def _is_for_authors(kind: type, name: str, function: types.FunctionType) -> bool:
    """Return whether authors call or implement *function*; private ones only where an interface asks for them."""
    if name.startswith("__"):
        made = name == "__init__" and dataclasses.is_dataclass(kind)
        return name in {*_OPERATORS, "__init__"} and not made and _defined_here(function)
    return not name.startswith("_") or (inspect.isabstract(kind) and bool(function.__doc__))


def _defined_here(function: types.FunctionType) -> bool:
    return function.__module__.partition(".")[0] in {"cfs_core", KIT}


def _default(kind: type, name: str, field: dataclasses.Field[Any] | None) -> str:
    if field is None:
        value = vars(kind).get(name)
        return "" if name not in vars(kind) or isinstance(value, types.MemberDescriptorType) else f" = {shown(value)}"
    if field.default is not dataclasses.MISSING:
        return f" = {shown(field.default)}"
    if field.default_factory is not dataclasses.MISSING:
        return f" = {shown(field.default_factory)}()"
    return ""


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def _strings_after(body: list[ast.stmt]) -> dict[str, str]:
    """Return the string that stands below each assignment of *body*, by the name that is assigned; empty: none does."""
    found: dict[str, str] = {}
    for statement, following in zip(body, [*body[1:], None], strict=True):
        targets: list[ast.expr] = []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        elif isinstance(statement, ast.Assign):
            targets = statement.targets
        text = following.value.value if _is_text(following) else ""  # type: ignore[union-attr]  # it is an Expr then
        found |= {target.id: inspect.cleandoc(text) for target in targets if isinstance(target, ast.Name)}
    return found


def _is_text(statement: ast.stmt | None) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _body_meanings(kind: type) -> dict[str, str]:
    for node in ast.walk(_tree(kind.__module__)):
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            return _strings_after(node.body)
    return {}


@cache
def _assigned(module: str) -> dict[str, str]:
    return _strings_after(_tree(module).body)


def _assigned_meaning(module: str, name: str) -> str:
    """Return the string below the assignment of *name*, in whatever module of ours *module* has it from."""
    known = _assigned(module)
    if name in known:
        return known[name]
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("cfs_core", KIT)):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _assigned_meaning(node.module, alias.name)
    return ""


def records(entries: Iterable[Entry]) -> list[dict[str, object]]:
    """Return what there is to say about *entries*, for programs."""
    return [
        {
            "name": entry.name,
            "module": entry.module,
            "kind": entry.kind,
            "text": entry.text,
            "use": entry.use,
            "meaning": entry.meaning,
            "parts": [dataclasses.asdict(part) for part in entry.parts],
        }
        for entry in entries
    ]
