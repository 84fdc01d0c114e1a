"""A model that stops while its topic stays busy: ingest tells it the time, and `stream:freshness` opens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from driftline.schemas.config import Config
from driftline.streams.detect.task import DetectProcessor
from driftline.streams.ingest import IngestProcessor, MemoryCounters
from driftline.streams.observation import Observations, decode
from driftline.streams.replay import Replay, file_cluster
from driftline.streams.task import Idle, MemoryRecord, Output
from tests.ingest.streams import T0, Ingest, config, event, record

MODELS: dict[str, Any] = {"busy": {"freshness": "30s"}, "quiet": {"freshness": "30s"}}
CONFIG = config(models=MODELS, labels=False)
SECONDS = 300


def prediction(offset: int, model: str, second: int) -> MemoryRecord:
    return record(event(id=str(offset), time=T0 + 1_000 * second, model=model), offset, at=T0 + 1_000 * second)


def stream(quiet: Sequence[int]) -> list[MemoryRecord]:
    """A record of `busy` each second, and one of `quiet` in these seconds."""
    rows = [(second, model) for second in range(SECONDS) for model in ("busy", "quiet") if model == "busy" or second in quiet]
    return [prediction(offset, model, second) for offset, (second, model) in enumerate(rows)]


def replaying(settings: Config) -> tuple[Replay, list[Output]]:
    outputs: list[Output] = []
    places = file_cluster(settings)
    return Replay([IngestProcessor(settings, places, MemoryCounters()), DetectProcessor(settings, places)], places, outputs.append), outputs


def of_freshness(outputs: list[Output]) -> list[dict[str, Any]]:
    events = [orjson.loads(output.value or b"") for output in outputs if output.topic.endswith(".drift")]
    return [found for found in events if found["series"] == "stream:freshness"]


def replayed(records: list[MemoryRecord], size: int) -> list[dict[str, Any]]:
    replay, outputs = replaying(CONFIG)
    for start in range(0, len(records), size):
        replay.feed(records[start : start + size])
    replay.finish(mature=True)
    return of_freshness(outputs)


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_model_that_goes_silent_among_others_is_an_event_at_the_same_moment_whatever_the_cut(size: int) -> None:
    (found,) = replayed(stream(range(100)), size)
    assert (found["model"], found["kind"], found["value"]) == ("quiet", "drift", 30.0)
    assert found["time_ms"] == T0 + 99_000 + 30_000
    assert found["position"]["offset"] == 199


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_model_that_comes_back_within_a_batch_was_silent_all_the_same(size: int) -> None:
    found = replayed(stream([*range(100), *range(200, SECONDS)]), size)
    assert [(event["kind"], event["time_ms"] - T0) for event in found] == [("drift", 129_000), ("recovery", 200_000)]


def values(ingest: Ingest) -> list[bytes]:
    return [output.value for output in ingest.outputs if output.value]


def ticks(ingest: Ingest) -> list[Observations]:
    return [batch for batch in map(decode, values(ingest)) if batch.kind == "tick"]


def test_a_tick_of_an_idle_partition_hides_no_silence() -> None:
    """`quiet` at 70.2 and 103 s, `busy` all the time: silent from 100.2 on, whether or not the wall told the time just before."""
    rows = sorted([*((200 * i, "busy") for i in range(600)), (70_200, "quiet"), (103_000, "quiet")])
    records = [record(event(id=str(i), time=T0 + ms, model=model), i, at=T0 + ms) for i, (ms, model) in enumerate(rows)]
    found = []
    for idle_ms in (None, 100_150):
        replay, outputs = replaying(CONFIG)
        replay.feed([one for one in records if one.timestamp()[1] <= T0 + 100_150])
        if idle_ms is not None:
            stage = replay._stages[0]
            for task in stage.tasks.values():
                replay._publish(task.tick(Idle(T0 + idle_ms, frozenset(stage.inputs_of(task)))))
        replay.feed([one for one in records if one.timestamp()[1] > T0 + 100_150])
        found.append([(e["kind"], e["time_ms"] - T0) for e in of_freshness(outputs) if e["model"] == "quiet"])
    assert found == [[("drift", 100_200), ("recovery", 103_000)]] * 2


def test_a_freshness_below_a_second_is_watched_as_it_says() -> None:
    settings = config(models={"busy": {"freshness": None}, "quiet": {"freshness": "500ms"}}, labels=False)
    rows = sorted([*((50 * i, "busy") for i in range(60)), (200, "quiet"), (1_500, "quiet"), (1_900, "quiet"), (2_300, "quiet")])
    replay, outputs = replaying(settings)
    replay.feed([record(event(id=str(i), time=T0 + ms, model=model), i, at=T0 + ms) for i, (ms, model) in enumerate(rows)])
    kinds = [(e["kind"], e["time_ms"] - T0) for e in of_freshness(outputs)]
    assert kinds[:2] == [("drift", 700), ("recovery", 1_500)]


def test_models_with_rows_get_no_ticks_and_silent_ones_one_an_interval() -> None:
    ingest = Ingest(CONFIG)
    for one in stream(range(0)):
        ingest.take(one)
    assert {batch.model for batch in ticks(ingest)} == {"quiet"}
    # A tenth of the freshness: 3 s.
    assert len(ticks(ingest)) <= SECONDS / 3 + 1
    assert all((batch.tick_ms or 0) % 3_000 == 0 for batch in ticks(ingest))


def test_a_model_whose_rows_come_steadily_has_one_batch_that_no_tick_cuts() -> None:
    ingest = Ingest(CONFIG)
    # Both every second, 3 s being the interval: a multiple falls between two rows of each.
    ingest.take(*stream(range(SECONDS)))
    found = [(batch.kind, len(batch)) for batch in map(decode, values(ingest)) if batch.model == "quiet"]
    # Nothing is known of it before its first row.
    assert found == [("tick", 0), ("predictions", SECONDS)]


def test_a_topic_of_one_model_has_no_ticks_however_sparse_it_is() -> None:
    ingest = Ingest(config(models={"busy": {"freshness": "30s"}}, labels=False))
    for offset in range(10):
        ingest.take(prediction(offset, "busy", 600 * offset))
    # The first record has nothing before it that it could be told from.
    assert ticks(ingest) == []


def test_a_model_whose_silence_means_nothing_has_no_ticks() -> None:
    ingest = Ingest(config(models={"busy": {}, "quiet": {"freshness": None, "stale": None}}, labels=False))
    ingest.take(*stream(range(1)))
    assert ticks(ingest) == []


def test_sequence_numbers_count_ticks_among_the_rows_they_stand_between() -> None:
    ingest = Ingest(CONFIG)
    ingest.take(*stream(range(0, SECONDS, 50)))
    batches = list(map(decode, values(ingest)))
    mine = [batch for batch in batches if batch.model == "quiet"]
    assert [batch.kind for batch in mine] == ["tick", *["predictions", "tick"] * 6]
    for partition in {output.partition for output in ingest.outputs}:
        numbers = [decode(o.value).seq for o in ingest.outputs if o.partition == partition and o.value]
        assert numbers == list(range(1, len(numbers) + 1))
