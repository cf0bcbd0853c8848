"""The written formats hold: their examples are computed again, and the code's pointers lead to headings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cfs_core.plugin import Directory, FormatVersion, HashAlgorithm, RegularFile
from cfs_disk.ext4.placement import placement
from cfs_storage_composefs.erofs.write import write_erofs
from cfs_storage_composefs.fsverity import digest_bytes

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/reference/formats"
HEADING = re.compile(r"^#+ ([A-F](?:\.\d+)*) ", re.MULTILINE)
NAME = re.compile(r"\b[A-Z](?:\.\d+)?(?![\w.]*\w)")
POINTER = re.compile(r"\bformats ([A-Z](?:\.\d+)?(?:(?:, | and | to )[A-Z](?:\.\d+)?)*)(?![\w.]*\w)")
SECTION = re.compile(r"\b[A-G]\.\d+\b")
KINDS = {".py", ".md", ".toml", ".sh", ""}
PLACED = re.compile(r"^\| (\d+) \| (SHA-\d+) \| ?([\d, ]*) ?\| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
EXAMPLE = re.compile(r"^\| (\d+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def test_examples_of_fs_verity_are_computed():
    examples = EXAMPLE.findall((PAGES / "a-fs-verity.md").read_text())
    assert [int(length) for length, _ in examples] == [0, 1, 4096, 4097, 128 * 4096 + 1]
    for length, digest in examples:
        assert digest_bytes(b"A" * int(length), HashAlgorithm.SHA256).hex() == digest


def test_places_on_ext4_are_computed():
    rows = PLACED.findall((PAGES / "a-fs-verity.md").read_text())
    assert len(rows) == 5
    for size, hash_name, levels, start, descriptor, end in rows:
        found = placement(int(size), HashAlgorithm(hash_name.lower().replace("-", "")))
        counts = [count for _, count in reversed(found.levels)]
        assert counts == [int(count) for count in levels.split(",") if count.strip()]
        assert (found.start, found.descriptor, found.end) == (int(start), int(descriptor), int(end))


def test_every_pointer_names_a_heading():
    text = "\n".join(page.read_text() for page in PAGES.glob("?-*.md"))
    headings = set(HEADING.findall(text))
    assert {heading[0] for heading in headings} == set("ABCDEF")
    found = {
        (path.relative_to(ROOT), name) for path in sources() for name in pointers(path.read_text(errors="replace"))
    }
    assert len(found) > 40
    assert {(str(path), name) for path, name in found if name not in headings} == set()


def test_references_inside_the_pages_name_a_heading():
    pages = [*PAGES.glob("*.md"), PAGES / "three_files.py"]
    headings = {heading for page in pages for heading in HEADING.findall(page.read_text())}
    found = {(page.name, name) for page in pages for name in SECTION.findall(page.read_text())}
    assert len(found) > 60
    assert {(page, name) for page, name in found if name not in headings} == set()


def test_headings_are_there_once_and_in_order():
    for page in PAGES.glob("?-*.md"):
        letter = page.name[0].upper()
        found = HEADING.findall(page.read_text())
        assert found == [letter, *(f"{letter}.{number}" for number in range(1, len(found)))]


def sources():
    """Return what may point into the pages: code, tests, pages, scripts, but not these tests."""
    rooms = ("cfs_core", "plugins", "tests", "docs", "demo", "benchmarks")
    found = {path for room in rooms for path in (ROOT / room).rglob("*") if path.is_file()}
    skipped = {"_build", "generated", "__pycache__"}
    return {path for path in found if path.suffix in KINDS and not skipped & set(path.parts) and path != Path(__file__)}


def pointers(text):
    """Return the headings that *text* names: "formats B.3, B.4" has two, "formats F.4 to F.7" the ends."""
    return {name for listed in POINTER.findall(text) for name in NAME.findall(listed)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(formats B.3, B.4)", {"B.3", "B.4"}),
        ("(formats F.4 to F.7).", {"F.4", "F.7"}),
        ("as formats C and E.2 say", {"C", "E.2"}),
        ("of unknown formats A.B", set()),
        ("the formats Apt knows", set()),
        ("formats G.1", {"G.1"}),
    ],
)
def test_pointers_are_found(text, found):
    assert pointers(text) == found


def test_script_of_the_pages_gives_the_writers_digest():
    root = Directory(0o755)
    for name, data in {b"hello": b"hello\n", b"world": b"w" * 64, b"zero": b""}.items():
        file = RegularFile(0o644)
        file.size, file.data = len(data), data
        root.entries[name] = file
    expected = digest_bytes(write_erofs(root, FormatVersion.V1, HashAlgorithm.SHA256), HashAlgorithm.SHA256)
    command = [sys.executable, "-I", str(PAGES / "three_files.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected.hex()
