"""`run` beside a live stream: time goes on with the wall when the stream falls silent."""

from __future__ import annotations

import time
from pathlib import Path

import orjson

from driftline.streams.observation import LABELLED, UNLABELLED, Observations
from tests.conftest import Kafka
from tests.e2e.programs import Reader, driftline, produce, running, write_config

AGE_MS = 2_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _states(batch: Observations) -> list[int]:
    assert batch.label_state is not None
    return list(batch.label_state.tolist())


def test_predictions_come_of_age_by_the_wall_when_nothing_more_is_sent(
    kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    models = f"{{m: {{features: {{x: numeric}}, labels: {{ages: [{AGE_MS}ms]}}}}}}"
    config = write_config(tmp_path / "live.yml", kafka, redis_url, topic_prefix, models)
    driftline("topics", "create", config, "--sources")
    begun_ms = now_ms()
    with running(tmp_path / "log", config, "--processors", "ingest,join", "--time", "wall") as program:
        program.ready(2)
        events = [(now_ms(), orjson.dumps({"id": f"i{i}", "model": "m", "features": {"x": i}, "score": 0.5})) for i in range(20)]
        produce(kafka.bootstrap, f"{topic_prefix}.in", events)
        last_ms = now_ms()
        labels = [(now_ms(), orjson.dumps({"id": f"i{i}", "label": 1})) for i in range(0, 20, 2)]
        produce(kafka.bootstrap, f"{topic_prefix}.labels", labels)

        reader = Reader(kafka.bootstrap, f"{topic_prefix}-ours.observations")
        program.until(lambda: sum(map(len, reader.observations("outcomes"))) >= 20, 60)
        program.until(lambda: max((tick.tick_ms or 0 for tick in reader.observations("tick")), default=0) > last_ms + AGE_MS, 60)
        outcomes, ticks = reader.observations("outcomes"), [tick.tick_ms or 0 for tick in reader.observations("tick")]
        ended_ms = now_ms()
        reader.close()
        assert program.stop() == 0

    states = {offset: state for batch in outcomes for offset, state in zip(batch.offset.tolist(), _states(batch), strict=True)}
    assert states == {i: (UNLABELLED if i % 2 else LABELLED) for i in range(20)}
    assert sum(map(len, outcomes)) == 20
    assert ticks == sorted(ticks)
    assert begun_ms <= ticks[0]
    assert ticks[-1] <= ended_ms
