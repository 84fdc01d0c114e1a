"""The join rate against `min_join`: it opens, gets louder, and is back only when a whole window was above."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from driftline.schemas.config import Labels
from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.detect.join_rate import JoinRate, judged
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.observation import IMPLICIT, LABELLED, UNLABELLED, Observations, code, encode
from driftline.streams.task import MemoryRecord, Output, RestoredState

TOPIC = "driftline.observations"
CLUSTER = Cluster("c", {"p": "topic-id"}, {TOPIC: 1, "driftline.drift": 1, "driftline.snapshots": 1})
CONFIG = "predictions: p\nlabels: l\nmodels: {m: {window: 200, labels: LABELS}}"
GOOD, BAD = 2_000, 3_000
"""Rows from which labels stop, and from which they come again."""


def joined(rows: int, *, missing: int = UNLABELLED) -> np.ndarray:
    """Label states of rows: nine of ten labelled, but for the rows between GOOD and BAD, where it is one of ten."""
    index = np.arange(rows)
    rare = (index >= GOOD) & (index < BAD)
    return np.where((index % 10 == 0) == rare, LABELLED, missing).astype(np.int8)


def records(sizes: list[int], *, states: np.ndarray | None = None, ages: tuple[int | None, ...] = (60_000,)) -> list[MemoryRecord]:
    states = joined(sum(sizes)) if states is None else states
    out: list[MemoryRecord] = []
    for age in ages:
        start = 0
        for seq, size in enumerate(sizes, 1):
            part, index = slice(start, start + size), np.arange(start, start + size)
            labelled = states[part] != UNLABELLED
            batch = Observations(
                "outcomes", "m", f"join/{age}/0", seq, [("p", 0)], age_ms=age, offset=index, source=np.zeros(size, np.uint16),
                time_ms=index * 1_000, record_ms=index * 1_000, version=code([f"v{i % 2}" for i in index]),
                score=np.full(size, 0.3), label=np.where(labelled, 0.0, np.nan),
                delay_ms=np.where(labelled, 10.0, np.nan), label_state=states[part],
            )  # fmt: skip
            out.append(MemoryRecord(TOPIC, 0, len(out), b"m", encode(batch), 0))
            start += size
    return out


def task(labels: str = "{ages: [60s]}", state: RestoredState | None = None) -> DetectTask:
    config = parse_config(CONFIG.replace("LABELS", labels), name="test.yml")
    return DetectProcessor(config, CLUSTER).open("detect/0", state or RestoredState())


def events(outputs: list[Output]) -> list[dict[str, Any]]:
    found = [orjson.loads(o.value or b"") for o in outputs if o.topic == "driftline.drift"]
    return [event for event in found if event["series"] == "stream:join_rate"]


def run(task: DetectTask, rows: list[MemoryRecord]) -> list[dict[str, Any]]:
    return events(task.process({(TOPIC, 0): rows}))


def test_labels_that_stop_open_an_episode_a_version_and_their_return_ends_it() -> None:
    found = run(task(), records([5_000]))
    for version in ("v0", "v1"):
        story = [(e["kind"], e["severity"]) for e in found if e["version"] == version]
        assert story == [("drift", "warning"), ("evidence", "critical"), ("recovery", "info")]
    opened = found[0]
    assert GOOD < opened["position"]["offset"] < GOOD + 400  # 200 rows of a version are 400 rows of the topic
    assert opened["value"] < opened["threshold"] == 0.5
    assert opened["n"] == opened["window"] == 200
    assert opened["monitor"] == "stream"
    assert [word for word in ("id", "type", "labels.absent", "within the age") if word not in opened["reason"]] == []
    assert {e["episode"] for e in found if e["version"] == "v0"} == {opened["episode"]}


def test_the_share_in_the_event_is_the_share_of_the_window_counted_plainly() -> None:
    states = joined(5_000)
    for event in run(task(), records([5_000])):
        mine = states[event["position"]["offset"] % 2 : event["position"]["offset"] + 1 : 2]
        assert event["value"] == pytest.approx(np.mean(mine[-200:] == LABELLED))


@pytest.mark.parametrize("sizes", [[1] * 300 + [4_700], [777] * 6 + [338], [2_001, 2_999], [250] * 20])
def test_any_cut_of_the_rows_gives_the_same_events(sizes: list[int]) -> None:
    assert run(task(), records(sizes)) == run(task(), records([5_000]))


def test_a_restart_at_every_commit_changes_nothing() -> None:
    whole, sizes = run(task(), records([5_000])), [130] * 38 + [60]
    blobs: dict[str, bytes] = {}
    found: list[dict[str, Any]] = []
    watched = '{ages: [60s]}, monitors: [{id: stream, series: "stream:join_rate"}]'
    alone = run(task(watched), records([5_000]))
    for record in records(sizes):
        again = task(watched, RestoredState(dict(blobs), {}))
        found += run(again, [record])
        blobs.update({name: blob for name, blob in again.checkpoint().blobs.items() if blob is not None})
    assert found == alone
    assert [e["position"] for e in alone] == [e["position"] for e in whole]


def test_implicit_labels_do_not_count_and_are_judged_only_where_the_file_asks() -> None:
    states = np.full(2_000, IMPLICIT, np.int8)
    assert run(task("{ages: [60s], absent: 0}"), records([2_000], states=states)) == []
    asked = run(task("{ages: [60s], absent: 0, min_join: 0.5}"), records([2_000], states=states))
    assert [(e["kind"], e["value"]) for e in asked] == [("drift", 0.0)] * 2


def test_only_the_greatest_age_is_judged() -> None:
    found = run(task("{ages: [60s, 1h]}"), records([5_000], ages=(60_000,)))
    assert found == []
    assert run(task("{ages: [60s, 1h]}"), records([5_000], ages=(3_600_000,)))


def test_min_join_zero_means_never() -> None:
    assert run(task("{ages: [60s], min_join: 0}"), records([2_000], states=np.full(2_000, UNLABELLED, np.int8))) == []
    assert not judged(Labels(min_join=0), None)


def test_a_measured_age_is_judged() -> None:
    assert run(task("{}"), records([5_000], ages=(None,)))[0]["reason"].split(",")[0].endswith("at the measured age")


def test_a_share_that_stays_near_the_limit_does_not_open_and_close_again_and_again() -> None:
    draw = np.random.default_rng(3)
    signals = list(JoinRate(0.5, 200, 0.25).update(draw.random(200_000) < 0.5))
    # A plain comparison at every step would change its mind some 1,500 times in these 10,000 steps.
    assert len(signals) < 600


def test_counts_of_another_window_are_begun_anew_and_an_open_episode_stays_open() -> None:
    join = JoinRate(0.5, 100, 0.25)
    assert [s.kind for _, s in join.update(np.zeros(500, np.bool_))] == ["drift"]
    again = JoinRate.restore(0.5, 200, 0.25, join.export())
    assert [(row, s.kind) for row, s in again.update(np.ones(1_000, np.bool_))] == [(379, "recovery")]
