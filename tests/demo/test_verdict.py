"""What counts as found and what as a false alarm."""

from __future__ import annotations

from typing import Any

from driftline.demo.run import alert_words
from driftline.demo.verdict import FORGOTTEN_ROWS, Verdict

TRUTH = {"name": "shift", "start": 1_000, "stop": 2_000, "series": ["feature:a"], "segment": "BR", "text": "", "time_ms": 0}


def event(series: str, offset: int, segment: dict[str, str] | None = None, kind: str = "drift") -> dict[str, Any]:
    position = {"offset": offset}
    return {"kind": kind, "series": series, "segment": segment, "position": position, "detector": "psi", "episode": "e", "time_ms": 5}


def verdict() -> Verdict:
    out = Verdict()
    out.truth(TRUTH)
    return out


def test_the_first_event_of_the_changed_series_is_the_detection() -> None:
    out = verdict()
    assert out.drift(event("feature:a", 1_200)) is out.found[0]
    assert out.drift(event("feature:a", 1_300, {"country": "BR"})) is None
    assert out.found[0].delay_events() == 200
    assert not out.accused


def test_another_series_another_segment_or_another_time_is_a_false_alarm() -> None:
    wrong = [
        event("feature:b", 1_200),
        event("feature:a", 1_200, {"country": "MX"}),
        event("feature:a", 999),
        event("feature:a", 2_000 + FORGOTTEN_ROWS),
    ]
    for each in wrong:
        out = verdict()
        out.drift(each)
        assert len(out.accused) == 1
        assert out.found[0].event is None


def test_recoveries_and_evidence_accuse_nobody() -> None:
    out = verdict()
    out.drift(event("feature:b", 1_200, kind="recovery"))
    assert not out.accused


def test_an_alert_that_was_read_before_its_event_is_that_events_alert() -> None:
    found = verdict()
    shift = event("feature:amount", 1_010, {"country": "BR"})
    shift["episode"] = "e1"
    for change, at in (("opened", 5), ("severity", 6)):
        assert found.transition({"episode": "e1", "change": change, "time_ms": at}) is None
    assert found.drift(shift) is not None
    assert found.transition({"episode": "e1", "change": "resolved", "time_ms": 9}) is not None
    (change,) = found.as_json()["changes"]
    assert (change["alert_opened"], change["alert_resolved"]) == (True, True)


def test_the_lines_of_an_alert_lead_from_one_severity_to_the_next() -> None:
    steps = [("opened", None, "info"), ("evidence", "info", "info"), ("severity", "info", "critical"), ("resolved", "critical", "critical")]
    told = [alert_words({"change": change, "from_severity": before, "severity": after}) for change, before, after in steps]
    assert told == ["alert opened as info", "", "alert goes from info to critical", "alert resolved, was critical"]
