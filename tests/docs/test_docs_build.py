"""The documentation is built without a warning, and its reference is that of the code."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cfs_core.plugin
from cfs_core import hookspecs
from cfs_core.config.keys import KEYS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def reference():
    """The generated pages by name."""
    sys.path.insert(0, str(DOCS))
    from generator.reference import every_page

    return every_page()


@pytest.mark.slow
def test_it_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="the group docs is not installed")
    done = subprocess.run(
        [
            sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
            "-d", tmp_path / "trees", DOCS, tmp_path / "html",
        ],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html/reference/generated/interfaces.html").read_text()
    assert [name for name in cfs_core.plugin.__all__ if name not in page] == []


def hook_functions():
    return [value for name, value in vars(hookspecs).items() if name.startswith("cfs_") and inspect.isfunction(value)]


@pytest.mark.parametrize("function", hook_functions(), ids=lambda function: function.__name__)
def test_the_exact_signature_of_each_hook_is_a_heading(function, reference):
    source = " ".join(inspect.getsource(function).split())
    exact = re.search(r"def (.*?):(?: #.*?)? \"\"\"", source)[1].replace("( ", "(").replace(", )", ")")
    assert f"\n## `{exact}`\n" in reference["hooks.md"]


def test_every_hook_is_in_the_diagram(reference):
    diagram = reference["hooks.md"].partition("```text")[2].partition("```")[0]
    assert len(hook_functions()) >= 11
    for function in hook_functions():
        assert diagram.count(function.__name__) == 1


def test_every_setting_is_described(reference):
    for key in KEYS:
        assert f"| `{key.name}` |" in reference["settings.md"]


def test_every_command_and_option_is_described(reference):
    done = subprocess.run(
        [sys.executable, "-m", "cfs_core", "install", "to-disk", "--help"], capture_output=True, text=True, check=True
    )
    text = reference["commands.md"].partition("## `cfs install to-disk`")[2].partition("\n## ")[0]
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", done.stdout.partition("Options:")[2])) - {"--help"}
    assert len(options) > 15
    assert {option for option in options if f"`{option}" not in text} == set()


@pytest.mark.parametrize("name", ["image.resolved", "layer.stored", "install.completed"])
def test_events_are_found_in_the_source(name, reference):
    assert f"| `{name}` |" in reference["events.md"]


def test_everything_that_is_emitted_has_a_meaning(reference):
    from generator import events, meanings

    assert set(meanings.EVENTS) == set(events.every_event())
    assert set(meanings.CODES) == set(events.every_code())
    assert set(meanings.LOGS) == set(events.every_log())
    assert "| Event | Meaning |" in reference["events.md"]


def test_log_lines_are_no_findings_and_no_code_is_left_out(reference):
    from generator import events

    assert "setting.ignored" in events.every_log()
    assert "setting.ignored" not in events.every_code()
    known = set(events.every_code()) | set(events.every_log())
    assert {"object.unreadable", "link.unreadable"} <= known


def test_codes_that_a_condition_chooses_are_found(reference):
    from generator import events

    lines = (
        "def f():",
        'code = "a.b" if x else "a.c"',
        'error(code, "a message.")',
        'Problem(code="d.e" if y else "d.f")',
    )
    (scope,) = events._scopes(ast.parse("\n    ".join(lines)))
    chosen = events._assigned(scope)
    found = {code for call in events._calls(scope) for code in events._codes(call, chosen)}
    assert found == {"a.b", "a.c", "d.e", "d.f"}


def test_status_1_is_for_what_cfs_cannot_explain(reference):
    assert "| 1 | `internal` | A fault in cfs itself:" in reference["errors.md"]


def test_errors_of_plugins_are_in_the_table(reference):
    assert "| `transport.cannot-resume` | `CannotResumeError` | 6 |" in reference["errors.md"]
    assert "| `storage.locked` |" in reference["errors.md"]
    assert "`cfs_storage_composefs`" in reference["errors.md"]


def test_decisions_have_their_own_numbers():
    numbers = {}
    for path in sorted((DOCS / "adr").glob("[0-9]*.md")):
        heading = path.read_text().partition("\n")[0]
        number = int(path.name[:4])
        assert re.match(rf"# {number}\. \S", heading), f"{path.name} is headed {heading!r}"
        assert number not in numbers, f"{path.name} and {numbers[number]} have one number"
        numbers[number] = path.name
    assert len(numbers) >= 9


def test_no_page_is_left_out():
    linked = set(re.findall(r"^([\w/-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.glob("*/*.md")}
    pages |= {path.stem for path in DOCS.glob("*.md")}
    pages = {page for page in pages if not page.startswith(("adr/0", "_build", "examples/"))}
    assert pages - linked == {"index"}
