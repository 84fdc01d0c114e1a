"""One change, one incident: whatever is found of it, in whatever order it is found."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from driftline.schemas.events import ChangedAgain, DriftEvent, Effect, Incident, Position, Since
from driftline.streams.alert.incidents import LISTED_MAX, book_key
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.state import encode_state
from driftline.streams.alert.store import AlertStore, Applied, MemoryAlertStore, OutboxRow
from driftline.streams.alert.worker import AlertWorker, Names
from driftline.streams.task import MemoryRecord
from tests.alert.conftest import MakeEvent, MakeRecord
from tests.alert.test_worker import Recording, published_by

GATHER_MS = 60_000
MINUTE = 60_000
NAMES = Names("test", "driftline", "topic-id")


def worker_of(store: AlertStore, publisher: Recording) -> AlertWorker:
    pipeline = AlertPipeline(owners={"fraud": "fraud-ml"}, gather_ms={"fraud": GATHER_MS, "ads": GATHER_MS})
    return AlertWorker(pipeline, store, publisher, NAMES)


class Life:
    """Feeds drift events to the worker, as they come in the drift topic."""

    def __init__(self, drift_event: MakeEvent, drift_record: MakeRecord) -> None:
        self._event, self._record = drift_event, drift_record
        self.publisher, self.store = Recording(), MemoryAlertStore()
        self.worker = worker_of(self.store, self.publisher)
        self.offset = 0

    def say(
        self, series: str, at_ms: int, *, since_ms: int | None = None, between: tuple[int | None, int | None] = (None, None), **fields: Any
    ) -> None:
        """An event about a series, seen at a time, of a change that is dated to another one, perhaps with an interval."""
        self.offset += 1
        since = None if since_ms is None else Since(Position("predictions", 0, 1), since_ms, *between)
        given = {"series": series, "episode": f"{series}-{fields.pop('life', 1)}", "since": since}
        event = structs.replace(self._event(self.offset), **given | {"time_ms": at_ms, "record_time_ms": at_ms} | fields)
        self.worker.handle([self._record(event, self.offset)])

    def back(self, series: str, at_ms: int, **fields: Any) -> None:
        self.say(series, at_ms, kind="recovery", reason="back_in_band", severity="info", effect=None, **fields)

    @property
    def rows(self) -> list[OutboxRow]:
        return [row for row in self.publisher.rows if row.topic == "driftline.incidents"]

    @property
    def incidents(self) -> list[dict[str, Any]]:
        """The last record of each incident, in the order in which they opened."""
        return list({row.key: orjson.loads(row.value) for row in self.rows}.values())

    @property
    def incident(self) -> dict[str, Any]:
        (one,) = self.incidents
        return one

    def of_alerts(self, topic: str = "driftline.alerts") -> dict[str, str]:
        """Series or drift event of the last record of each alert, to its incident."""
        told = [orjson.loads(row.value) for row in self.publisher.rows if row.topic == topic]
        return {one.get("series") or one["drift_event"]: one["incident"] for one in told}


@pytest.fixture
def life(drift_event: MakeEvent, drift_record: MakeRecord) -> Life:
    return Life(drift_event, drift_record)


def test_fifty_features_of_one_change_are_one_incident_and_its_record_lists_the_first(life: Life) -> None:
    for number in range(50):
        life.say(f"feature:f{number:02}", 100_000 + number * 1_000, since_ms=95_000, effect=Effect("mean", 0.2 + number / 100))
    told = life.incident
    assert (told["seq"], told["alerts"], told["firing"], told["condition"], told["owner"]) == (50, 50, 50, "firing", "fraud-ml")
    assert [one["series"] for one in told["blamed"]] == [f"feature:f{number}" for number in range(49, 49 - LISTED_MAX, -1)]
    assert told["more"] == 50 - LISTED_MAX
    assert set(life.of_alerts().values()) == set(life.of_alerts("driftline.transitions").values()) == {told["id"]}


def test_weak_effect_that_is_found_an_hour_later_is_dated_back_to_the_same_change(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE + 2_000, since_ms=10 * MINUTE)
    life.say("feature:age", 70 * MINUTE, since_ms=14 * MINUTE)
    assert life.incident["alerts"] == 2
    assert (life.incident["starts_at_ms"], life.incident["uncertain_ms"]) == (10 * MINUTE, 1_000)


def test_outcomes_of_a_day_later_join_by_the_time_of_their_predictions(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE + 2_000, since_ms=10 * MINUTE, record_time_ms=10 * MINUTE)
    life.say("outcome:log_loss", 12 * MINUTE, since_ms=10 * MINUTE + 5_000, record_time_ms=1_450 * MINUTE, age_ms=86_400_000)
    assert life.incident["alerts"] == 2


def test_later_change_while_the_first_is_open_is_an_incident_of_its_own(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE + 2_000, since_ms=10 * MINUTE)
    life.say("feature:age", 12 * MINUTE + 2_000, since_ms=12 * MINUTE)
    life.say("feature:amount", 13 * MINUTE, since_ms=12 * MINUTE, kind="evidence")
    assert [[one["series"] for one in told["blamed"]] for told in life.incidents] == [["feature:amount"], ["feature:age"]]


def test_alert_between_two_open_incidents_joins_the_nearer_one(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE, since_ms=10 * MINUTE)
    life.say("feature:age", 12 * MINUTE, since_ms=12 * MINUTE)
    life.say("score", 11 * MINUTE + 10_000, since_ms=11 * MINUTE + 10_000)
    assert [told["alerts"] for told in life.incidents] == [1, 2]


def test_alert_that_nothing_dates_belongs_to_what_began_when_it_was_seen(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE, since_ms=10 * MINUTE)
    life.say("stream:join_rate", 11 * MINUTE + 30_000)
    life.say("stream:label_delay", 13 * MINUTE)
    assert [told["alerts"] for told in life.incidents] == [2, 1]


def test_interval_of_a_date_says_how_far_off_it_may_be(life: Life) -> None:
    hour = 60 * MINUTE
    life.say("feature:a", 11 * hour, since_ms=10 * hour, between=(10 * hour - 3_000, 10 * hour + 2_000))
    assert (life.incident["starts_at_ms"], life.incident["uncertain_ms"]) == (10 * hour, 3_000)
    # two minutes after it, and sure of that within seconds: half of an hour's delay would have joined them
    life.say("feature:b", 11 * hour + 1, since_ms=10 * hour + 2 * MINUTE, between=(10 * hour + 2 * MINUTE - 1_000, 10 * hour + 2 * MINUTE))
    assert len(life.incidents) == 2


def test_date_without_both_ends_of_an_interval_may_be_off_by_half_of_its_delay(life: Life) -> None:
    life.say("feature:a", 60 * MINUTE, since_ms=40 * MINUTE, between=(None, 41 * MINUTE))
    assert life.incident["uncertain_ms"] == 10 * MINUTE


def test_better_date_becomes_the_incidents(life: Life) -> None:
    life.say("feature:age", 30 * MINUTE, since_ms=10 * MINUTE)
    life.say("feature:amount", 12 * MINUTE + 2_000, since_ms=12 * MINUTE)
    assert (life.incident["starts_at_ms"], life.incident["uncertain_ms"]) == (12 * MINUTE, 1_000)


def test_date_after_the_change_was_first_seen_is_none_of_its_start(life: Life) -> None:
    life.say("feature:age", 12 * MINUTE, since_ms=11 * MINUTE)
    life.say("feature:amount", 12 * MINUTE + 31_000, since_ms=12 * MINUTE + 30_000)
    assert (life.incident["alerts"], life.incident["starts_at_ms"], life.incident["uncertain_ms"]) == (2, 11 * MINUTE, 30_000)


def test_evidence_that_dates_an_alert_back_leaves_the_incident_with_the_sharper_date(life: Life) -> None:
    life.say("feature:amount", 12 * MINUTE + 2_000, since_ms=12 * MINUTE)
    life.say("feature:amount", 20 * MINUTE, since_ms=11 * MINUTE, kind="evidence")
    (line,) = life.incident["blamed"]
    assert (line["starts_at_ms"], life.incident["starts_at_ms"], life.incident["uncertain_ms"]) == (11 * MINUTE, 12 * MINUTE, 1_000)


def test_models_have_incidents_of_their_own(life: Life) -> None:
    life.say("feature:amount", 1_000, since_ms=900)
    life.say("feature:amount", 1_000, since_ms=900, model="ads")
    assert [told["model"] for told in life.incidents] == ["fraud", "ads"]


def test_severity_is_the_highest_of_what_fires_and_changes_in_place(life: Life) -> None:
    life.say("feature:amount", 1_000, since_ms=900)
    life.say("feature:age", 1_100, since_ms=900, severity="info")
    life.say("feature:age", 1_200, since_ms=900, kind="evidence", severity="critical")
    life.back("feature:age", 9_000)
    told = [orjson.loads(row.value) for row in life.rows]
    assert [one["severity"] for one in told] == ["warning", "warning", "critical", "warning"]
    assert told[-1]["max_severity"] == "critical"
    assert [one["seq"] for one in told] == [1, 2, 3, 4]


def test_further_evidence_that_changes_no_line_is_not_told(life: Life) -> None:
    life.say("feature:amount", 1_000, since_ms=900)
    life.say("feature:amount", 1_200, since_ms=950, kind="evidence", effect=Effect("mean", 0.1))
    assert life.incident["seq"] == 1


def test_incident_ends_with_the_last_of_its_alerts(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE, since_ms=9 * MINUTE)
    life.say("score", 10 * MINUTE, since_ms=9 * MINUTE)
    life.back("score", 60 * MINUTE)
    assert (life.incident["condition"], life.incident["firing"], life.incident["ends_at_ms"]) == ("firing", 1, None)
    life.back("feature:amount", 50 * MINUTE)
    told = life.incident
    assert (told["condition"], told["firing"], told["alerts"], told["reason"]) == ("resolved", 0, 2, "back_in_band")
    assert (told["ends_at_ms"], told["duration_ms"]) == (60 * MINUTE, 51 * MINUTE)
    assert life.store.books() == {book_key("test", "fraud"): structs.replace(life.store.books()[book_key("test", "fraud")], incidents=())}
    assert [state.incident.id for state in life.store.recent_incidents(5)] == [told["id"]]


def test_series_about_the_edge_of_its_band_comes_back_into_its_incident_and_later_opens_another(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE, since_ms=9 * MINUTE)
    life.say("feature:age", 10 * MINUTE, since_ms=9 * MINUTE)
    life.back("feature:age", 30 * MINUTE)
    life.say("feature:age", 30 * MINUTE + 40_000, since_ms=30 * MINUTE + 30_000, life=2)
    assert (life.incident["alerts"], life.incident["firing"]) == (2, 2)
    life.back("feature:age", 50 * MINUTE, life=2)
    life.say("feature:age", 55 * MINUTE, since_ms=54 * MINUTE, life=3)
    assert [told["firing"] for told in life.incidents] == [1, 1]


def test_incident_that_has_resolved_does_not_open_again(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE, since_ms=9 * MINUTE)
    life.back("feature:amount", 30 * MINUTE)
    life.say("feature:amount", 30 * MINUTE + 20_000, since_ms=30 * MINUTE + 10_000, life=2)
    assert [told["condition"] for told in life.incidents] == ["resolved", "firing"]


def test_segment_of_a_series_that_is_off_as_a_whole_is_part_of_that_whenever_it_is_dated(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE, since_ms=9 * MINUTE)
    life.say("feature:amount", 90 * MINUTE, since_ms=89 * MINUTE, segment={"country": "NL"}, life=2)
    assert life.incident["alerts"] == 2
    life.say("feature:age", 90 * MINUTE, since_ms=89 * MINUTE, segment={"country": "NL"})
    life.say("feature:age", 120 * MINUTE, since_ms=119 * MINUTE, life=2)
    assert [told["alerts"] for told in life.incidents] == [2, 1, 1]


def test_scores_alone_suspect_the_concept_until_something_explains_them(life: Life) -> None:
    life.say("score", 10_000, since_ms=9_000)
    life.say("decision", 10_100, since_ms=9_000)
    assert life.incident["hint"] == "suspected_concept"
    assert life.incident["summary"].endswith("; no feature changed with it")
    life.say("feature:amount", 10_200, since_ms=9_000)
    assert life.incident["hint"] is None
    life.back("feature:amount", 20_000)
    assert life.incident["hint"] is None
    assert life.incident["summary"].endswith("largest score PSI 0.3")


def test_history_is_no_page_until_something_live_joins(life: Life) -> None:
    life.say("feature:amount", 10_000, since_ms=9_000, historical=True)
    assert life.incident["historical"]
    life.say("feature:age", 10_000, since_ms=9_000)
    assert not life.incident["historical"]


def test_line_for_a_person_says_what_since_when_and_how_much(life: Life) -> None:
    start = 1_769_856_130_000   # 2026-01-31 10:42:10 UTC, date -u -d @1769856130
    for name in ("a", "b", "c", "d"):
        life.say(f"feature:{name}", start + 6 * MINUTE, since_ms=start, effect=Effect("mean", 0.2))
    dutch = {"country": "NL"}
    life.say("feature:amount", start + 7 * MINUTE, since_ms=start, effect=Effect("mean", 1.21), segment=dutch)
    life.say("score", start + 8 * MINUTE, since_ms=start, effect=Effect("psi", 0.2))
    life.say("outcome:log_loss", start + 9 * MINUTE, since_ms=start, effect=Effect("mean", 0.4))
    assert life.incident["summary"] == (
        "fraud: 5 features, log_loss and score changed since 2026-01-31 10:42:10 UTC (+- 3 min), largest amount +1.2 sd in country=NL"
    )
    for series in ("feature:a", "feature:b", "feature:c", "feature:d", "score", "outcome:log_loss"):
        life.back(series, start + 60 * MINUTE)
    assert life.incident["summary"] == (
        "fraud in country=NL: amount changed since 2026-01-31 10:42:10 UTC (+- 3 min), largest amount +1.2 sd"
    )
    life.back("feature:amount", start + 120 * MINUTE, segment=dutch)
    assert life.incident["summary"] == (
        "fraud: over after 2 h, 5 features, log_loss and score had changed since 2026-01-31 10:42:10 UTC (+- 3 min): back_in_band"
    )


@pytest.mark.parametrize(("effect", "value", "baseline", "words"), [
    (Effect("psi", 0.31), 1.0, 2.0, "PSI 0.31"),
    (Effect("rate", 2.0), 0.03, 0.01, "0.03 instead of 0.01"),
    (Effect("rate", 2.0), None, None, "+200%"),
    (Effect("silence", 7_200.0), None, None, "silent for 2 h"),
    (Effect("silence", 1e307), None, None, "silent for inf d"),
])
def test_sizes_are_told_in_their_own_units(life: Life, effect: Effect, value: float, baseline: float, words: str) -> None:
    life.say("feature:amount", 10_000, since_ms=9_000, effect=effect, value=value, baseline_value=baseline)
    assert life.incident["summary"].endswith(f"largest amount {words}")


def test_what_fires_is_listed_first_then_what_is_loud_then_what_is_large(life: Life) -> None:
    """.2 of PSI are a shift of .45 sd; a rate of .5 that becomes .6 moves by .2 sd of one value."""
    life.say("feature:small", 10_000, since_ms=9_000, effect=Effect("mean", -0.3))
    life.say("feature:psi", 10_000, since_ms=9_000, effect=Effect("psi", 0.2))
    life.say("feature:rate", 10_000, since_ms=9_000, effect=Effect("rate", 0.2), value=0.6, baseline_value=0.5)
    life.say("feature:loud", 10_000, since_ms=9_000, effect=Effect("mean", 0.15), severity="critical")
    life.say("feature:over", 10_000, since_ms=9_000, effect=Effect("mean", 2.0), severity="critical")
    life.back("feature:over", 11_000)
    assert [one["series"].partition(":")[2] for one in life.incident["blamed"]] == ["loud", "psi", "small", "rate", "over"]


# -- a series that changes again


def further(nth: int = 1) -> ChangedAgain:
    return ChangedAgain(number=nth + 1, value_before=0.5, effect=Effect("mean", 0.5))


def test_further_change_of_a_series_is_an_incident_of_its_own_and_the_first_ends_without_it(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE + 2_000, since_ms=10 * MINUTE)
    life.say("feature:amount", 90 * MINUTE + 2_000, since_ms=90 * MINUTE, kind="evidence", again=further(), severity="critical")
    first, second = life.incidents
    assert (first["condition"], first["ends_at_ms"]) == ("resolved", 90 * MINUTE)
    assert first["reason"] == f"its last alert has changed again and is in incident {second['id']}"
    assert (second["condition"], second["starts_at_ms"], second["detected_at_ms"]) == ("firing", 90 * MINUTE, 90 * MINUTE + 2_000)
    assert second["summary"].startswith("fraud: amount changed again since 1970-01-01 01:30:00 UTC (+- 1 s)")
    (line,) = second["blamed"]
    assert (line["changes"], line["changed_at_ms"], line["starts_at_ms"]) == (2, 90 * MINUTE, 10 * MINUTE)
    assert set(life.of_alerts().values()) == {second["id"]}
    assert len({row.key for row in life.publisher.rows if row.topic == "driftline.alerts"}) == 1, "one alert, whose episode goes on"
    life.back("feature:amount", 100 * MINUTE)
    assert [one["condition"] for one in life.incidents] == ["resolved", "resolved"]
    assert [one["seq"] for one in life.incidents] == [2, 2]


def test_what_has_not_changed_again_keeps_the_first_incident_and_what_has_gathers_in_the_second(life: Life) -> None:
    for name in ("amount", "age", "country"):
        life.say(f"feature:{name}", 10 * MINUTE + 2_000, since_ms=10 * MINUTE)
    for name in ("amount", "age"):
        life.say(f"feature:{name}", 90 * MINUTE + 2_000, since_ms=90 * MINUTE, kind="evidence", again=further())
    life.say("feature:new", 90 * MINUTE + 3_000, since_ms=90 * MINUTE)
    first, second = life.incidents
    assert [(one["condition"], one["alerts"], one["firing"]) for one in (first, second)] == [("firing", 3, 1), ("firing", 3, 3)]
    assert {one["series"]: one["condition"] for one in first["blamed"]} == {
        "feature:country": "firing", "feature:amount": "resolved", "feature:age": "resolved",
    }  # fmt: skip
    assert "changed again" not in second["summary"], "one of them has not"


def test_further_change_that_is_dated_to_the_same_time_is_an_update(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE + 2_000, since_ms=10 * MINUTE)
    life.say("feature:amount", 11 * MINUTE, since_ms=10 * MINUTE + 50_000, kind="evidence", again=further())
    (line,) = life.incident["blamed"]
    assert (line["changes"], line["changed_at_ms"]) == (2, 10 * MINUTE + 50_000)
    assert "; amount changed again, last since 1970-01-01 00:10:50 UTC" in life.incident["summary"]


def test_later_evidence_leaves_the_date_of_a_further_change_as_it_is(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE + 2_000, since_ms=10 * MINUTE)
    life.say("feature:amount", 90 * MINUTE + 2_000, since_ms=90 * MINUTE, kind="evidence", again=further())
    life.say("feature:amount", 95 * MINUTE, kind="evidence", detector="severity", severity="critical")
    second = life.incidents[1]
    assert (second["starts_at_ms"], second["severity"], second["blamed"][0]["changed_at_ms"]) == (90 * MINUTE, "critical", 90 * MINUTE)
    assert len(life.incidents) == 2


def test_third_change_is_a_third_incident(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE + 2_000, since_ms=10 * MINUTE)
    for nth in (1, 2):
        life.say("feature:amount", nth * 90 * MINUTE + 2_000, since_ms=nth * 90 * MINUTE, kind="evidence", again=further(nth))
    assert [one["condition"] for one in life.incidents] == ["resolved", "resolved", "firing"]
    assert len({one["id"] for one in life.incidents}) == 3


# -- exactly once, in any order


def drift_of(draw: random.Random, event: MakeEvent, changes: int, *, again: bool = False) -> list[DriftEvent]:
    """Lives of alerts of changes ten minutes apart: each opens, is heard of again, and perhaps ends, at once with the others.

    Some series change `again` an hour later, further ones two hours later, before they end.
    """
    lives: list[list[DriftEvent]] = []
    for change in range(changes):
        start = (change + 1) * 10 * MINUTE
        for number in range(draw.randint(1, 5)):
            series = f"feature:c{change}n{number}"
            seen = start + draw.randint(1_000, 20_000)
            given = {"series": series, "episode": series, "record_time_ms": seen}
            dated = {"since": Since(Position("p", 0, 1), start + draw.randint(-2_000, 2_000)), "time_ms": seen}
            kinds = ["drift", *["evidence"] * draw.randint(0, 2), *["recovery"] * draw.randint(0, 1)]
            number_of = [draw.choice(("info", "warning", "critical")) for _ in kinds]
            own = [
                structs.replace(event(0), id=f"{series}/{step}", kind=kind, severity=loud, **given | dated)
                for step, (kind, loud) in enumerate(zip(kinds, number_of, strict=True))
            ]
            own[1:1] = [
                structs.replace(
                    event(0), id=f"{series}/again{nth}", kind="evidence", again=further(nth), **given,
                    since=Since(Position("p", 0, 1), start + nth * 60 * MINUTE), time_ms=seen + nth * 60 * MINUTE,
                )
                for nth in range(1, 1 + draw.randint(0, 2) * again)
            ]
            lives.append(own)
    mixed = []
    while lives:
        life = draw.choice(lives)
        mixed.append(life.pop(0))
        lives = [life for life in lives if life]
    return mixed


def essence(store: MemoryAlertStore) -> Any:
    """What the store says, without what it remembers against repeats."""
    alerts = [(state.alert, state.members) for state in (*store.open_alerts(), *store.recent_alerts(1_000))]
    return store.books(), store.recent_incidents(1_000), alerts


def sent(rows: Sequence[OutboxRow]) -> dict[tuple[str, str], str]:
    """Every record by its id; one that comes again must be the same."""
    found: dict[tuple[str, str], str] = {}
    for row in rows:
        assert found.setdefault((row.topic, dict(row.headers)["ce_id"]), row.value) == row.value
    return found


@pytest.fixture(scope="module")
def make_records(request: pytest.FixtureRequest) -> Callable[[Sequence[DriftEvent]], list[MemoryRecord]]:
    from driftline.schemas.contracts import cloud_event_headers, encode_event

    def make(events: Sequence[DriftEvent]) -> list[MemoryRecord]:
        return [
            MemoryRecord(
                "driftline.drift", 0, offset, b"fraud", encode_event(event), 0,
                cloud_event_headers(event, id=event.id, source="/driftline/test", subject="fraud", time_ms=event.time_ms),
            )
            for offset, event in enumerate(events)
        ]  # fmt: skip

    return make


def _event(number: int, **fields: Any) -> DriftEvent:
    from tests.alert.conftest import DEFAULTS

    return DriftEvent(**{"id": f"e{number}", "position": Position("p", 0, number), "time_ms": 0, "record_time_ms": 0, **DEFAULTS, **fields})


@given(seed=st.integers(0, 10_000), changes=st.integers(1, 3))
def test_changes_that_are_apart_are_told_apart_in_any_order(
    make_records: Callable[[Sequence[DriftEvent]], list[MemoryRecord]], seed: int, changes: int
) -> None:
    events = drift_of(random.Random(seed), _event, changes)
    publisher = Recording()
    worker_of(MemoryAlertStore(), publisher).handle(make_records(events))
    of: dict[str, set[str]] = {}
    for row in publisher.rows:
        if row.topic == "driftline.alerts":
            alert = orjson.loads(row.value)
            of.setdefault(alert["incident"], set()).add(alert["series"].partition("n")[0])
    assert all(len(causes) == 1 for causes in of.values())


@given(seed=st.integers(0, 10_000), batch=st.integers(1, 9), data=st.data())
def test_restarts_repeats_and_a_store_that_is_lost_change_nothing(
    make_records: Callable[[Sequence[DriftEvent]], list[MemoryRecord]], seed: int, batch: int, data: st.DataObject
) -> None:
    draw = random.Random(seed)
    events = drift_of(draw, _event, 3, again=True)
    for _ in range(3):   # detect repeats itself, within a batch
        place = draw.randrange(len(events))
        events.insert(place + 1, events[place])
    records = make_records(events)
    quiet, undisturbed = Recording(), MemoryAlertStore()
    worker_of(undisturbed, quiet).handle(records)

    publisher, store = Recording(), MemoryAlertStore()
    stop = data.draw(st.integers(0, len(records)), label="stop")
    worker = worker_of(store, publisher)
    for start in range(0, stop, batch):
        worker.handle(records[start : min(start + batch, stop)])
    if data.draw(st.booleans(), label="store lost"):
        # what was on its way when it died is there to any part of it
        del publisher.rows[data.draw(st.integers(max(0, len(publisher.rows) - 4 * batch), len(publisher.rows)), label="delivered") :]
        store = MemoryAlertStore()
        store.seed(published_by(publisher.rows))
    again = worker_of(store, publisher)
    again.republish([0])
    again.handle(records)
    assert essence(store) == essence(undisturbed)
    assert sent(publisher.rows) == sent(quiet.rows)


def test_resolved_incident_of_a_refilled_store_waits_for_the_events_up_to_its_end(drift_event: MakeEvent, drift_record: MakeRecord) -> None:
    """Its end was delivered, the alert's last two states were not."""
    events = [drift_event(1), drift_event(2, kind="evidence"), drift_event(3, kind="recovery")]
    records = [drift_record(event, offset) for offset, event in enumerate(events)]
    quiet = Recording()
    worker_of(MemoryAlertStore(), quiet).handle(records)
    delivered = [row for row in quiet.rows if row.topic == "driftline.incidents" or dict(row.headers)["ce_id"] == "ep1/1"]
    store, publisher = MemoryAlertStore(), Recording()
    store.seed(published_by(delivered))
    worker_of(store, publisher).handle(records)
    assert [state.incident.seq for state in store.recent_incidents(5)] == [2]
    assert not [row for row in publisher.rows if row.topic == "driftline.incidents"]


def test_alert_whose_next_episode_is_listed_already_is_not_put_in_its_place(life: Life) -> None:
    """Of a refilled store: the incident was delivered, the end of one episode and the start of the next were not."""
    life.say("feature:amount", 1_000, since_ms=900)
    life.say("feature:age", 1_000, since_ms=900)
    kept = list(life.publisher.rows)
    life.back("feature:age", 5_000)
    life.say("feature:age", 6_000, since_ms=5_500, life=2)
    last = life.rows[-1]
    store, publisher = MemoryAlertStore(), Recording()
    store.seed(published_by([*kept, last]))
    worker_of(store, publisher).republish([0])
    assert [row.value for row in publisher.rows if row.topic == last.topic] == [last.value]


# -- a store of before there were incidents


def older(raw: bytes) -> bytes:
    """The state of an alert as it was written before."""
    state = orjson.loads(raw)
    del state["alert"]["incident"]
    return orjson.dumps(state)


def test_open_alerts_of_an_older_store_are_adopted_once(
    redis_url: str, redis_prefix: str, drift_event: MakeEvent, drift_record: MakeRecord
) -> None:
    client = redis.Redis.from_url(redis_url)
    store, publisher = RedisAlertStore(client, redis_prefix), Recording()
    since = Since(Position("predictions", 0, 1), 900)
    events = [drift_event(number, series=f"feature:f{number}", episode=f"e{number}", since=since) for number in (1, 2, 3)]
    # The first to be detected is not the first by its last event.
    events.append(drift_event(4, kind="evidence", severity="critical", series="feature:f1", episode="e1", since=since))
    worker_of(store, publisher).handle([drift_record(event, number) for number, event in enumerate(events)])
    tag = f"{{{redis_prefix}:alert}}"
    client.delete(f"{tag}:books", f"{tag}:book_names", f"{tag}:incidents", f"{tag}:incidents_recent")
    for state in store.open_alerts():
        client.hset(f"{tag}:states", state.alert.fingerprint, older(encode_state(state)))
    alerts = [state.alert for state in store.open_alerts()]
    assert [alert.incident for alert in alerts] == [None] * 3

    publisher.rows.clear()
    upgraded = worker_of(store, publisher)
    assert upgraded.next_offset(0) == 4
    for _ in range(2):
        upgraded.republish([0])
    told = [orjson.loads(row.value) for row in publisher.rows if row.topic == "driftline.incidents"]
    assert len({one["id"] for one in told}) == 1
    assert {(one["seq"], one["alerts"]) for one in told} == {(3, 3)}
    assert [state.alert for state in store.open_alerts()] == alerts

    publisher.rows.clear()
    upgraded.handle([drift_record(drift_event(9, kind="recovery", series="feature:f2", episode="e2"), 9)])
    told = [orjson.loads(row.value) for row in publisher.rows if row.topic != "driftline.transitions"]
    assert [(one.get("incident") or one["id"]) for one in told] == [told[0]["id"]] * 2
    assert (told[0]["firing"], told[0]["alerts"]) == (2, 3)
    client.close()


def test_adopted_alerts_that_no_record_lists_are_placed_again_and_not_counted_twice(life: Life) -> None:
    many = LISTED_MAX + 5
    for number in range(many):
        life.say(f"feature:f{number:02}", 1_000 + number, since_ms=900, effect=Effect("mean", 0.2 + number / 100))
    life.store._books.clear()
    for state in life.store.open_alerts():
        life.store._states[state.alert.fingerprint] = older(encode_state(state))
    alerts = {state.alert.fingerprint: state for state in life.store.open_alerts()}
    life.publisher.rows.clear()
    worker_of(life.store, life.publisher).republish([0])
    assert life.incident["alerts"] == many

    life.store = MemoryAlertStore()
    life.store.seed(replace(published_by(life.rows), states=alerts))
    life.worker = worker_of(life.store, life.publisher)
    life.worker.republish([0])
    life.back("feature:f00", 9_000)
    assert (life.incident["alerts"], life.incident["firing"], life.incident["more"]) == (many, many - 1, 5)


def test_a_writer_that_lost_its_partition_adopts_nothing(life: Life) -> None:
    class Refusing(MemoryAlertStore):
        def apply(self, change: Applied) -> bool:
            return False

    life.say("feature:amount", 1_000, since_ms=900)
    refusing = Refusing()
    refusing.__dict__.update(life.store.__dict__)
    refusing._books.clear()
    assert worker_of(refusing, Recording()).republish([0]) == 1
    assert refusing.books() == {}


def test_incident_is_a_contract_that_the_state_keeps(life: Life) -> None:
    life.say("feature:amount", 1_000, since_ms=900)
    (book,) = life.store.books().values()
    assert isinstance(book.incidents[0].incident, Incident)
    assert orjson.loads(encode_state(book))["incidents"][0]["source"] == "topic-id/0"


BRAZIL = {"country": "BR"}


def test_segment_of_a_series_joins_what_that_is_in_and_no_other_incident_that_its_date_allows(life: Life) -> None:
    life.say("correlation:amount~n_items", 100 * MINUTE, since_ms=90 * MINUTE)
    life.say("block:emb", 1_000 * MINUTE, since_ms=990 * MINUTE)
    # Found two days late: its date is off by more than what lies between the two, and its own is nearer to the block's.
    life.say("correlation:amount~n_items", 4_000 * MINUTE, since_ms=980 * MINUTE, segment=BRAZIL, life=2)
    assert [[one["series"] for one in told["blamed"]] for told in life.incidents] == [["correlation:amount~n_items"] * 2, ["block:emb"]]


def test_series_that_came_back_a_moment_ago_stays_in_its_incident_beside_a_nearer_one(life: Life) -> None:
    life.say("feature:amount", 10 * MINUTE, since_ms=9 * MINUTE)
    life.say("feature:age", 10 * MINUTE, since_ms=9 * MINUTE)
    life.back("feature:age", 30 * MINUTE)
    life.say("score", 30 * MINUTE, since_ms=30 * MINUTE)
    life.say("feature:age", 30 * MINUTE + 40_000, since_ms=30 * MINUTE + 30_000, life=2)
    assert [told["firing"] for told in life.incidents] == [2, 1]


@pytest.mark.parametrize(("began", "sizes"), [(100, [2, 1]), (900, [1, 2])])
def test_late_alert_within_what_two_dates_may_be_off_by_joins_the_one_it_is_dated_nearer_to(
    life: Life, began: int, sizes: list[int]
) -> None:
    life.say("feature:amount", 100 * MINUTE, since_ms=90 * MINUTE)
    life.say("block:emb", 1_000 * MINUTE, since_ms=990 * MINUTE)
    life.say("feature:age", 8_000 * MINUTE, since_ms=began * MINUTE)
    assert [told["alerts"] for told in life.incidents] == sizes


@pytest.mark.parametrize(("series", "value", "who", "largest"), [
    ("quality:amount:missing", 0.281, "amount (missing)", "28.1 % of amount missing instead of 0 %"),
    ("quality:emb:invalid", 1.0, "emb (invalid)", "100 % of emb invalid instead of 0 %"),
    ("quality:net:amount:out_of_range", 0.5, "net:amount (out of range)", "50 % of net:amount out of range instead of 0 %"),
    ("stream:invalid", 0.727, "invalid rows", "invalid rows 72.7 % instead of 0 %"),
])  # fmt: skip
def test_what_is_wrong_with_values_is_told(life: Life, series: str, value: float, who: str, largest: str) -> None:
    life.say(series, 10_000, since_ms=9_000, effect=Effect("rate", 10.0), value=value, baseline_value=0.0)
    assert life.incident["summary"].startswith(f"fraud: {who} changed since ")
    assert life.incident["summary"].endswith(f", largest {largest}")


@pytest.mark.parametrize(("series", "found", "step", "words"), [
    ("quality:amount:missing", (Effect("rate", 5.0), 0.05), (Effect("rate", 0.4), 0.004),
     "0.4 % of amount missing instead of 0 % over its window, 5 % since the change"),
    ("outcome:error", (Effect("rate", 1.0), 0.4), (Effect("rate", 0.25), 0.25),
     "error 0.25 instead of 0 over its window, 0.4 since the change"),
    ("feature:amount", (Effect("mean", 1.2), 1.2), (Effect("psi", 0.3), 0.3), "amount PSI 0.3 over its window, +1.2 sd since the change"),
])  # fmt: skip
def test_step_of_severity_tells_the_level_since_the_change_beside_its_windows(
    life: Life, series: str, found: tuple[Effect, float], step: tuple[Effect, float], words: str
) -> None:
    level: dict[str, Any] = {"effect": found[0], "value": found[1], "baseline_value": 0.0, "detector": "e_detector"}
    life.say(series, 10_000, since_ms=9_000, n=180, severity="info", **level)
    assert life.incident["blamed"][0]["since_change"] is None
    life.say(series, 20_000, kind="evidence", detector="severity", effect=step[0], value=step[1], baseline_value=0.0, n=5_000)
    assert life.incident["summary"].removesuffix("; no feature changed with it").endswith(f", largest {words}")
    told = {"value": found[1], "effect": {"kind": found[0].kind, "size": found[0].size}, "n": 180, "time_ms": 10_000}
    assert life.incident["blamed"][0]["since_change"] == told


@pytest.mark.parametrize(("series", "effect", "value", "baseline", "words"), [
    ("stream:volume", 0.125, 0.125, 6_400.0, "volume 0.125 times what was expected"),
    ("stream:join_rate", 0.3, 0.62, None, "join_rate 62 %"),
    ("stream:labelled", -0.5, 0.47, 0.94, "labelled 47 % instead of 94 %"),
])  # fmt: skip
def test_levels_of_the_stream_have_their_units(
    life: Life, series: str, effect: float, value: float, baseline: float | None, words: str
) -> None:
    life.say(series, 10_000, since_ms=9_000, effect=Effect("rate", effect), value=value, baseline_value=baseline)
    assert life.incident["summary"].endswith(f", largest {words}")


def test_faults_of_a_feature_stand_beside_its_name_and_count_it_once(life: Life) -> None:
    life.say("feature:amount", 10_000, since_ms=9_000)
    for fault in ("missing", "invalid"):
        life.say(f"quality:amount:{fault}", 10_000, since_ms=9_000, effect=Effect("rate", 1.0), value=0.02, baseline_value=0.01)
    assert life.incident["summary"].startswith("fraud: amount (also invalid, missing) changed since ")
    for name in ("b", "c", "d"):
        life.say(f"quality:{name}:missing", 10_000, since_ms=9_000, effect=Effect("rate", 1.0), value=0.02, baseline_value=0.01)
    assert life.incident["summary"].startswith("fraud: 4 features changed since ")
