"""The life of an alert, one drift event after another, without Kafka and Redis."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from driftline.schemas.events import Alert, BinShare, DriftEvent, Effect, Position, Since, Transition, VersionSeen
from driftline.streams.alert.pipeline import AlertPipeline, Decision, PoisonEventError, decode, fingerprint_of
from driftline.streams.alert.recovery import state_of
from driftline.streams.alert.state import AlertState, Source, decode_state, encode_state
from tests.alert.conftest import MakeEvent


class Life:
    """Feeds one fingerprint and keeps its state, as the store would."""

    def __init__(self) -> None:
        self.pipeline = AlertPipeline(owners={"fraud": "fraud-ml"})
        self.state: AlertState | None = None
        self.offset = 0

    def take(self, event: DriftEvent, offset: int | None = None) -> Decision:
        self.offset = self.offset + 1 if offset is None else offset
        decision = self.pipeline.process(event, Source("topic-id", 0, self.offset), self.state)
        self.state = decision.state or self.state
        return decision

    def change(self, event: DriftEvent) -> tuple[Alert, Transition]:
        decision = self.take(event)
        assert decision.alert is not None
        assert decision.transition is not None
        return decision.alert, decision.transition

    @property
    def alert(self) -> Alert:
        assert self.state is not None
        return self.state.alert


@pytest.fixture
def life() -> Life:
    return Life()


def test_fingerprint_is_the_sha256_of_canonical_identity(drift_event: MakeEvent) -> None:
    event = drift_event(1, segment={"country": "BR", "channel": "web"})
    text = (
        '{"environment":"test","model":"fraud","monitor":"feature_drift",'
        '"segment":{"channel":"web","country":"BR"},"series":"feature:amount"}'
    )
    assert fingerprint_of(event) == hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize("change", [
    {"severity": "critical"}, {"value": 99.0}, {"window": 7}, {"version": "2"}, {"detector": "adwin"}, {"episode": "other"},
    {"baseline": "b2"},
])
def test_fingerprint_ignores_what_may_change_during_an_alert(drift_event: MakeEvent, change: dict[str, Any]) -> None:
    assert fingerprint_of(drift_event(1, **change)) == fingerprint_of(drift_event(1))


@pytest.mark.parametrize("change", [
    {"environment": "staging"}, {"model": "ads"}, {"monitor": "other"}, {"series": "feature:age"}, {"segment": {"country": "BR"}},
])
def test_fingerprint_tells_apart_what_the_alert_is_about(drift_event: MakeEvent, change: dict[str, Any]) -> None:
    assert fingerprint_of(drift_event(1, **change)) != fingerprint_of(drift_event(1))


def test_drift_opens_an_alert_dated_to_the_start_of_the_change(life: Life, drift_event: MakeEvent) -> None:
    since = Since(Position("predictions", 0, 3), 400)
    alert, transition = life.change(drift_event(7, since=since))
    assert (alert.condition, alert.episode, alert.seq, alert.owner) == ("firing", "ep1", 1, "fraud-ml")
    assert (alert.starts_at_ms, alert.detected_at_ms, alert.observed_at_ms, alert.ends_at_ms) == (400, 7_000, 7_005, None)
    assert (transition.change, transition.from_severity, transition.severity, transition.drift_event) == ("opened", None, "warning", "e7")


def test_drift_without_a_known_start_is_dated_to_its_event(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(7))
    assert life.alert.starts_at_ms == 7_000


def test_severity_changes_in_place_and_its_maximum_is_kept(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1, severity="warning"))
    up, transition = life.change(drift_event(2, kind="evidence", severity="critical"))
    down, _ = life.change(drift_event(3, kind="evidence", severity="info"))
    assert (transition.change, transition.from_severity, transition.severity) == ("severity", "warning", "critical")
    assert (down.severity, down.max_severity, down.seq) == ("info", "critical", 3)
    assert up.fingerprint == down.fingerprint
    assert down.episode == "ep1"


def test_evidence_of_equal_severity_is_an_update_that_collects_detectors(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1, detector="psi"))
    alert, transition = life.change(drift_event(2, kind="evidence", detector="adwin", statistic=4.0, threshold=3.0, value=13.0))
    assert transition.change == "evidence"
    evidence = alert.evidence
    last = evidence["last"]
    assert (last["value"], last["threshold"], last["detector"]) == (13.0, 3.0, "adwin")
    assert evidence["detectors"]["psi"] == {"statistic": 0.3, "threshold": 0.1, "time_ms": 1_000}
    assert set(evidence["detectors"]) == {"psi", "adwin"}


FOUND: dict[str, Any] = {"detector": "e_detector", "effect": Effect("rate", 4.0), "value": 0.05, "baseline_value": 0.01, "n": 180}
STEP: dict[str, Any] = {
    "kind": "evidence", "detector": "severity", "effect": Effect("rate", 0.4), "value": 0.014, "baseline_value": 0.01, "n": 5_000
}


def test_a_step_of_severity_tells_the_level_since_the_change_beside_that_of_its_window(life: Life, drift_event: MakeEvent) -> None:
    since = Since(Position("predictions", 0, 1), 900)
    opened, _ = life.change(drift_event(1, severity="info", since=since, **FOUND))
    assert "since_change" not in opened.evidence
    for number, severity in ((2, "warning"), (3, "critical")):
        alert, _ = life.change(drift_event(number, severity=severity, **STEP))
        assert alert.summary == (
            "fraud: feature:amount moved up (+40% against the baseline; value 0.014, baseline 0.01, over the last 5,000 values; "
            "since the change, when it was found: value 0.05, baseline 0.01, n 180)"
        )
        found = alert.evidence["since_change"]
        assert (alert.evidence["value"], found["value"], found["n"], found["detector"]) == (0.014, 0.05, 180, "e_detector")
        assert (found["since"]["time_ms"], found["time_ms"]) == (900, 1_000)


def test_a_level_since_a_change_goes_with_the_step_that_it_stands_beside(life: Life, drift_event: MakeEvent) -> None:
    since = Since(Position("predictions", 0, 1), 900)
    life.take(drift_event(1, severity="info", since=since, **FOUND))
    life.take(drift_event(2, severity="warning", **STEP))
    alert, _ = life.change(drift_event(3, kind="evidence", detector="adwin", severity="critical", since=since))
    assert "since_change" not in alert.evidence
    assert "since the change" not in alert.summary
    # Nothing says since when: the window's figures are all there is.
    life.take(drift_event(4, episode="ep2", version="2", severity="info", **FOUND))
    alert, _ = life.change(drift_event(5, episode="ep2", version="2", severity="warning", **STEP))
    assert all("since_change" not in member["evidence"] for member in alert.evidence["open_episodes"])


def test_the_evidence_that_set_the_severity_stays_in_front_of_what_came_last(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1, value=11.0, effect=Effect("psi", 0.12)))
    life.take(drift_event(2, kind="evidence", detector="severity", severity="critical", value=19.0, effect=Effect("psi", 0.8)))
    alert, _ = life.change(drift_event(3, kind="evidence", detector="adwin", severity="critical", value=10.4, effect=Effect("mean", 0.05)))
    assert alert.summary == "fraud: feature:amount moved up (PSI 0.8; value 19, baseline 10, over the last 500 values)"
    assert (alert.evidence["value"], alert.evidence["last"]["value"]) == (19.0, 10.4)
    assert alert.evidence["effect"] == {"kind": "psi", "size": 0.8}


def test_when_the_loudest_episode_ends_the_next_one_is_shown(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1, episode="v1", version="1", severity="critical", value=19.0))
    life.take(drift_event(2, episode="v2", version="2", severity="warning", value=12.0))
    assert life.alert.evidence["value"] == 19.0
    alert, _ = life.change(drift_event(3, episode="v1", version="1", kind="recovery", reason="back"))
    assert (alert.severity, alert.evidence["value"], alert.evidence["version"]) == ("warning", 12.0, "2")
    assert alert.summary.endswith("value 12, baseline 10, n 500); one of several open episodes ended (back)")


def test_what_is_in_front_is_found_again_in_a_published_alert(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1, severity="critical", value=19.0))
    published = decode_state(encode_state(AlertState(alert=life.alert))).alert
    life.state = state_of(published, "topic-id/0", 1)
    alert, _ = life.change(drift_event(2, kind="evidence", detector="adwin", severity="critical", value=10.4))
    assert (alert.evidence["value"], alert.evidence["last"]["value"]) == (19.0, 10.4)


@pytest.mark.parametrize(("value", "base", "size", "words"), [
    (0.15, 0.1, 0.5, "+50% against the baseline"),
    (0.004, 0.0, 0.4, "+0.4 percentage points"),
    (0.02, 0.005, 1.5, "+1.5 percentage points"),
    (0.284, 0.0, 28.4, "+28 percentage points"),
    (1.0, 0.0, 100.0, "+100 percentage points"),
])  # fmt: skip
def test_a_rate_sized_against_the_floor_is_told_in_points(
    life: Life, drift_event: MakeEvent, value: float, base: float, size: float, words: str
) -> None:
    alert, _ = life.change(drift_event(1, value=value, baseline_value=base, effect=Effect("rate", size)))
    assert f"({words}; value" in alert.summary


def test_recovery_resolves_with_its_reason_and_keeps_the_evidence(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1))
    alert, transition = life.change(drift_event(5, kind="recovery", reason="back_in_band", value=10.1))
    assert (alert.condition, alert.ends_at_ms, alert.severity) == ("resolved", 5_000, "warning")
    assert (transition.change, transition.reason) == ("resolved", "back_in_band")
    assert alert.evidence["value"] == 12.5
    assert alert.evidence["recovery"]["value"] == 10.1


@pytest.mark.parametrize(
    ("detector", "reason"),
    [
        ("stale", "closed because nothing came for 72h, not because it recovered"),
        ("removed", "closed because models.fraud.decision was edited, not because it recovered"),
    ],
)
def test_alert_that_ends_for_another_reason_does_not_say_it_recovered(
    life: Life, drift_event: MakeEvent, detector: str, reason: str
) -> None:
    life.take(drift_event(1))
    alert, transition = life.change(drift_event(5, kind="recovery", detector=detector, reason=reason, value=None, effect=None))
    assert (alert.condition, alert.summary) == ("resolved", f"fraud: feature:amount: {reason}")
    assert (transition.reason, alert.evidence["recovery"]["detector"]) == (reason, detector)


def test_next_episode_opens_a_new_alert_under_the_same_fingerprint(life: Life, drift_event: MakeEvent) -> None:
    first, _ = life.change(drift_event(1))
    life.take(drift_event(2, kind="recovery"))
    second, _ = life.change(drift_event(9, episode="ep2"))
    assert second.fingerprint == first.fingerprint
    assert (second.episode, second.seq, second.condition) == ("ep2", 1, "firing")
    assert second.starts_at_ms == 9_000


def test_same_event_again_changes_nothing_at_its_offset_or_at_another(life: Life, drift_event: MakeEvent) -> None:
    event = drift_event(1)
    life.take(event, offset=10)
    before = life.state
    assert life.take(event, offset=10).dropped == "duplicate"
    assert life.take(event, offset=11).dropped == "duplicate"
    assert life.state == before


def test_event_below_the_alerts_offset_changes_nothing_even_when_its_id_is_new(life: Life, drift_event: MakeEvent) -> None:
    before = life.take(drift_event(5), offset=10).state
    assert before is not None
    decision = life.take(drift_event(4, kind="evidence", severity="critical"), offset=9)
    assert decision.dropped == "duplicate"
    assert (decision.alert, decision.transition) == (None, None)
    assert decision.state is not None
    assert decision.state.alert == before.alert


def test_late_evidence_of_a_resolved_episode_does_not_open_it_again(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1))
    life.take(drift_event(2, kind="recovery"))
    assert life.take(drift_event(3, kind="evidence")).dropped == "closed_episode"


def test_recovery_of_an_episode_nobody_opened_is_dropped(life: Life, drift_event: MakeEvent) -> None:
    assert life.take(drift_event(1, kind="recovery")).dropped == "no_alert"


def test_evidence_whose_opening_was_lost_opens_the_alert(life: Life, drift_event: MakeEvent) -> None:
    assert life.change(drift_event(1, kind="evidence"))[1].change == "opened"


def test_alert_of_two_versions_resolves_when_the_last_of_them_recovers(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1, episode="v1", version="1", severity="critical"))
    life.take(drift_event(2, episode="v2", version="2", severity="warning"))
    partial, transition = life.change(drift_event(3, episode="v1", version="1", kind="recovery"))
    assert (partial.condition, partial.severity, transition.change) == ("firing", "warning", "severity")
    assert [entry["version"] for entry in partial.evidence["open_episodes"]] == ["2"]
    last, _ = life.change(drift_event(4, episode="v2", version="2", kind="recovery"))
    assert (last.condition, last.episode, last.max_severity) == ("resolved", "v1", "critical")


def test_alert_on_a_provisional_baseline_is_info(life: Life, drift_event: MakeEvent) -> None:
    assert life.change(drift_event(1, provisional=True, severity="critical"))[0].severity == "info"


def test_historical_alert_stays_historical_until_live_evidence_comes(life: Life, drift_event: MakeEvent) -> None:
    assert life.change(drift_event(1, historical=True))[0].historical
    assert life.change(drift_event(2, kind="evidence", historical=True))[0].historical
    live = life.change(drift_event(3, kind="evidence"))[0]
    assert (live.historical, live.condition) == (False, "firing")


def test_live_recovery_of_a_historical_alert_leaves_it_historical(life: Life, drift_event: MakeEvent) -> None:
    life.take(drift_event(1, historical=True))
    assert life.change(drift_event(2, kind="recovery"))[0].historical


@pytest.mark.parametrize("kind", ["version_seen", "baseline", "baseline_mismatch"])
def test_notes_are_transitions_without_an_alert(life: Life, drift_event: MakeEvent, kind: str) -> None:
    decision = life.take(drift_event(1, kind=kind, severity="info", effect=None))
    assert decision.transition is not None
    assert decision.alert is None
    assert decision.state is None
    assert (decision.transition.change, decision.transition.condition, decision.transition.episode) == (kind, None, "e1")


def shift(drift_event: MakeEvent, n: int, severity: str, version: str) -> DriftEvent:
    told = {"monitor": "version", "series": "version:predictions", "effect": None, "direction": None, "detector": ""}
    return drift_event(n, kind="version_shift", severity=severity, version=version, episode=f"shift{n}", reason=f"as {version}", **told)


def test_a_version_shift_is_a_note_unless_it_is_critical_and_the_next_comparison_ends_it(life: Life, drift_event: MakeEvent) -> None:
    noted = life.take(shift(drift_event, 1, "info", "1.0"))
    assert (noted.alert, noted.transition and noted.transition.change) == (None, "version_shift")
    alert, opened = life.change(shift(drift_event, 2, "critical", "2.0"))
    assert (alert.condition, alert.severity, opened.change) == ("firing", "critical", "opened")
    assert alert.summary == "fraud: version:predictions: as 2.0"
    again, evidence = life.change(shift(drift_event, 3, "critical", "2.1"))
    assert (again.condition, again.seq, evidence.change) == ("firing", 2, "evidence")
    ended, resolved = life.change(shift(drift_event, 4, "info", "2.2"))
    assert (ended.condition, resolved.change, resolved.reason) == ("resolved", "resolved", "as 2.2")
    assert life.take(shift(drift_event, 5, "info", "2.3")).alert is None


def test_a_version_that_came_shortly_before_stays_in_the_summary(life: Life, drift_event: MakeEvent) -> None:
    alert, _ = life.change(drift_event(1, near=VersionSeen("2.4.1", 1_763_725_900_000)))
    words = '; near version "2.4.1", first seen at 2025-11-21T11:51:40.000Z'
    assert alert.summary.endswith(words)
    later, _ = life.change(drift_event(2, kind="evidence", severity="critical"))
    assert later.summary.endswith(words)
    assert later.incident


def test_summary_says_what_where_and_how_much(life: Life, drift_event: MakeEvent) -> None:
    alert = life.change(drift_event(1, segment={"country": "BR"}))[0]
    assert alert.summary == "fraud: feature:amount in country=BR moved up (PSI 0.3; value 12.5, baseline 10, n 500)"


@pytest.mark.parametrize(("fields", "words"), [
    ({"effect": Effect("mean", 0.93), "value": 0.93, "baseline_value": 0.0, "median": 83.25, "baseline_median": 41.0},
     "moved up (0.93 baseline standard deviations; median 83.25, baseline 41, n 500)"),
    ({"median": 83.25, "baseline_median": 41.0}, "moved up (PSI 0.3; median 83.25, baseline 41, n 500)"),
    # Another spread: on which side its values happen to lie says nothing.
    ({"detector": "e_detector", "median": 41.5, "baseline_median": 41.0}, "changed (PSI 0.3; median 41.5, baseline 41, n 500)"),
    ({"effect": Effect("mean", 0.48), "pair_correlation": 0.512, "baseline_correlation": -0.0213},
     "moved up (0.48 baseline standard deviations; correlation 0.512, baseline -0.0213, n 500)"),
    # A category, or values beyond all that the baseline has seen.
    ({"direction": None, "bins": [BinShare("BR", 0.101, 0.3456, 0.3)]}, "changed (PSI 0.3; BR in 34.6 % of rows, baseline 10.1 %, n 500)"),
    ({"baseline_median": 41.0, "bins": [BinShare("> 412", 0.0, 0.9, 2.0)]},
     "moved up (PSI 0.3; > 412 in 90 % of rows, baseline 0 %, n 500)"),
    ({"effect": Effect("rate", 1.0), "value": 0.04, "baseline_value": 0.02, "bins": [BinShare("missing", 0.02, 0.04, 0.02)]},
     "moved up (+100% against the baseline; value 0.04, baseline 0.02, n 500)"),
    # Of a whole window, in which the rows since the change may be few.
    ({"kind": "evidence", "detector": "severity", "effect": Effect("rate", 1.05), "value": 0.0105, "baseline_value": 0.0, "n": 2_000},
     "moved up (+1.1 percentage points; value 0.0105, baseline 0, over the last 2,000 values)"),
    ({"effect": Effect("mmd", 0.0717028), "value": 0.0717028, "baseline_value": 0.0}, "moved up (joint distance 0.0717; n 500)"),
])  # fmt: skip
def test_levels_are_told_in_the_unit_of_the_series(life: Life, drift_event: MakeEvent, fields: dict[str, Any], words: str) -> None:
    alert = life.change(drift_event(1, **fields))[0]
    assert alert.summary == f"fraud: feature:amount {words}"
    for name in ("median", "baseline_median", "pair_correlation", "baseline_correlation"):
        assert alert.evidence[name] == fields.get(name)


@pytest.mark.parametrize(("series", "fields", "words"), [
    ("stream:label_delay", {"effect": Effect("mean", 2.1), "median": 11_520_000.0, "baseline_median": 3_960_000.0},
     "moved up (2.1 baseline standard deviations; labels come 3.2 h after their predictions, baseline 1.1 h, n 500)"),
    ("stream:label_delay", {"effect": Effect("mean", 2.1), "median": -90_000.0, "baseline_median": 400.0},
     "moved up (2.1 baseline standard deviations; labels come 1.5 min before their predictions, baseline 400 ms, n 500)"),
    ("stream:freshness", {"effect": Effect("silence", 7_200.0), "value": 7_200.0, "threshold": 600.0, "baseline_value": 0.0, "n": 0},
     "moved up (no prediction for 2 h, limit 10 min)"),
    ("stream:volume", {"effect": Effect("rate", 0.125), "value": 0.125, "baseline_value": 6_400.0, "n": 800, "direction": "down"},
     "moved down (0.125 times as many predictions as the hour before makes expected, 800 in ten minutes instead of 6,400)"),
    ("stream:join_rate", {"effect": Effect("rate", 0.3), "value": 0.62, "threshold": 0.9, "baseline_value": None, "direction": "down"},
     "moved down (62 % of 500 predictions had a label at their age, limit 90 %)"),
    ("stream:labelled", {"effect": Effect("rate", -0.5), "value": 0.47, "baseline_value": 0.94, "direction": "down"},
     "moved down (-50% against the baseline; 47 % of the predictions have a label at their age, baseline 94 %, n 500)"),
    ("stream:invalid", {"effect": Effect("rate", 1.0), "value": 0.02, "baseline_value": 0.01},
     "moved up (+100% against the baseline; 2 % of the rows have an invalid value, baseline 1 %, n 500)"),
])  # fmt: skip
def test_series_of_the_stream_are_told_with_their_units(
    life: Life, drift_event: MakeEvent, series: str, fields: dict[str, Any], words: str
) -> None:
    assert life.change(drift_event(1, series=series, **fields))[0].summary == f"fraud: {series} {words}"


def test_ids_are_the_same_on_every_replay(drift_event: MakeEvent) -> None:
    events = [drift_event(1), drift_event(2, kind="evidence", severity="critical"), drift_event(3, kind="recovery")]

    def run() -> list[str]:
        life = Life()
        alerts = [life.change(event)[0] for event in events]
        return [f"{alert.episode}/{alert.seq}" for alert in alerts]

    assert run() == run() == ["ep1/1", "ep1/2", "ep1/3"]


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"\xff\xfe", json.dumps({"id": "x"}).encode(), b"0"])
def test_record_that_is_no_drift_event_is_poison(value: bytes | None) -> None:
    with pytest.raises(PoisonEventError):
        decode(value, [])
