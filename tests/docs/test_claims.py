"""Every claim of the README names a test or benchmark, and what is named exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CLAIMS = (ROOT / "docs/claims.md").read_text()
BEGINNING = "The beginning"
ROW = re.compile(r"^\| (.*?) ?\|", re.MULTILINE)
POINTERS = (
    "It is for people who build",
    "On a fresh Debian machine",
    "Both install what they need",
    "`make test-quick`",
    "What else it takes",
    "Which of it is shown",
    "`SOURCE` is",
    "Read [the decisions]",
    "Benchmarks: `make bench`",
    "The documentation is in",
    "Tests passed with the lowest",
    "Or start with one of the three",
    "Licence:",
)
"""How sentences begin that tell readers where to look, and claim nothing."""


def sections(text, first):
    """Return sections by title, what is before the first one under *first*, without code."""
    text = re.sub(r"^```.*?^```$|^    [^\n]*$|^<!--.*?-->$", "", text, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {first: parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def one_line(text):
    return " ".join(text.split())


def sentences(text):
    """Split prose at the ends of its sentences; tables and headings are left out."""
    for paragraph in re.split(r"\n\n|\n(?=- )", re.sub(r"^(\||#).*$", "", text, flags=re.MULTILINE)):
        for sentence in re.split(r"(?<=\.) (?=[A-Z`\[])", one_line(paragraph).removeprefix("- ")):
            if sentence:
                yield sentence


def first_cells(text):
    return [row for row in ROW.findall(text) if row and not set(row) <= set("- ")]


def claimed():
    """Return the claims in docs/claims.md by section of the README."""
    return {
        title: [cell for cell in first_cells(text) if cell != "Claim"] for title, text in sections(CLAIMS, "").items()
    }


def bold_claims():
    return [match.rstrip(".") for match in re.findall(r"^- \*\*(.+?)\*\*", README, re.MULTILINE)]


def every_row():
    for title, text in sections(README, BEGINNING).items():
        headings = re.findall(r"^\| (\S.*?) \|.*\n\|---", text, re.MULTILINE)
        for cell in first_cells(text.partition("\n| Package |")[0]):  # that is the matrix
            if cell not in headings:
                yield pytest.param(title, cell, id=f"{title}: {cell[:40]}")


def every_sentence():
    for title, text in sections(README, BEGINNING).items():
        for sentence in sentences(text):
            if not sentence.startswith(POINTERS):
                yield pytest.param(title, sentence, id=f"{title}: {sentence[:40]}")


def test_the_readme_has_claims():
    assert len(bold_claims()) >= 5
    assert len(list(every_sentence())) >= 15


@pytest.mark.parametrize("claim", bold_claims())
def test_each_bold_claim_of_the_readme_is_in_the_table(claim):
    assert claim in claimed()["What it does for you"]


@pytest.mark.parametrize(("title", "cell"), list(every_row()))
def test_each_row_of_the_readme_is_in_the_table(title, cell):
    assert cell in claimed()[title]


@pytest.mark.parametrize(("title", "sentence"), list(every_sentence()))
def test_each_sentence_of_the_readme_has_a_claim(title, sentence):
    """A part of it is in the table; what only points somewhere is listed above."""
    assert [claim for claim in claimed().get(title, ()) if claim in sentence]


@pytest.mark.parametrize("title", claimed())
def test_what_is_in_the_table_is_claimed(title):
    text = one_line(sections(README, BEGINNING).get(title, ""))
    assert [claim for claim in claimed()[title] if claim not in text] == []


def named():
    found = re.findall(r"`((?:tests|plugins|benchmarks)/[^`]*?\.py(?:::\w+)?)`", CLAIMS)
    return sorted(set(found))


@pytest.mark.parametrize("name", named())
def test_what_is_named_exists(name):
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    if function:
        tree = ast.parse((ROOT / path).read_text())
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_no_row_is_without_proof():
    for line in CLAIMS.splitlines():
        if line.startswith("| ") and "---" not in line and not line.startswith("| Claim"):
            assert re.search(r"`(tests|plugins|benchmarks)/", line), line


def test_the_matrix_names_every_package():
    packages = {"core"} | {
        path.parent.relative_to(ROOT / "plugins").as_posix() for path in (ROOT / "plugins").glob("**/pyproject.toml")
    }
    table = README.partition("\n| Package |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| (\S+) \| (.*) \|$", table, re.MULTILINE))
    rows.pop("---", None)
    assert set(rows) == packages
    assert not any("failed" in cells for cells in rows.values())
    assert all(re.search(r"\d+ / \d+", cells) for cells in rows.values())
