"""Who is trusted for what: each row of SECURITY.md names tests, and they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = [re.split(r" *\| ?", line.strip("|")) for line in TEXT.splitlines() if line.startswith("|")][2:]
ASKED = (
    "the image", "the image's GRUB", "the registry", "the token server", "a proxy", "other local users",
    "the repository", "a disk given to `status`, `repo fsck`, `prove`",
    "the current directory", "the environment", "plugins",
)  # fmt: skip


def test_everybody_has_a_row():
    assert [who for who in ASKED if who not in [row[0].strip() for row in ROWS]] == []
    assert {len(row) for row in ROWS} == {4}


def test_every_row_names_tests_that_are_there():
    for row in ROWS:
        named = re.findall(r"`([^`]+\.py)(?:::(\w+))?`", row[3])
        assert named, row[0]
        for file, test in named:
            text = (ROOT / file).read_text()
            assert not test or f"def {test}(" in text, (row[0], file, test)


def test_credentials_to_token_servers_are_told_in_the_same_way_twice():
    assert "token" in TEXT
    assert "a token server has to be named by the" in (ROOT / "docs/howto/private-registry.md").read_text()
