from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftline.schemas.config import TimeUnit
from driftline.streams.ingest.values import NO_TIME, time_ms, times_ms
from driftline.streams.task import FINAL_MS, Idle
from tests.ingest.streams import T0, Ingest, config, event, record

DAY = 86_400_000
_FIRST, _LAST = datetime(1900, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1_760_000_000, "auto", T0),
        (1_760_000_000.25, "auto", T0 + 250),
        (T0, "auto", T0),
        (T0 * 1_000 + 999, "auto", T0 + 1),
        (1_760_000_000, "ms", 1_760_000_000),
        (5, "s", 5_000),
        ("2025-10-09T08:53:20Z", "auto", T0),
        ("2025-10-09T10:53:20.123456+02:00", "iso", T0 + 123),
        ("2025-10-09 08:53:20", "auto", T0),
        ("2025-10-09", "auto", T0 - 32_000_000),
        ("yesterday", "auto", NO_TIME),
        ("1760000000", "auto", NO_TIME),
        (True, "auto", NO_TIME),
        (None, "auto", NO_TIME),
        (float("nan"), "auto", NO_TIME),
        (10**400, "s", NO_TIME),
        (5, "iso", NO_TIME),
    ],
)
def test_times_are_read_by_unit_or_by_their_magnitude(value: object, unit: TimeUnit, expected: int) -> None:
    assert time_ms(value, unit) == expected


@settings(deadline=None)
@example([1e306], "s")
@example([1e306, None], "s")
@given(
    st.lists(
        st.one_of(
            st.integers(-(10**20), 10**20), st.integers(10**11, 10**14), st.floats(), st.none(), st.booleans(), st.text(max_size=30),
            st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat), st.datetimes().map(str),
        ),
        min_size=1,
    ),
    st.sampled_from(["auto", "iso", "s", "ms", "us"]),
)  # fmt: skip
def test_a_column_of_times_reads_each_as_it_would_be_alone(values: list[object], unit: TimeUnit) -> None:
    assert times_ms(values, unit).tolist() == [time_ms(value, unit) for value in values]


@settings(deadline=None)
@example([datetime(2107, 1, 1, 0, 0, 0, 99_999, tzinfo=UTC)])
@given(st.lists(st.datetimes(min_value=_FIRST, max_value=_LAST, timezones=st.just(UTC)), min_size=1))
def test_iso_times_agree_with_the_standard_library(moments: list[datetime]) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [(m - epoch).days * DAY + (m - epoch).seconds * 1_000 + (m - epoch).microseconds // 1_000 for m in moments]
    assert times_ms([m.isoformat() for m in moments], "auto").tolist() == expected


@pytest.mark.parametrize(
    ("time", "kept"),
    [(T0 - 30 * DAY, True), (T0 - 30 * DAY - 1, False), (T0 + 600_000, True), (T0 + 600_001, False), (0, False),
     ("2099-01-01T00:00:00Z", False)],
)  # fmt: skip
def test_an_implausible_event_time_is_replaced_by_record_time_and_counted(time: object, kept: bool) -> None:
    ingest = Ingest().take(record(event(time=time)))
    assert (ingest.observation().time_ms[0] == T0) != kept
    assert ingest.counters.value("time_replaced", model="fraud") == (not kept)


@pytest.mark.parametrize("time", ["soon", None, {}, True])
def test_an_unreadable_event_time_falls_back_to_record_time(time: object) -> None:
    assert Ingest().take(record(event(time=time))).observation().time_ms.tolist() == [T0]


def test_an_event_time_serves_where_the_broker_gave_none() -> None:
    ingest = Ingest().take(record(event(), at=-1), record(event(time="soon"), 1, at=-1))
    assert ingest.observation().record_ms.tolist() == [T0]
    assert ingest.reasons() == ["time"]


def test_no_mapped_time_means_record_time() -> None:
    assert Ingest(config(fields={"time": None})).take(record(event(time=5))).observation().time_ms.tolist() == [T0]


def test_a_record_time_ahead_of_the_wall_is_clipped_once_the_wall_is_known() -> None:
    ingest = Ingest()
    ingest.task.tick(Idle(T0, frozenset()))
    ingest.take(record(event(), at=T0 + 80 * 365 * DAY))
    assert ingest.observation().record_ms.tolist() == [T0 + 5_000]
    assert {block.tick_ms for block in ingest.waiting()} == {T0 + 5_000}


def test_without_a_wall_record_times_stand() -> None:
    assert Ingest().take(record(event(), at=T0 + 80 * 365 * DAY)).observation().record_ms.tolist() == [T0 + 80 * 365 * DAY]


def tick(ingest: Ingest, time_ms: int, *, at_end: bool = True) -> None:
    ingest.outputs = ingest.task.tick(Idle(time_ms, frozenset({ingest.partition} if at_end else ())))


def test_a_block_carries_the_running_maximum_of_record_times() -> None:
    ingest = Ingest().take(record(event(), at=T0 + 50), record(event(id="b"), 1, at=T0))
    ingest.take(record(event(id="c"), 2, at=T0 + 20))
    assert {block.tick_ms for block in ingest.waiting()} == {T0 + 50}


def test_only_a_partition_at_its_end_is_ticked() -> None:
    ingest = Ingest().take(record(event()))
    tick(ingest, T0 + 5_000, at_end=False)
    assert ingest.outputs == []
    tick(ingest, T0 + 5_000)
    assert [b.tick_ms for b in ingest.observations("tick")] == [T0 + 5_000]
    assert [(len(b), b.tick_ms) for b in ingest.waiting()] == [(0, T0 + 5_000)] * 2


def test_a_tick_goes_to_every_model_and_takes_a_sequence_number() -> None:
    conf = config(models={"fraud": {"features": {}}, "ads": {"features": {}}})
    ingest = Ingest(conf).take(record(event()))
    tick(ingest, T0 + 1_000)
    assert sorted((b.model, b.tick_ms) for b in ingest.observations("tick")) == [("ads", T0 + 1_000), ("fraud", T0 + 1_000)]


def test_a_label_source_ticks_every_labels_partition_and_no_model() -> None:
    ingest = Ingest(topic="labels")
    tick(ingest, T0)
    assert [(o.topic, o.partition) for o in ingest.outputs] == [("driftline.labels", 0), ("driftline.labels", 1)]


def test_ticks_come_at_most_once_a_second_and_never_go_back() -> None:
    ingest = Ingest(topic="labels")
    seen = []
    for time in (T0, T0 + 400, T0 + 999, T0 + 1_000, T0 - 50_000, T0 + 1_500, T0 + 2_100):
        tick(ingest, time)
        seen += [block.tick_ms for block in ingest.labels()]
    assert seen == [T0, T0, T0 + 1_000, T0 + 1_000, T0 + 2_100, T0 + 2_100]


def test_a_tick_behind_the_data_says_how_far_the_data_is() -> None:
    ingest = Ingest(topic="labels").take(record({"id": "a", "label": 1}, topic="labels", at=T0 + 9_000))
    tick(ingest, T0 + 5_000)
    assert {block.tick_ms for block in ingest.labels()} <= {T0 + 9_000}


def test_the_end_of_the_input_is_said_once_and_again_after_more_data() -> None:
    ingest = Ingest(topic="labels")
    tick(ingest, FINAL_MS)
    assert {block.tick_ms for block in ingest.labels()} == {FINAL_MS}
    tick(ingest, FINAL_MS)
    assert ingest.outputs == []
    ingest.take(record({"id": "a", "label": 1}, topic="labels"))
    assert {block.tick_ms for block in ingest.labels()} == {T0}
    tick(ingest, FINAL_MS)
    assert {block.tick_ms for block in ingest.labels()} == {FINAL_MS}


def test_a_partition_without_rows_hears_of_time_while_data_flows() -> None:
    ingest = Ingest(topic="labels")
    for n in range(20):
        ingest.take(record({"id": "always the same", "label": 1}, n, topic="labels", at=T0 + 500 * n))
    quiet = [o for o in ingest.outputs if o.partition != ingest.outputs[0].partition or o is None]
    assert 9 <= len(quiet) <= 11


def test_without_labels_topics_nothing_waits() -> None:
    ingest = Ingest(config(labels=False)).take(record(event()))
    tick_outputs = ingest.task.tick(Idle(T0 + 1_000, frozenset({ingest.partition})))
    assert {o.topic for o in (*ingest.outputs, *tick_outputs)} == {"driftline.observations"}
