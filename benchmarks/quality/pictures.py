"""A picture for each table of a page: its figures and their intervals as dots and bars on one logarithmic axis.

    python -m benchmarks.quality.pictures docs/quality.md docs/real-streams.md

The page says which tables have one: the table that stands before a line `![title](img/NAME.svg)`. Drawn are the columns with figures that
have an interval, `5.4 (4.1 to 7.0)` or `306 +- 23`; where a table has none, those of plain numbers; or those that the line names,
`![title](img/NAME.svg "column; column")`. What stands before the first of them names the row. A hollow dot: a part of what should be
found was missed.
"""

from __future__ import annotations

import html
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from driftline.streams.canvas import COLOURS

WIDTH: Final = 1_000
LEFT: Final = 380
RIGHT: Final = 30
ROW: Final = 12
GAP: Final = 9
LABEL_CHARS: Final = 62
_TOP: Final = 34

_NUMBER: Final = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?"
_FIGURE: Final = re.compile(
    rf"^(?:1 in \S+: )?(?P<value>{_NUMBER})"
    rf"(?: \((?P<low>{_NUMBER}) to (?P<high>{_NUMBER})\)| \+- (?P<error>{_NUMBER}))?(?P<rest>.*)$"
)
_PLAIN: Final = re.compile(rf"^{_NUMBER}%?$")
_IMAGE: Final = re.compile(r'^!\[(?P<title>[^]]+)\]\((?P<path>img/[\w./-]+\.svg)(?: "(?P<columns>[^"]+)")?\)$')


@dataclass(frozen=True, slots=True)
class Point:
    """A figure and its interval; `whole` is false where something was missed."""

    value: float
    low: float
    high: float
    whole: bool = True
    interval: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page, and the picture that it is to have; `columns`: those to draw, empty = as its figures say."""

    title: str
    path: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    columns: Sequence[str] = ()


def point_of(cell: str) -> Point | None:
    """What a cell says; None = no figure."""
    match = _FIGURE.match(cell)
    if match is None:
        return None
    value, low, high, error = (float(part.replace(",", "")) if part else None for part in match.group("value", "low", "high", "error"))
    assert value is not None
    whole = "missed" not in match["rest"]
    if low is not None and high is not None:
        return Point(value, low, high, whole)
    if error is not None:
        return Point(value, max(value - error, 0.0), value + error, whole)
    # Words after a number without an interval: the number is a part of a sentence.
    return Point(value, value, value, whole, interval=False) if _PLAIN.match(cell) or match["rest"].startswith(", ") else None


def drawn_columns(table: Table) -> list[int]:
    """Those that are named; else those with intervals; where none has any, those that are numbers throughout."""
    if table.columns:
        return [list(table.header).index(name) for name in table.columns]
    points = {c: [point_of(row[c]) for row in table.rows] for c in range(1, len(table.header))}
    with_intervals = [c for c, own in points.items() if any(one is not None and one.interval for one in own)]
    if with_intervals:
        return with_intervals
    return [c for c in points if all(_PLAIN.match(row[c]) or row[c] in ("", "-") for row in table.rows) and any(points[c])]


def labels_of(table: Table, first: int) -> list[str]:
    """What names the rows: texts before the first column that is drawn; numbers too where texts alone are not enough."""
    texts = [[cell for cell in row[:first] if cell and not _PLAIN.match(cell)] for row in table.rows]
    if len({tuple(words) for words in texts}) < len(texts):
        texts = [[f"{table.header[c]} {x}" if _PLAIN.match(x) else x for c, x in enumerate(row[:first]) if x] for row in table.rows]
    whole = [", ".join(words).replace("`", "").replace("*", "") for words in texts]
    return [text if len(text) <= LABEL_CHARS else text[: LABEL_CHARS - 1] + "…" for text in whole]


class Axis:
    """A logarithmic axis with a place for 0 at its left end."""

    def __init__(self, points: Sequence[Point]) -> None:
        positive = [x for one in points for x in (one.low, one.value, one.high) if x > 0]
        self.first = math.floor(math.log10(min(positive, default=1.0)))
        self.last = max(math.ceil(math.log10(max(positive, default=10.0))), self.first + 1)
        # Lower ends next to nothing would take half of the picture.
        values = [one.value for one in points if one.value > 0]
        self.first = max(self.first, math.floor(math.log10(min(values, default=1.0))) - 1)
        self.zero = any(one.value == 0 or one.low < 10.0**self.first for one in points)

    def x(self, value: float) -> float:
        """Pixels from the left; what lies below the first decade is at 0."""
        start = LEFT + (40 if self.zero else 0)
        if value < 10.0**self.first:
            return LEFT if self.zero else start
        return start + (math.log10(value) - self.first) / (self.last - self.first) * (WIDTH - RIGHT - start)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and names: powers of ten."""
        powers = [(self.x(10.0**k), f"{10.0**k:,.0f}" if k >= 0 else f"{10.0**k:.{-k}f}") for k in range(self.first, self.last + 1)]
        return ([(float(LEFT), "0")] if self.zero else []) + powers


def svg(table: Table) -> str:
    """The picture of a table.

    Raises
    ------
    ValueError : it has no figures
    """
    columns = drawn_columns(table)
    if not columns:
        raise ValueError(f'table "{table.title}" has no figures to draw')
    found = [[point_of(row[c]) for c in columns] for row in table.rows]
    axis = Axis([one for row in found for one in row if one is not None])
    height = ROW * len(columns) + GAP
    bottom = _TOP + 16 + height * len(found)
    parts = [_text(8, 18, table.title, "font-size=\"14\" font-weight=\"600\"")]
    for x, name in axis.ticks():
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(_text(x, bottom + 14, name, 'text-anchor="middle" fill="#555"'))
    names = labels_of(table, columns[0])
    for i, (row, points) in enumerate(zip(table.rows, found, strict=True)):
        top = _TOP + 10 + i * height
        parts.append(_text(LEFT - 14, top + height / 2 + 1, names[i], 'text-anchor="end"'))
        for k, (c, point) in enumerate(zip(columns, points, strict=True)):
            y, colour = top + ROW * k + 6, COLOURS[k % len(COLOURS)]
            if point is None:
                parts.append(_text(WIDTH - RIGHT, y + 3, row[c], f'text-anchor="end" fill="{colour}" font-size="9"') if row[c] else "")
                continue
            if point.interval:
                line = f'x1="{axis.x(point.low):.1f}" x2="{axis.x(point.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
                parts.append(f'<line {line} stroke="{colour}" stroke-width="2" stroke-opacity=".5"/>')
            fill = colour if point.whole else "#fff"
            dot = f'<circle cx="{axis.x(point.value):.1f}" cy="{y:.1f}" r="3.2" fill="{fill}" stroke="{colour}" stroke-width="1.4">'
            parts.append(f"{dot}<title>{html.escape(f'{table.header[c]}: {row[c]}')}</title></circle>")
    x = 8.0
    for k, c in enumerate(columns):
        colour, name = COLOURS[k % len(COLOURS)], table.header[c]
        parts.append(f'<circle cx="{x + 4}" cy="{bottom + 32}" r="3.2" fill="{colour}"/>')
        parts.append(_text(x + 12, bottom + 36, name, f'fill="{colour}"'))
        x += 30 + 6.2 * len(name)
    whole = bottom + 48
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(WIDTH, math.ceil(x))} {whole}" role="img" '
        f'font-family="system-ui,sans-serif" font-size="11"><title>{html.escape(table.title)}</title>'
        f'<rect width="{max(WIDTH, math.ceil(x))}" height="{whole}" fill="#fff"/>' + "\n".join(part for part in parts if part) + "</svg>\n"
    )


def tables(text: str) -> Iterator[Table]:
    """The tables of a page that are to have a picture."""
    lines: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif (match := _IMAGE.match(line)) and len(lines) > 2:
            named = [name.strip() for name in match["columns"].split(";")] if match["columns"] else []
            yield Table(match["title"], match["path"], lines[0], lines[2:], named)
            lines = []
        elif line:
            lines = []


def draw(page: Path) -> list[Path]:
    """Write the pictures of a page; their files."""
    written = []
    for table in tables(page.read_text(encoding="utf-8")):
        path = page.parent / table.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg(table), encoding="utf-8")
        written.append(path)
    return written


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(words)}</text>'


if __name__ == "__main__":
    for name in sys.argv[1:]:
        draw(Path(name))
