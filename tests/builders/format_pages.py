"""The pages on formats, and the image that their worked examples are about."""

import io
import re
import tarfile
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs/reference/formats"
ROW = re.compile(r"^\| (\d+) \| `([0-9a-f ]+)` \| ", re.MULTILINE)
"""Offset and bytes, in a table of an example."""

_ENTRY = re.compile(r"^\| (\d) \| `(.+?)` \| (.+?) \| *(\d*) *\| *([\d.]*) *\| *(.*?) *\|$", re.MULTILINE)
_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
}


def section(page, heading):
    """Return what stands below the heading of this number."""
    found = re.search(rf"^## {re.escape(heading)} .*?(?=^## |\Z)", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {heading}"
    return found[0]


def texts(page, heading):
    """Return the text blocks of a section."""
    return re.findall(r"```text\n(.*?)```", section(page, heading), re.DOTALL)


def layer(number):
    """Write one layer of the image of E.8 as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for which, path, what, mode, mtime, rest in _ENTRY.findall(section("e-boot.md", "E.8")):
            if int(which) != number:
                continue
            entry = tarfile.TarInfo(path)
            entry.type, text = _TYPES[what], rest
            entry.mode = int(mode or "0", 8)
            entry.pax_headers = {"mtime": mtime} if mtime else {}
            data = b""
            if what in {"link", "hard link"}:
                entry.linkname = text.strip("`")
            elif path.endswith("/ping"):
                pairs = (pair.split("=") for pair in text.strip("`").split())
                entry.pax_headers |= {f"SCHILY.xattr.{name}": value for name, value in pairs}
            elif text == "the text below":
                data = texts("e-boot.md", "E.8")[0].encode()
            elif text == "`x` a hundred times":
                data = b"x" * 100
            elif text:
                data = text.strip("`").encode() + b"\n"
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()
