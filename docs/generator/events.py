"""Every event, log line, finding and problem in the source, found by reading it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MAKER = re.compile(r"(finding|problem|error|warning|note|guarded)\Z", re.IGNORECASE)
"""Names of what makes findings and problems."""

LOGGER = re.compile(r"_?logs?\Z")
"""Names of what log lines are written with."""

CODE = re.compile(r"[a-z0-9]+(-[a-z]+)*(\.[a-zA-Z-]+)+\Z")


def sources() -> Iterator[Path]:
    """Yield the modules of core and of our plugins."""
    for folder in (ROOT / "cfs_core", ROOT / "plugins"):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).parts
            if not {"tests", "templates", "cfs_testkit", ".venv"} & set(parts):
                yield path


def every_event() -> dict[str, dict[str, set[str]]]:
    """Return events by name, each with the module that emits it and the facts it has."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: {"modules": set(), "facts": set()})
    for path in sources():
        module = module_name(path)
        for scope in _scopes(ast.parse(path.read_text(encoding="utf-8"))):
            tables = _dictionaries(scope)
            for call in _calls(scope):
                name, facts = _event(call, tables)
                if name is not None:
                    found[name]["modules"].add(module)
                    found[name]["facts"] |= facts
    return dict(sorted(found.items()))


def every_code() -> dict[str, set[str]]:
    """Return codes of findings and problems, each with the modules that make it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sources():
        for scope in _scopes(ast.parse(path.read_text(encoding="utf-8"))):
            chosen = _assigned(scope)
            for call in _calls(scope):
                for code in _codes(call, chosen):
                    found[code].add(module_name(path))
    return dict(sorted(found.items()))


def every_log() -> dict[str, tuple[str, set[str]]]:
    """Return the names of log lines that are no events, each with its level and the modules that write it."""
    found: dict[str, tuple[str, set[str]]] = {}
    for path in sources():
        for scope in _scopes(ast.parse(path.read_text(encoding="utf-8"))):
            chosen = _assigned(scope)
            for call in _calls(scope):
                for name in _texts(call.args[0], chosen) if _is_log(call) and call.args else []:
                    found.setdefault(name, (_called(call), set()))[1].add(module_name(path))
    return dict(sorted(found.items()))


def module_name(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    first = next(index for index, part in enumerate(parts) if part.startswith("cfs_"))
    return ".".join(parts[first:])


def _scopes(tree: ast.Module) -> Iterator[ast.AST]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _calls(scope: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(scope) if isinstance(node, ast.Call))


def _dictionaries(scope: ast.AST) -> dict[str, set[str]]:
    """Return the keys of dictionaries that are assigned to a name."""
    return {
        target.id: _keys(node.value)
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _keys(node: ast.Dict) -> set[str]:
    return {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}


def _event(call: ast.Call, tables: dict[str, set[str]]) -> tuple[str | None, set[str]]:
    called = _called(call)
    named = {word.arg: word.value for word in call.keywords if word.arg}
    if called == "Event" and isinstance(named.get("name"), ast.Constant):
        facts = named.get("facts")
        known = _keys(facts) if isinstance(facts, ast.Dict) else set()
        if isinstance(facts, ast.Name):
            known = tables.get(facts.id, set())
        return str(named["name"].value), known  # type: ignore[attr-defined]
    if (
        called == "event"
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.func, ast.Attribute)
    ):
        return str(call.args[0].value), set(named)
    return None, set()


def _codes(call: ast.Call, chosen: dict[str, list[ast.expr]]) -> list[str]:
    """Return the codes in the first argument of a maker that has any."""
    if not MAKER.search(_called(call)) or _is_log(call):
        return []
    named = [word.value for word in call.keywords if word.arg == "code"]
    return next((codes for node in (*named, *call.args) if (codes := _texts(node, chosen))), [])


def _texts(node: ast.expr, chosen: dict[str, list[ast.expr]]) -> list[str]:
    """Return the codes that *node* may be: of both branches of a condition, and of all that a name is given."""
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, chosen), *_texts(node.orelse, chosen)]
    if isinstance(node, ast.Name):
        return [text for value in chosen.get(node.id, ()) for text in _texts(value, {})]
    return [text] if CODE.match(text := _constant(node)) else []


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what each name of a function is given."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id].append(node.value)
    return found


def _is_log(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    owner = call.func.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return LOGGER.match(name) is not None and call.func.attr in {"debug", "info", "warning", "error"}


def _constant(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "VOLUME" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""
