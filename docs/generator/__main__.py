"""Write the man pages, or say with ``--check`` which are out of date: ``PYTHONPATH=docs python -m generator``."""

from __future__ import annotations

import sys

from generator.distributions import ROOT
from generator.manpages import every_page, kept_pages


def stale() -> list[str]:
    """Return what would change, as lines for people."""
    wanted = every_page()
    wrong = [
        f"{path.relative_to(ROOT)} is {'out of date' if path.exists() else 'missing'}"
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    return wrong + [f"{path.relative_to(ROOT)} has no command" for path in sorted(kept_pages() - set(wanted))]


def write() -> None:
    """Bring the pages up to date."""
    wanted = every_page()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in kept_pages() - set(wanted):
        path.unlink()


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        found = stale()
        sys.exit("\n".join([*found, "run `make man`"]) if found else 0)
    write()
