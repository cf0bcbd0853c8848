"""The written formats hold: their examples are computed again, and the code's pointers lead to headings."""

import re
import subprocess
import sys
from pathlib import Path

from cfs_core.plugin import Directory, FormatVersion, HashAlgorithm, RegularFile
from cfs_storage_composefs.erofs.write import write_erofs
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


def test_script_of_the_pages_gives_the_writers_digest():
    root = Directory(0o755)
    for name, data in {b"hello": b"hello\n", b"world": b"w" * 64, b"zero": b""}.items():
        file = RegularFile(0o644)
        file.size, file.data = len(data), data
        root.entries[name] = file
    expected = digest_bytes(write_erofs(root, FormatVersion.V1, HashAlgorithm.SHA256), HashAlgorithm.SHA256)
    command = [sys.executable, "-I", str(PAGES / "three_files.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected.hex()
