"""Hints name what there is: commands, their options, settings; options of others only where the program is named."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from pathlib import Path

import click
import pytest

from cfs_core.app.app import App
from cfs_core.cli.main import cli
from cfs_core.config.keys import BY_NAME, Kind
from cfs_core.errors import CfsError

ROOT = Path(__file__).parents[2]
ALL = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("cfs_host", "cfs_initramfs", "cfs_prove", "cfs_seal")),
    reason="plugins whose commands hints name are not installed",
)
SOURCES = [
    path
    for folder in ("cfs_core", "plugins", "docs/examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "tests" not in path.parts
]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
COMMAND = re.compile(r"(`?)\bcfs ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)")
SETTING = re.compile(r"\b((?:limits|install|plugins|policy)\.[a-z][a-z-]+)(?![\w.]*\()")
OF_OTHERS = {
    "tar": {"--sparse"},
    "zstd": {"--ultra", "--long"},
    "podman": {"--privileged", "--device", "--volume", "--pid", "--security-opt", "--format"},
    "skopeo": {"--format", "--dest-compress-format"},
    "gpg": {"--export"},
    "ukify": {"--cmdline"},
}
"""Options in hints that are another program's, by the program, which the hint names."""

MAKERS = {"error", "warning", "note", "_finding", "_refuse", "over"}
"""Functions whose third argument and those after it may be hints."""

FILES = {".toml", ".d", ".json", ".img", ".conf", ".efi", ".raw"}


def text_of(node: ast.expr, constants: dict[str, str]) -> list[str]:
    """Return what an expression says, {} where it is not known; several for alternatives."""
    match node:
        case ast.Constant(value=str() as value):
            return [value]
        case ast.JoinedStr(values=values):
            return ["".join((text_of(value, constants) or ["{}"])[0] for value in values)]
        case ast.FormattedValue(value=ast.Name(id=name)) if name in constants:
            return [constants[name]]
        case ast.Name(id=name) if name in constants:
            return [constants[name]]
        case ast.IfExp(body=body, orelse=orelse):
            return text_of(body, constants) + text_of(orelse, constants)
        case ast.BinOp(left=left, right=right):
            return ["".join((text_of(side, constants) or ["{}"])[0] for side in (left, right))]
        case ast.BoolOp(values=values):
            return [text for value in values for text in text_of(value, constants)]
        case ast.Call(func=ast.Name(id="raising"), args=[ast.Constant(value=str() as value)]):
            return [f"set {value} to more (see `cfs config show`)"]
    return []


def hints_of(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text())
    constants = {
        target.id: value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
        for value in text_of(node.value, {})
    }
    found = []
    for node in ast.walk(tree):
        expressions: list[ast.expr] = []
        names = {target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)}
        if (isinstance(node, ast.keyword) and node.arg == "hint") or (isinstance(node, ast.Assign) and "hint" in names):
            expressions = [node.value]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in MAKERS:
            expressions = node.args[2:]
        found += [(node.lineno if hasattr(node, "lineno") else expression.lineno, text)
                  for expression in expressions for text in text_of(expression, constants)]  # fmt: skip
    return found


HINTS = [(path.relative_to(ROOT), line, text) for path in SOURCES for line, text in hints_of(path)]


@pytest.fixture(scope="module")
def commands():
    """Every command of cfs by its words, those of plugins included."""
    found: dict[str, click.Command] = {}

    def visit(command: click.Command, context: click.Context, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = command
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None:
                    visit(inner, click.Context(inner, info_name=name, parent=context, obj=context.obj), (*words, name))

    with App(os.environ) as app:
        visit(cli, click.Context(cli, info_name="cfs", obj=app), ())
    return found


def is_of_another(option: str, text: str) -> bool:
    return any(re.search(rf"\b{name}\b", text, re.IGNORECASE) and option in own for name, own in OF_OTHERS.items())


def test_there_are_hints_to_check():
    assert len(HINTS) > 300
    assert sum("--" in text for *_, text in HINTS) > 30


@ALL
def test_options_in_hints_exist(commands):
    known = {name for command in commands.values() for option in command.params for name in option.opts}
    wrong = [
        f"{path}:{line}: {option}"
        for path, line, text in HINTS
        for option in OPTION.findall(text)
        if option not in known and not is_of_another(option, text)
    ]
    assert wrong == []


@ALL
def test_commands_in_hints_exist(commands):
    wrong = []
    for path, line, text in HINTS:
        for quoted, words in COMMAND.findall(text):
            first, _, second = words.partition(" ")
            group = commands.get(first)
            is_prose = not quoted and group is None
            if not is_prose and (
                group is None or (second and isinstance(group, click.Group) and words not in commands)
            ):
                wrong.append(f"{path}:{line}: cfs {words}")
    assert wrong == []


def test_settings_in_hints_exist():
    wrong = [
        f"{path}:{line}: {name}"
        for path, line, text in HINTS
        for name in SETTING.findall(text)
        if name not in BY_NAME
        and not any(name.startswith(f"{key.name}.") for key in BY_NAME.values() if key.kind is Kind.TABLE)
        and not any(name.endswith(ending) for ending in FILES)
    ]
    assert wrong == []


def test_no_hint_asks_for_what_nothing_can_do():
    """Words that once stood where no setting did."""
    vague = re.compile(r"raise the limit|report (it|this)(?! to| with)|this is a bug(?! in)", re.IGNORECASE)
    assert [f"{path}:{line}: {text}" for path, line, text in HINTS if vague.search(text)] == []


def test_every_limit_that_is_a_setting_is_named_by_an_error():
    named = {name for *_, text in HINTS for name in SETTING.findall(text)}
    sources = "\n".join(path.read_text() for path in SOURCES if path.name not in {"keys.py", "limits.py"})
    limits = {name for name in BY_NAME if name.startswith("limits.")}
    assert {name for name in limits if name not in named and f'"{name}"' not in sources} == set()
    assert not any(BY_NAME[name].image for name in limits)


OWN = {"UsageError", "RefusedError", "PluginError", "BootError", "StateError", "HostError"}
"""Classes whose errors each need an action of their own; the others have one for the whole class."""


def test_errors_that_somebody_can_act_on_say_how():
    lacking, counted = [], 0
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OWN:
                counted += 1
                if not any(keyword.arg == "hint" for keyword in node.keywords):
                    lacking.append(f"{path}:{node.lineno}")
    assert counted > 100
    assert lacking == []


def test_every_other_class_has_advice():
    def every(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from every(child)

    for kind in every(CfsError):
        if kind.__module__.startswith("cfs_") and kind.__name__ not in OWN | {"CfsError"}:
            own = any(base.__name__ in OWN for base in kind.__mro__)
            assert kind.advice or own, kind
