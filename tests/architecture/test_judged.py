"""No image comes in or goes on unjudged: what fetches and copies is called where only judged images get."""

import ast
from pathlib import Path

CORE = Path(__file__).parents[2] / "cfs_core"
CALLERS = {
    "pull_layers": {"deploy/pull.py", "image/source.py"},  # source.py measures, in a repository that goes away
    "copy_image": {"deploy/pull.py"},
    "JudgedImage": {"deploy/judge.py"},
    "JudgedSource": {"deploy/judge.py"},
}


def test_only_judged_images_are_fetched_and_copied():
    found = {name: set() for name in CALLERS}
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in found:
                found[node.func.id].add(path.relative_to(CORE).as_posix())
    assert found == CALLERS
