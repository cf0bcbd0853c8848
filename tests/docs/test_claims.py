"""Every claim of the README names a test or benchmark, and what is named exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (.*?) ?\|", re.MULTILINE)


def section(text, title):
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def named():
    found = re.findall(r"`((?:tests|plugins|benchmarks)/[^`]*?\.py(?:::\w+)?)`", (ROOT / "docs/claims.md").read_text())
    return sorted(set(found))


def readme_claims():
    text = (ROOT / "README.md").read_text()
    bold = re.findall(r"^- \*\*(.+?)\.\*\*", section(text, "What it does for you"), re.MULTILINE)
    rows = [row.strip() for row in ROW.findall(section(text, "What works today")) if row.strip()]
    return bold + rows


def test_the_readme_has_claims():
    assert len(readme_claims()) >= 10


@pytest.mark.parametrize("claim", readme_claims())
def test_each_claim_of_the_readme_is_in_the_table(claim):
    first_cells = {row.strip() for row in ROW.findall((ROOT / "docs/claims.md").read_text())}
    assert claim in first_cells


@pytest.mark.parametrize("name", named())
def test_what_is_named_exists(name):
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    if function:
        tree = ast.parse((ROOT / path).read_text())
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_no_row_is_without_proof():
    for line in (ROOT / "docs/claims.md").read_text().splitlines():
        if line.startswith("| ") and "---" not in line and not line.startswith("| Claim"):
            assert re.search(r"`(tests|plugins|benchmarks)/", line), line
