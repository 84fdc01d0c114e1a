"""One picture of a run, made from the topics alone: score, error, statistics and drift events on a time axis.

`render_svg` draws it, `render_html` wraps it in one self-contained page (no script, no network) with a table of
the same facts for readers who do not see the picture.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from driftline.streams.canvas import Band, Canvas, Episode, clock, page, table

Json = Mapping[str, Any]

SERIES_DRAWN: Final = 6
EPISODES_DRAWN: Final = 40
SEVERITY_RANK: Final = {"info": 0, "warning": 1, "critical": 2}


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
                delay_text="" if first["since"] is None else clock(first["since"]["time_ms"]),
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
    canvas = Canvas(start, end)
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
    rows = [
        (
            e.label, clock(e.start_ms), e.delay_text, clock(e.stop_ms) if e.ended else "open", e.severity,
            "" if e.effect is None else f"{e.effect:.3g}", ", ".join(e.detectors),
        )
        for e in episodes(events, end)
    ]  # fmt: skip
    paragraphs = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    columns = ("series", "detected", "since", "recovered", "severity", "effect", "detectors")
    return page(title, f"{paragraphs}{svg}<h2>Episodes</h2>{table(columns, rows)}")


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
