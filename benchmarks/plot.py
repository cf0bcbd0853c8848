"""Bar charts as SVG, with nothing but text: groups side by side, one bar in them for each program."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLOURS = ("#3b6ea5", "#d08a2e", "#5a9367", "#9c5a8b")
BAR, GAP, LEFT, TOP, HEIGHT = 34, 26, 60, 56, 240
STEPS = 4


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return the chart of ``{group: {program: value}}``; the axis begins at 0."""
    names: Sequence[str] = list(dict.fromkeys(name for group in groups.values() for name in group))
    highest = max((value for group in groups.values() for value in group.values()), default=1.0) or 1.0
    width = LEFT + sum(len(group) * BAR + GAP for group in groups.values()) + GAP
    scale = HEIGHT / highest
    out = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HEIGHT + 40}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f"<title>{escape(title)}</title>",
        f'<text x="8" y="18" font-size="14">{escape(title)}</text>',
    ]
    for number, name in enumerate(names):
        at = LEFT + number * 150
        out.append(f'<rect x="{at}" y="28" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>')
        out.append(f'<text x="{at + 17}" y="39">{escape(name)}</text>')
    for step in range(STEPS + 1):
        y = TOP + HEIGHT - HEIGHT * step / STEPS
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{width - 8}" y2="{y:.1f}" stroke="#ccc"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{highest * step / STEPS:.3g}</text>')
    out.append(f'<text x="8" y="{TOP + HEIGHT + 20}">{escape(unit)}</text>')
    x = float(LEFT + GAP)
    for title_of_group, group in groups.items():
        middle = x + len(group) * BAR / 2
        for name, value in group.items():
            top = TOP + HEIGHT - value * scale
            colour = COLOURS[names.index(name) % len(COLOURS)]
            out.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{BAR - 4}" height="{value * scale:.1f}" fill="{colour}"/>'
            )
            out.append(f'<text x="{x + BAR / 2 - 2:.1f}" y="{top - 4:.1f}" text-anchor="middle">{value:.1f}</text>')
            x += BAR
        out.append(
            f'<text x="{middle:.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{escape(title_of_group)}</text>'
        )
        x += GAP
    return "\n".join([*out, "</svg>", ""])


def write_bars(path: Path, title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Write the chart of `bars` to a file."""
    path.write_text(bars(title, unit, groups), encoding="utf-8")
