"""Kernel arguments from one deployment to the next: local ones stay, the image's follow the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

IDENTITY = frozenset({"composefs", "composefs.digest"})
"""Keys of the argument that names the image: each deployment has its own."""


def is_identity(word: str) -> bool:
    """Return whether *word* names an image."""
    return word.partition("=")[0] in IDENTITY


def next_arguments(
    running: Sequence[str], *, old_image: Sequence[str], new_image: Sequence[str], needed: Sequence[str]
) -> tuple[str, ...]:
    """Return the command line of a new deployment.

    *running* are the words of the deployment before; what *old_image* asked for and *new_image* does not goes, what
    only *new_image* asks for comes, all else stays in its place. *needed* are the words without which the new one does
    not start: that of the image takes the place of the old one.
    """
    identity = [word for word in needed if is_identity(word)]
    words: list[str] = []
    for word in running:
        if is_identity(word):
            words += [each for each in identity if each not in words]
        else:
            words.append(word)
    words += [each for each in identity if each not in words]
    for gone in [word for word in old_image if word not in new_image]:
        if gone in words:
            words.remove(gone)
    wanted = [word for word in new_image if word not in old_image]
    words += [word for word in (*wanted, *needed) if word not in words]
    return tuple(words)


def edited(
    words: Sequence[str], *, appended: Sequence[str] = (), deleted: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return *words* after a change by hand, and those of *deleted* that were not there.

    *deleted* are ``KEY`` (all of that key) or ``KEY=VALUE``; the word of the image stays, whoever asks.
    """
    left = list(words)
    missing = []
    for text in deleted:
        found = [word for word in left if _means(text, word) and not is_identity(word)]
        missing += [] if found else [text]
        left = [word for word in left if word not in found]
    left += [word for word in appended if word not in left]
    return tuple(left), tuple(missing)


def _means(text: str, word: str) -> bool:
    if "=" in text:
        return word.replace('"', "") == text.replace('"', "")
    return word.replace('"', "").partition("=")[0].replace("-", "_") == text.replace("-", "_")
