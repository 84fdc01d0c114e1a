"""Episodes of what stopped coming: ended by time, the same however the log is cut, ticked or restarted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest

from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.detect.join_rate import JoinRate
from driftline.streams.detect.ledger import Ledger, pieces
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.observation import LABELLED, UNLABELLED, Observations, code, encode
from driftline.streams.task import MemoryRecord, Output, RestoredRing, RestoredState

TOPIC = "driftline.observations"
CLUSTER = Cluster("c", {"p": "topic-id"}, {TOPIC: 1, "driftline.drift": 1, "driftline.snapshots": 1})
HOUR = 3_600_000
CONFIG = """
predictions: p
labels: l
models:
  m:
    features: {a: numeric}
    segments: [s]
    window: 200
    freshness: null
    stale: 24h
    baseline: {learn: 400, settle: 0s}
    monitors:
      - {id: all, series: ["*"], detectors: [psi, page_hinkley, rate], run_length: 1.0e+6}
"""
QUIET, DRIFTED, OTHERS = 1_200, 300, 400
"""Rows of version v0; rows of v0 in segment BR with other scores and `a`; rows of v1 in MX, a tenth of an hour apart."""
ROWS = QUIET + DRIFTED + OTHERS
GONE_MS = (QUIET + DRIFTED - 1) * 100
REASON = "closed because nothing came for 24h, not because it recovered"


@dataclass
class Rows:
    """Columns of the whole stream; version v0 and segment BR end with row `QUIET + DRIFTED`."""

    draw: Any = field(default_factory=lambda: np.random.default_rng(7))

    def __post_init__(self) -> None:
        index = np.arange(ROWS)
        drifted = (index >= QUIET) & (index < QUIET + DRIFTED)
        others = index >= QUIET + DRIFTED
        self.a = self.draw.normal(size=ROWS) + 2.0 * drifted
        self.score = np.clip(self.draw.beta(2, 9, ROWS) + 0.4 * drifted, 0, 1)
        self.version = np.where(others, "v1", "v0").tolist()
        self.segment = np.where(drifted, "BR", np.where(others, "MX", self.draw.choice(["BR", "MX"], ROWS))).tolist()
        self.time_ms = np.where(others, GONE_MS + (index - QUIET - DRIFTED + 1) * (HOUR // 10), index * 100)

    def batch(self, start: int, stop: int, seq: int) -> MemoryRecord:
        part, n = slice(start, stop), stop - start
        found = Observations(
            "predictions", "m", "ingest/p/0", seq, [("p", 0)], offset=np.arange(start, stop), source=np.zeros(n, np.uint16),
            time_ms=self.time_ms[part], record_ms=self.time_ms[part], version=code(self.version[part]), numeric_names=["a"],
            numeric=self.a[part].reshape(-1, 1), score=self.score[part], segments={"s": code(self.segment[part])},
        )  # fmt: skip
        return record(found)


def record(batch: Observations) -> MemoryRecord:
    return MemoryRecord(TOPIC, 0, batch.seq - 1, b"m", encode(batch), 0)


def stream(cuts: Sequence[int] = ()) -> list[MemoryRecord]:
    rows = Rows()
    return [rows.batch(a, b, seq) for seq, (a, b) in enumerate(pairwise([0, *cuts, ROWS]), 1)]


def open_task(state: RestoredState | None = None) -> DetectTask:
    return DetectProcessor(parse_config(CONFIG, name="test.yml"), CLUSTER).open("detect/0", state or RestoredState())


def run(task: DetectTask, records: Sequence[MemoryRecord]) -> list[Output]:
    return task.process({(TOPIC, 0): records})


def events(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    return [orjson.loads(o.value or b"") for o in outputs if o.topic == "driftline.drift"]


def stale(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    return [event for event in events(outputs) if event["detector"] == "stale"]


def test_a_version_and_a_segment_that_stop_end_their_episodes_a_day_later_and_say_so() -> None:
    outputs = run(open_task(), stream())
    ended = stale(outputs)
    assert {(e["series"], e["version"], str(e["segment"])) for e in ended} >= {
        ("score", "v0", "None"), ("score", "v0", "{'s': 'BR'}"), ("feature:a", None, "{'s': 'BR'}"),
    }  # fmt: skip
    opened = {e["episode"] for e in events(outputs) if e["kind"] == "drift"}
    for event in ended:
        assert (event["kind"], event["reason"]) == ("recovery", REASON)
        assert (event["time_ms"], event["record_time_ms"]) == (GONE_MS + 24 * HOUR,) * 2
        # The last row of the model before that moment: v1's 240th.
        assert event["position"]["offset"] == QUIET + DRIFTED + 239
        assert event["episode"] in opened
    assert not [e for e in ended if e["version"] == "v1" or e["segment"] == {"s": "MX"}]


def test_without_a_limit_such_an_episode_stays_open() -> None:
    text = CONFIG.replace("stale: 24h", "stale: null")
    task = DetectProcessor(parse_config(text, name="test.yml"), CLUSTER).open("detect/0", RestoredState())
    assert stale(run(task, stream())) == []


@pytest.mark.parametrize("cuts", [range(1, ROWS, 97), [1_499, 1_500, 1_739, 1_740, 1_741], range(1_490, ROWS)])
def test_however_the_log_is_cut_they_end_at_the_same_row(cuts: Sequence[int]) -> None:
    assert run(open_task(), stream(cuts)) == run(open_task(), stream())


def ticked(records: list[MemoryRecord], times: Sequence[int]) -> list[MemoryRecord]:
    """The records, and after them ticks."""
    ticks = [Observations("tick", "m", "ingest/p/0", len(records) + k, [("p", 0)], tick_ms=t) for k, t in enumerate(times, 1)]
    return [*records, *map(record, ticks)]


def test_ticks_end_them_when_the_whole_model_is_silent_at_the_same_moment_however_many_there_are() -> None:
    silent = stream([QUIET + DRIFTED])[:1]
    limit = GONE_MS + 24 * HOUR
    before = open_task()
    assert stale(run(before, ticked(silent, [limit - 1, limit]))) == []
    few = stale(run(open_task(), ticked(silent, [limit + HOUR])))
    assert {event["time_ms"] for event in few} == {limit}
    assert {event["position"]["offset"] for event in few} == {QUIET + DRIFTED - 1}
    assert few
    assert stale(run(open_task(), ticked(silent, range(GONE_MS, limit + HOUR, HOUR // 7)))) == few


def test_a_restart_at_every_batch_changes_nothing() -> None:
    cuts = range(50, ROWS, 150)
    blobs: dict[str, bytes] = {}
    rings: dict[str, RestoredRing] = {}
    outputs: list[Output] = []
    for one in stream(cuts):
        task = open_task(RestoredState(dict(blobs), dict(rings)))
        outputs += run(task, [one])
        delta = task.checkpoint()
        for name, blob in delta.blobs.items():
            if blob is None:
                blobs.pop(name, None)
            else:
                blobs[name] = blob
        for ring in delta.rings:
            before = b"" if ring.full or ring.name not in rings else rings[ring.name].rows
            rows = (before + ring.rows)[-ring.window * ring.record_bytes :]
            rings[ring.name] = RestoredRing(ring.name, ring.record_bytes, ring.window, ring.head, rows)
    assert outputs == run(open_task(), stream())


def outcome(seq: int, start: int, n: int, *, version: str, labelled: bool, time_ms: int) -> MemoryRecord:
    return record(Observations(
        "outcomes", "m", "join/0", seq, [("p", 0)], age_ms=None, offset=np.arange(start, start + n), source=np.zeros(n, np.uint16),
        time_ms=np.full(n, time_ms), record_ms=np.full(n, time_ms), version=code([version] * n), score=np.full(n, 0.1),
        label=np.full(n, 0.0 if labelled else np.nan), label_state=np.full(n, LABELLED if labelled else UNLABELLED, np.int8),
        delay_ms=np.full(n, 1_000.0 if labelled else np.nan), segments={"s": code(["BR"] * n)},
    ))  # fmt: skip


def test_a_join_rate_that_was_low_when_its_version_stopped_ends_too() -> None:
    records = [outcome(1, 0, 300, version="v0", labelled=False, time_ms=0)]
    records += [outcome(2 + k, 300 + k, 1, version="v1", labelled=True, time_ms=k * HOUR) for k in range(30)]
    found = [event for event in events(run(open_task(), records)) if event["series"] == "stream:join_rate"]
    assert [(event["kind"], event["version"], event["detector"]) for event in found] == [
        ("drift", "v0", "join_rate"), ("recovery", "v0", "stale"),
    ]  # fmt: skip
    assert (found[1]["reason"], found[1]["time_ms"], found[1]["position"]["offset"]) == (REASON, 24 * HOUR, 300 + 24)


def test_outcomes_of_a_model_that_is_gone_end_by_the_ticks_of_the_join() -> None:
    low = outcome(1, 0, 300, version="v0", labelled=False, time_ms=0)

    def told(*times: int) -> list[dict[str, Any]]:
        ticks = [record(Observations("outcomes", "m", "join/0", 2 + k, [], tick_ms=t)) for k, t in enumerate(times)]
        return stale(run(open_task(), [low, *ticks]))

    assert told(24 * HOUR) == []
    (found,) = told(24 * HOUR + 1)
    assert (found["series"], found["time_ms"], found["position"]["offset"]) == ("stream:join_rate", 24 * HOUR, 299)
    assert told(*range(0, 40 * HOUR, HOUR)) == [found]


def test_a_join_rate_that_is_still_low_opens_anew_after_a_window() -> None:
    rate = JoinRate(0.5, 100, 0.25)
    low = np.zeros(100, np.bool_)
    assert [signal.kind for _, signal in rate.update(low)] == ["drift"]
    assert (rate.expire().stale, rate.open) == (True, False)
    assert [(row, signal.kind) for row, signal in rate.update(low)] == [(99, "drift")]


def test_time_is_that_of_the_slowest_source_and_never_goes_back() -> None:
    ledger = Ledger()
    assert ledger.rows(np.array([10, 30, 20]), np.zeros(3, np.uint16)).tolist() == [10, 30, 30]
    assert ledger.rows(np.array([15, 40, 60]), np.array([1, 0, 1], np.uint16)).tolist() == [30, 30, 40]
    assert ledger.tick(100, 0) == 60
    assert Ledger.restore(orjson.loads(orjson.dumps(ledger.export()))) == ledger
    assert ledger.rows(np.array([70]), np.array([1], np.uint16)).tolist() == [70]


def test_pieces_end_where_something_may_be_due() -> None:
    clock = np.array([0, 5, 11, 12, 30])
    assert list(pieces(clock, None, lambda: 3)) == [(0, 5)]
    assert list(pieces(clock, 100, lambda: None)) == [(0, 5)]
    # What opens within a piece is due a limit after its first row.
    assert list(pieces(clock, 11, lambda: None)) == [(0, 3), (3, 4), (4, 5)]
    asked = iter([5, 11, 11, 40, 40])
    assert list(pieces(clock, 100, lambda: next(asked))) == [(0, 2), (2, 3), (3, 3), (3, 5)]
