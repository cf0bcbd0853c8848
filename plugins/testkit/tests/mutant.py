"""One wrong plugin: a complete project with a few words changed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``edits`` are (file, old, new); ``base`` come before them. ``also`` lists checks that cannot help failing too."""

    fault: str
    check: str
    edits: tuple
    also: tuple = ()
    base: tuple = ()


def mutant(fault, check, *edits, also=(), base=()):
    return Mutant(fault, f"test_{check}", edits, tuple(f"test_{name}" for name in also), base)
