"""Drawing: lanes over one time axis as SVG, and the page around them; no script, no network.

Who draws says what a line means; `picture.py` draws a run from its topics, `driftline/backtest/page.py` a backtest.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

WIDTH: Final = 1180
LEFT: Final = 300
RIGHT: Final = 24
LANE: Final = 120
GAP: Final = 34
ROW: Final = 22
LABEL_CHARS: Final = 46
TICKS: Final = 4
"""Parts of the time axis: with more, the last two labels touch."""
POINTS_DRAWN: Final = 600
"""Per line; more than a pixel column each cannot be seen."""
POINTS_MARKED: Final = 12
"""A line of so few has a dot at each: of one there is nothing else to see, and of two that stand close little."""

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SEVERITY_COLOURS: Final = {"info": "#56B4E9", "warning": "#E69F00", "critical": "#D55E00"}


@dataclass(frozen=True, slots=True)
class Band:
    """A known change to shade: from when to when, and its words."""

    start_ms: int
    stop_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Episode:
    """One series off its baseline, from its drift event to its recovery (or to the end)."""

    label: str
    start_ms: int
    stop_ms: int
    ended: bool
    severity: str
    detectors: tuple[str, ...]
    effect: float | None
    delay_text: str


class Canvas:
    """Places lanes from top to bottom over one time axis."""

    def __init__(self, start: int, end: int) -> None:
        self._start = start
        self._end = end
        self._top = 60
        self._parts: list[str] = []

    def x(self, time_ms: float) -> float:
        share = (time_ms - self._start) / (self._end - self._start)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    def lane(self, name: str, lines: Mapping[str, list[tuple[int, float]]], *, zero: bool = False, limit: float | None = None) -> None:
        """A chart of lines with a scale of its own; the legend stands at the left."""
        values = [v for line in lines.values() for _, v in line] + ([0.0] if zero else []) + ([limit, 0.0] if limit is not None else [])
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        high = low + 1.0 if high - low < 1e-9 else high
        top, bottom = self._top, self._top + LANE

        def scale(value: float) -> float:
            return bottom - (value - low) / (high - low) * (bottom - top)

        self._parts.append(f'<text x="8" y="{top + 12}" font-weight="600">{html.escape(name)}</text>')
        self._parts.append(
            f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{LANE}" fill="none" stroke="#999" stroke-width=".5"/>'
        )
        for value in (low, high):
            self._parts.append(f'<text x="{LEFT - 6}" y="{scale(value) + 4:.1f}" text-anchor="end" fill="#555">{value:.3g}</text>')
        for value in [0.0] * zero + ([limit] if limit is not None else []):
            dash = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{scale(value):.1f}" y2="{scale(value):.1f}"'
            self._parts.append(f'<line {dash} stroke="#777" stroke-dasharray="4 3"/>')
        for number, (label, line) in enumerate(lines.items()):
            colour = COLOURS[number % len(COLOURS)]
            step = max(1, len(line) // POINTS_DRAWN)
            path = " ".join(f"{self.x(t):.1f},{scale(v):.1f}" for t, v in line[::step])
            self._parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
            if len(line) <= POINTS_MARKED:
                self._parts += [f'<circle cx="{self.x(t):.1f}" cy="{scale(v):.1f}" r="2.5" fill="{colour}"/>' for t, v in line]
            self._parts.append(f'<text x="14" y="{top + 30 + 15 * number}" fill="{colour}">{html.escape(short(label))}</text>')
        if not lines:
            self._parts.append(f'<text x="{LEFT + 10}" y="{(top + bottom) / 2}" fill="#777">no data</text>')
        self._top = bottom + GAP

    def marks(self, at: Sequence[tuple[int, str, str]]) -> None:
        """A vertical line through all lanes so far at each (time, severity, words); the words show when it is pointed at."""
        for time_ms, severity, text in at:
            x = f"{self.x(time_ms):.1f}"
            line = f'x1="{x}" x2="{x}" y1="57" y2="{self._top - GAP}" stroke="{SEVERITY_COLOURS[severity]}" stroke-width="1.6"'
            self._parts.append(f"<line {line}><title>{html.escape(text)}</title></line>")
            self._parts.append(f'<circle cx="{x}" cy="57" r="3.5" fill="{SEVERITY_COLOURS[severity]}"/>')

    def episodes(self, rows: Sequence[Episode], *, omitted: int) -> None:
        """One bar an episode, from detection to recovery; an open one ends in an arrow."""
        self._parts.append(f'<text x="8" y="{self._top + 4}" font-weight="600">drift events</text>')
        top = self._top + 14
        for number, row in enumerate(rows):
            y = top + number * ROW
            left, right = self.x(row.start_ms), max(self.x(row.stop_ms), self.x(row.start_ms) + 3)
            colour = SEVERITY_COLOURS[row.severity]
            detail = f"{row.label}: {row.severity}, {', '.join(row.detectors)}" + (
                "" if row.effect is None else f", effect {row.effect:.3g}"
            )
            self._parts.append(f'<text x="14" y="{y + 11}">{html.escape(short(row.label))}</text>')
            box = f'x="{left:.1f}" y="{y}" width="{right - left:.1f}" height="13" rx="2"'
            self._parts.append(f'<rect {box} fill="{colour}"><title>{html.escape(detail)}</title></rect>')
            mark = "◀ recovered" if row.ended else "▶ open"
            inside = right + 70 > WIDTH - RIGHT
            place = f'x="{right - 4:.1f}" text-anchor="end" fill="#fff"' if inside else f'x="{right + 4:.1f}" fill="#555"'
            if not inside or right - left > 70:
                self._parts.append(f'<text {place} y="{y + 11}" font-size="10">{mark}</text>')
        if omitted > 0:
            self._parts.append(f'<text x="14" y="{top + len(rows) * ROW + 11}" fill="#555">and {omitted} more of lower severity</text>')
            top += ROW
        if not rows:
            self._parts.append(f'<text x="{LEFT + 10}" y="{top + 11}" fill="#777">none</text>')
        self._top = top + max(len(rows), 1) * ROW + 10

    def finish(self, title: str, bands: Sequence[Band]) -> str:
        height = self._top + 40
        shades = []
        for number, band in enumerate(bands):
            left, right = self.x(band.start_ms), self.x(band.stop_ms)
            # Two heights in turn: neighbouring labels are wider than the time between their changes.
            y = 47 - 13 * (number % 2)
            shades.append(
                f'<rect x="{left:.1f}" y="50" width="{right - left:.1f}" height="{self._top - 50}" fill="#bbb" fill-opacity=".25"/>'
            )
            shades.append(f'<text x="{left + 3:.1f}" y="{y}" font-size="10" fill="#444">{html.escape(band.text)}</text>')
        ticks = []
        for number in range(TICKS + 1):
            time_ms = self._start + (self._end - self._start) * number / TICKS
            anchor = "end" if number == TICKS else "middle"
            place = f'x="{self.x(time_ms):.1f}" y="{self._top + 16}" text-anchor="{anchor}"'
            ticks.append(f'<text {place} fill="#555">{clock(time_ms)}</text>')
        name = html.escape(title)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'font-family="system-ui,sans-serif" font-size="11"><title>{name}</title>'
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
            f'<text x="8" y="22" font-size="16" font-weight="600">{name}</text>' + "".join(shades + self._parts + ticks) + "</svg>"
        )


def short(label: str) -> str:
    """A label that fits beside the lanes; the middle goes, since both ends tell series apart."""
    return label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 19] + "…" + label[-18:]


def clock(time_ms: float) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def page(title: str, body: str) -> str:
    """One self-contained page; `body` is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>body{{font:14px/1.5 system-ui,sans-serif;margin:2rem;max-width:{WIDTH}px}}"
        "table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #ccc;text-align:left}"
        "td:not(:last-child){white-space:nowrap}"
        "svg{max-width:100%;height:auto}"
        f"</style></head><body><h1>{html.escape(title)}</h1>{body}</body></html>"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{cells}</table>"
