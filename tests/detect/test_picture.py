"""The picture of a run: made of topic records, safe to open, and right about episodes."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from driftline.streams.canvas import Band
from driftline.streams.picture import episodes, render_html, render_svg


def event(kind: str, time_ms: int, *, episode: str = "e", severity: str = "warning", series: str = "feature:a") -> dict[str, Any]:
    return {
        "kind": kind, "time_ms": time_ms, "episode": episode, "severity": severity, "series": series, "segment": {"country": "<BR>"},
        "detector": "psi", "effect": {"kind": "psi", "size": 0.2}, "since": {"time_ms": time_ms - 10},
    }  # fmt: skip


def snapshot(time_ms: int, mean: float | None) -> dict[str, Any]:
    level = {"series": "score", "mean": mean, "statistic": 1.0, "threshold": 2.0}
    return {"time_ms": time_ms, "segment": None, "state": "watching", "panel": "scores", "version": "<v>", "series": [level]}


def test_an_episode_lasts_from_its_drift_to_its_recovery_with_the_worst_severity() -> None:
    (found,) = episodes([event("drift", 10), event("evidence", 20, severity="critical"), event("recovery", 30, severity="info")], 99)
    assert (found.start_ms, found.stop_ms, found.ended, found.severity) == (10, 30, True, "critical")


def test_an_open_episode_lasts_to_the_end_of_the_picture() -> None:
    (found,) = episodes([event("drift", 10)], 99)
    assert (found.stop_ms, found.ended) == (99, False)


def test_the_drawing_is_well_formed_and_text_from_topics_is_escaped() -> None:
    snapshots = [snapshot(t, None if t == 3 else t / 10) for t in range(10)]
    svg = render_svg("a <title> & more", snapshots, [event("drift", 4)], [Band(2, 5, "<b>")])
    ET.fromstring(svg)
    page = render_html("t", snapshots, [event("drift", 4)])
    assert "<BR>" not in page
    assert "&lt;BR&gt;" in page


def test_an_empty_run_is_drawn_and_not_an_error() -> None:
    ET.fromstring(render_svg("nothing", [], []))
