"""The written formats hold: their examples are computed again, and the code's pointers lead to headings."""

import re
from pathlib import Path

from cfs_core.plugin import HashAlgorithm
from cfs_storage_composefs.fsverity import digest_bytes

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/reference/formats"
HEADING = re.compile(r"^#+ ([A-F](?:\.\d+)*) ", re.MULTILINE)
POINTER = re.compile(r"\bformats ([A-F](?:\.\d+)*)\b")
EXAMPLE = re.compile(r"^\| (\d+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def test_examples_of_fs_verity_are_computed():
    examples = EXAMPLE.findall((PAGES / "a-fs-verity.md").read_text())
    assert [int(length) for length, _ in examples] == [0, 1, 4096, 4097, 128 * 4096 + 1]
    for length, digest in examples:
        assert digest_bytes(b"A" * int(length), HashAlgorithm.SHA256).hex() == digest


def test_pointers_into_the_written_pages_name_a_heading():
    text = "\n".join(page.read_text() for page in PAGES.glob("?-*.md"))
    headings = set(HEADING.findall(text))
    sources = [path for room in ("cfs_core", "plugins", "tests") for path in (ROOT / room).rglob("*.py")]
    pointers = {pointer for path in sources for pointer in POINTER.findall(path.read_text())}
    written = {heading[0] for heading in headings}
    assert pointers
    assert written
    assert {pointer for pointer in pointers if pointer[0] in written} <= headings
