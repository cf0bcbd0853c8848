"""The page on where to start reading names functions that exist and calls that they make."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explain/where-to-start-reading.md").read_text()
COMPOSEFS = "plugins/storage/composefs/cfs_storage_composefs"
ROW = re.compile(r"^\| `([^`]+\.py)::([\w.]+)`[^|]*\| (.*?) ?\|$", re.MULTILINE)
STARTS = {"run", "to_disk"}
"""Where a row may begin that no row above leads to: the program, and the command that click finds by its name."""


def rows():
    """Return (path, name of the function, names that it calls) of each row."""
    found = [
        (path.replace("…", COMPOSEFS), name, re.findall(r"`(\w+)`", calls)) for path, name, calls in ROW.findall(PAGE)
    ]
    assert len(found) > 40
    return found


def function(path, name):
    """Return a function's syntax tree; *name* may be `Class.method`."""
    body = ast.parse((ROOT / path).read_text()).body
    for part in name.split("."):
        kinds = ast.ClassDef | ast.FunctionDef
        node = next((node for node in body if isinstance(node, kinds) and node.name == part), None)
        assert node is not None, f"{path} has no {name}"
        body = node.body
    return node


def names_in(node):
    """Return every name that is used in a function, and the names of what it imports under another one."""
    used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    used |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    imports = [each for each in ast.walk(node) if isinstance(each, ast.ImportFrom)]
    return used | {alias.name for each in imports for alias in each.names if (alias.asname or alias.name) in used}


@pytest.mark.parametrize(("path", "name", "calls"), rows(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_function_is_there_and_calls_what_the_page_says(path, name, calls):
    assert set(calls) - names_in(function(path, name)) == set()


def test_each_row_is_reached_from_one_above():
    reached = set(STARTS)
    for path, name, calls in rows():
        assert name.rpartition(".")[2] in reached, f"nothing above {path}::{name} leads to it"
        reached |= set(calls)


def test_other_names_of_the_page_exist():
    for path in re.findall(r"`((?:cfs_core|plugins)/[\w/]+(?:\.py)?)`", PAGE):
        assert (ROOT / path).exists(), path
    for name in ("load_installed", "collect", "make"):
        assert f"`PluginHost.{name}`" in PAGE
        function("cfs_core/pluginhost/load.py", f"PluginHost.{name}")
