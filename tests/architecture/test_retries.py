"""A test may be tried again only where it is marked for it, with the reason."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {"tests/system/conftest.py", "plugins/disk/tests/test_disk_kernel_vm.py"}
"""What boots emulated machines. A test that kills a process asserts what holds at any moment: it has no second try."""


def test_nothing_is_retried_that_is_not_marked():
    for file in ("Makefile", "noxfile.py", "pyproject.toml", ".ci/run"):
        assert "--reruns" not in (ROOT / file).read_text()


def test_each_mark_says_why():
    found = {}
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "plugins").rglob("tests/**/*.py")]:
        tree = ast.parse(path.read_text())
        calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "flaky":
                found.setdefault(path.relative_to(ROOT).as_posix(), []).append(calls.get(node))
    assert set(found) == ALLOWED
    for call in (each for calls in found.values() for each in calls):
        assert call is not None, "without a reason"
        assert call.args == []
        assert [keyword.arg for keyword in call.keywords] == ["reason"]
        assert len(ast.literal_eval(call.keywords[0].value)) > 30


@pytest.mark.parametrize(
    ("mark", "status", "said"), [("", 1, "1 failed"), ("@pytest.mark.flaky(reason='x')", 0, "1 rerun")]
)
def test_the_mark_is_what_gives_a_second_try(mark, status, said, tmp_path):
    pytest.importorskip("pytest_rerunfailures")
    (tmp_path / "test_once.py").write_text(
        f"import pathlib, pytest\n{mark}\ndef test_once():\n"
        "    there = pathlib.Path('there').exists()\n    pathlib.Path('there').touch()\n    assert there\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "test_once.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout
