"""What differs between two trees in their text form (composefs-dump(5)), in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.model.content import read_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.interfaces.storage import TreeReader

FIELDS = ("size", "mode", "nlink", "uid", "gid", "rdev", "mtime", "payload", "content", "digest")
"""The columns after the path; extended attributes follow them."""


def sealed_dump(image: TreeReader, uki_name: str) -> list[str] | None:
    """Return the text that a sealer left of what was sealed, by lines; None if there is none (formats E.7)."""
    for name in (uki_name, uki_name.removesuffix(".efi")):
        content = image.content(f"/boot/{name}.dump")
        if content is not None:
            return read_all(content).decode("utf-8", "surrogateescape").splitlines()
    return None


def differences(expected: Iterable[str], found: Iterable[str]) -> Iterator[str]:
    """Yield a line for each path that differs, by path: what was *expected*, and what was *found* in its place."""
    ours, theirs = (
        dict(line.rstrip("\n").split(" ", 1) for line in lines if " " in line) for lines in (found, expected)
    )
    for path in sorted(ours.keys() | theirs.keys()):
        if path not in ours:
            yield f"{path}: is missing"
        elif path not in theirs:
            yield f"{path}: was not there"
        elif ours[path] != theirs[path]:
            yield f"{path}: {', '.join(_fields(theirs[path], ours[path]))}"


def _fields(expected: str, found: str) -> Iterator[str]:
    before, after = expected.split(" "), found.split(" ")
    for name, old, new in zip(FIELDS, before, after, strict=False):
        if old != new:
            yield f"{name} {old:.40} is {new:.40}"
    old_attributes, new_attributes = (set(words[len(FIELDS) :]) for words in (before, after))
    for text in sorted(old_attributes - new_attributes):
        yield f"attribute {text.partition('=')[0]:.80} differs or is missing"
    for text in sorted(new_attributes - old_attributes):
        if text.partition("=")[0] not in {each.partition("=")[0] for each in old_attributes}:
            yield f"attribute {text.partition('=')[0]:.80} was not there"
