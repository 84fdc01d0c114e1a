"""One picture of a run, made from the topics alone: score, error, statistics and drift events on a time axis.

`render_svg` draws it, `render_html` wraps it in one self-contained page (no script, no network) with a table of
the same facts for readers who do not see the picture.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

Json = Mapping[str, Any]

WIDTH: Final = 1180
LEFT: Final = 300
RIGHT: Final = 24
LANE: Final = 120
GAP: Final = 34
ROW: Final = 22
LABEL_CHARS: Final = 46
SERIES_DRAWN: Final = 6
EPISODES_DRAWN: Final = 40
POINTS_DRAWN: Final = 600
"""Per line; more than a pixel column each cannot be seen."""

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SEVERITY_COLOURS: Final = {"info": "#56B4E9", "warning": "#E69F00", "critical": "#D55E00"}
SEVERITY_RANK: Final = {"info": 0, "warning": 1, "critical": 2}


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


def episodes(events: Iterable[Json], end_ms: int) -> list[Episode]:
    """Episodes in order of start; the severity is the highest reached."""
    groups: dict[str, list[Json]] = {}
    for event in events:
        if event["kind"] in ("drift", "evidence", "recovery"):
            groups.setdefault(event["episode"], []).append(event)
    found = []
    for group in groups.values():
        first, last = group[0], group[-1]
        ended = last["kind"] == "recovery"
        active = [e for e in group if e["kind"] != "recovery"] or group
        strongest = max(active, key=lambda e: SEVERITY_RANK[e["severity"]])
        sizes = [e["effect"]["size"] for e in active if e["effect"]]
        found.append(
            Episode(
                label=_label(first),
                start_ms=first["time_ms"],
                stop_ms=last["time_ms"] if ended else end_ms,
                ended=ended,
                severity=strongest["severity"],
                detectors=tuple(dict.fromkeys(e["detector"] for e in active if e["detector"])),
                effect=max(sizes, key=abs) if sizes else None,
                delay_text="" if first["since"] is None else _clock(first["since"]["time_ms"]),
            )
        )
    return sorted(found, key=lambda e: (e.start_ms, e.label))


def render_svg(title: str, snapshots: Sequence[Json], events: Sequence[Json], bands: Sequence[Band] = ()) -> str:
    """The picture as SVG; an empty run gives an empty axis, not an error."""
    times = [s["time_ms"] for s in snapshots] + [e["time_ms"] for e in events] + [b.start_ms for b in bands]
    start, end = (min(times), max(max(times), min(times) + 1)) if times else (0, 1)
    rows = episodes(events, end)
    drawn = sorted(rows, key=lambda e: -SEVERITY_RANK[e.severity])[:EPISODES_DRAWN]
    drawn.sort(key=lambda e: (e.start_ms, e.label))
    canvas = _Canvas(start, end)
    whole = [s for s in snapshots if s["segment"] is None and s["state"] == "watching"]
    canvas.lane("score: window mean, baseline sd", _levels(whole, "scores", ("score", "confidence"), "mean"), zero=True)
    errors = ("outcome:log_loss", "outcome:absolute_error")
    canvas.lane("error: window mean of loss, baseline sd", _levels(whole, "outcomes", errors, "mean"), zero=True)
    canvas.lane("detector statistic / threshold", _ratios(snapshots, drawn), limit=1.0)
    canvas.episodes(drawn, omitted=len(rows) - len(drawn))
    return canvas.finish(title, bands)


def render_html(
    title: str, snapshots: Sequence[Json], events: Sequence[Json], bands: Sequence[Band] = (), notes: Sequence[str] = ()
) -> str:
    """One self-contained page: the picture, the notes, and the episodes as a table."""
    svg = render_svg(title, snapshots, events, bands)
    end = max((e["time_ms"] for e in events), default=0)
    cells = "".join(
        f"<tr><td>{html.escape(e.label)}</td><td>{_clock(e.start_ms)}</td><td>{e.delay_text}</td>"
        f"<td>{_clock(e.stop_ms) if e.ended else 'open'}</td><td>{e.severity}</td>"
        f"<td>{'' if e.effect is None else f'{e.effect:.3g}'}</td><td>{html.escape(', '.join(e.detectors))}</td></tr>"
        for e in episodes(events, end)
    )
    paragraphs = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    head = "<tr><th>series</th><th>detected</th><th>since</th><th>recovered</th><th>severity</th><th>effect</th><th>detectors</th></tr>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>body{{font:14px/1.5 system-ui,sans-serif;margin:2rem;max-width:{WIDTH}px}}"
        "table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #ccc;text-align:left}"
        "svg{max-width:100%;height:auto}"
        f"</style></head><body><h1>{html.escape(title)}</h1>{paragraphs}{svg}<h2>Episodes</h2><table>{head}{cells}</table></body></html>"
    )


class _Canvas:
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
            self._parts.append(f'<text x="14" y="{top + 30 + 15 * number}" fill="{colour}">{html.escape(_short(label))}</text>')
        if not lines:
            self._parts.append(f'<text x="{LEFT + 10}" y="{(top + bottom) / 2}" fill="#777">no data</text>')
        self._top = bottom + GAP

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
            self._parts.append(f'<text x="14" y="{y + 11}">{html.escape(_short(row.label))}</text>')
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
        for number in range(7):
            time_ms = self._start + (self._end - self._start) * number / 6
            anchor = "end" if number == 6 else "middle"
            place = f'x="{self.x(time_ms):.1f}" y="{self._top + 16}" text-anchor="{anchor}"'
            ticks.append(f'<text {place} fill="#555">{_clock(time_ms)}</text>')
        name = html.escape(title)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'font-family="system-ui,sans-serif" font-size="11"><title>{name}</title>'
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
            f'<text x="8" y="22" font-size="16" font-weight="600">{name}</text>' + "".join(shades + self._parts + ticks) + "</svg>"
        )


def _levels(snapshots: Iterable[Json], panel: str, names: Sequence[str], quantity: str) -> dict[str, list[tuple[int, float]]]:
    lines: dict[str, list[tuple[int, float]]] = {}
    for snapshot in snapshots:
        if snapshot["panel"] == panel:
            for level in snapshot["series"]:
                if level["series"] in names and level[quantity] is not None:
                    version = f" {snapshot['version']}" if snapshot["version"] else ""
                    lines.setdefault(level["series"] + version, []).append((snapshot["time_ms"], level[quantity]))
    return lines


def _ratios(snapshots: Iterable[Json], drawn: Sequence[Episode]) -> dict[str, list[tuple[int, float]]]:
    """Statistic over threshold of the series with the loudest episodes, capped at 3 so that quiet ones stay readable."""
    ranked = sorted(drawn, key=lambda e: (-SEVERITY_RANK[e.severity], e.start_ms))
    chosen = list(dict.fromkeys(e.label for e in ranked))[:SERIES_DRAWN]
    lines: dict[str, list[tuple[int, float]]] = {label: [] for label in chosen}
    for snapshot in snapshots:
        for level in snapshot["series"]:
            label = _label({"series": level["series"], "segment": snapshot["segment"]})
            if label in lines and level["statistic"] is not None and level["threshold"]:
                lines[label].append((snapshot["time_ms"], min(level["statistic"] / level["threshold"], 3.0)))
    return {label: line for label, line in lines.items() if line}


def _label(event: Json) -> str:
    series, segment = str(event["series"]), event["segment"]
    return series + ("" if not segment else " · " + ",".join(f"{k}={v}" for k, v in segment.items()))


def _short(label: str) -> str:
    """A label that fits beside the lanes; the middle goes, since both ends tell series apart."""
    return label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 19] + "…" + label[-18:]


def _clock(time_ms: float) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
