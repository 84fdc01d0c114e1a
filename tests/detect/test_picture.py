"""The picture of a run: made of topic records, safe to open, and right about episodes."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from driftline.streams.canvas import POINTS_MARKED, Band
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


@pytest.mark.parametrize(("points", "dots"), [(1, 1), (2, 2), (POINTS_MARKED, POINTS_MARKED), (POINTS_MARKED + 1, 0)])
def test_a_line_of_few_points_has_a_dot_at_each_of_them(points: int, dots: int) -> None:
    """A polyline of one point draws nothing: a model watched for two snapshots had an empty axis."""
    root = ET.fromstring(render_svg("few", [snapshot(t, t / 10) for t in range(points)], [event("drift", POINTS_MARKED)]))
    named = "{http://www.w3.org/2000/svg}"
    lane = root.find(f"{named}rect[@fill='none']")
    assert lane is not None
    (line,) = root.findall(f"{named}polyline")
    at = [(one.get("cx"), one.get("cy")) for one in root.findall(f"{named}circle")]
    assert len(at) == dots
    drawn = [tuple(place.split(",")) for place in (line.get("points") or "").split()]
    assert at == drawn[:dots]
    top, high = (float(lane.get(name) or "nan") for name in ("y", "height"))
    assert all(top <= float(y or "nan") <= top + high for _, y in at)


def test_an_empty_run_is_drawn_and_not_an_error() -> None:
    ET.fromstring(render_svg("nothing", [], []))
