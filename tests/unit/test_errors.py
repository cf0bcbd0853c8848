"""Error classes: unique codes, exit statuses as documented, nothing that shadows Python's own."""

import ast
import inspect
import re

import pytest

from cfs_core import errors
from cfs_core.errors import CfsError
from cfs_core.model.event import Event


def every(kind=CfsError):
    """Error classes that core defines, not those plugins add."""
    yield kind
    for child in kind.__subclasses__():
        yield from every(child)


CLASSES = [kind for kind in every() if kind.__module__.startswith("cfs_core.")]

EXIT_STATUSES = {
    "internal": 1,
    "usage": 2,
    "config": 3,
    "plugin": 4,
    "refused": 5,
    "transport": 6,
    "verification": 7,
    "image": 8,
    "storage": 9,
    "disk": 10,
    "boot": 11,
    "state": 12,
    "command": 13,
    "host": 14,
}


def test_the_exit_statuses_are_the_documented_ones():
    top = {kind.code: kind.exit_status for kind in CLASSES if "." not in kind.code}
    assert top == EXIT_STATUSES


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_codes_are_words_and_the_first_says_the_exit_status(kind):
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*(\.[a-z]+(-[a-z]+)*)?", kind.code)
    assert EXIT_STATUSES[kind.code.partition(".")[0]] == kind.exit_status
    assert kind.__name__.endswith("Error")
    assert kind.__doc__


def test_codes_are_unique():
    own = [kind.code for kind in CLASSES if "code" in vars(kind)]
    assert len(own) == len(set(own))
    assert len({kind.__name__ for kind in CLASSES}) == len(CLASSES)


def test_an_error_carries_message_hint_and_facts():
    error = errors.DiskFullError("no room", hint="make some", facts={"needed": 3, "available": 2})
    assert str(error) == "no room"
    assert (error.message, error.hint, error.facts) == ("no room", "make some", {"needed": 3, "available": 2})
    assert isinstance(error, errors.DiskError)


def test_error_names_of_the_author_surface_are_complete():
    from cfs_core import plugin

    here = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, CfsError)}
    assert here <= set(plugin.__all__)


def test_the_module_holds_classes_and_nothing_else():
    tree = ast.parse(inspect.getsource(errors))
    assert {type(node) for node in tree.body} <= {ast.ClassDef, ast.Import, ast.ImportFrom, ast.Expr, ast.If}


@pytest.mark.parametrize("name", ["code", "event", "message", "hint", "self", "msg", "level", "exc_info"])
def test_any_name_is_one_for_a_fact(name, capsys):
    from cfs_core.app.app import App
    from cfs_core.cli.main import show

    for as_json in (True, False):
        app = App({})
        app.configure(log_level="debug", log_as_json=as_json)
        show(errors.ImageError("it is so", facts={name: "planted"}), app)
        app.emit(Event(name="layer.stored", facts={name: "planted"}))
    told = capsys.readouterr().err
    assert told.count("error: it is so [image]") == 2
    assert told.count("planted") == 4


def test_a_code_may_say_more_than_the_class():
    assert errors.ImageError("no", code="image.sealed").code == "image.sealed"
    assert errors.ImageError("no").code == "image"
