"""The intended use of `cfs_core.plugin` passes mypy --strict, and wrong use does not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AUTHOR = Path(__file__).with_name("plugin_author.py")

WRONG = {
    "text for a location": ("location=place", 'location="ESP:/x"', "arg-type"),
    "no schemes": (', schemes=("shelf",)', "", "call-arg"),
    "a method left out": ("    def read_menu", "    def read_the_menu", "abstract"),
    "a verdict that is none": ("return InitramfsVerdict(supported=None)", "return None", "return-value"),
    "facts are frozen": ("    return Shelf()", '    context.provider = "x"\n    return Shelf()', "misc"),
    "a name that is not exported": ("    Action,\n", "    Action,\n    PluginHost,\n", "attr-defined"),
}


def mypy(folder, *files):
    pytest.importorskip("mypy")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", folder / "cache", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout


@pytest.mark.slow
def test_what_authors_write_is_right_and_mistakes_are_found(tmp_path):
    changed = {}
    for number, (case, (old, new, code)) in enumerate(WRONG.items()):
        text = AUTHOR.read_text()
        assert text.count(old) == 1, case
        changed[tmp_path / f"wrong_{number}.py"] = (case, code)
        (tmp_path / f"wrong_{number}.py").write_text(text.replace(old, new))
    found = mypy(tmp_path, AUTHOR, *changed)
    assert f"{AUTHOR.name}:" not in found, found
    for path, (case, code) in changed.items():
        assert [line for line in found.splitlines() if path.name in line and f"[{code}]" in line], f"{case}\n{found}"
