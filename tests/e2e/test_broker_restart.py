"""The broker goes away and comes back under a running pipeline: no row is lost and none is there twice."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import orjson

from driftline.streams.local.kafka import LocalKafka
from tests.e2e.programs import Reader, driftline, produce, running

T0 = 1_700_000_000_000
ROWS, AWAY, CHANGE = 3_000, 1_000, 2_000


def test_a_broker_that_restarts_costs_no_row_and_repeats_none(redis_url: str, redis_prefix: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    numbers = draw.normal(size=ROWS) + np.where(np.arange(ROWS) >= CHANGE, 1.5, 0.0)
    times = [T0 + i * 1_000 for i in range(ROWS)]
    events = [{"id": f"i{i}", "model": "m", "time": times[i], "features": {"x": float(numbers[i])}, "score": 0.5} for i in range(ROWS)]
    records = list(zip(times, map(orjson.dumps, events), strict=True))
    rows = tmp_path / "rows.jsonl"
    lines = ({"topic": "in", "time_ms": at, "value": event} for at, event in zip(times, events, strict=True))
    rows.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))

    with LocalKafka(tmp_path / "kafka", heap="256m") as broker:
        config = tmp_path / "m.yml"
        config.write_text(
            f"environment: test\nkafka: {{bootstrap: \"{broker.bootstrap}\", transaction_timeout: 4s, "
            "properties: {session.timeout.ms: 4000, heartbeat.interval.ms: 500}}\n"
            f"redis: {{url: \"{redis_url}\", key_prefix: {redis_prefix}}}\n"
            "topics: {partitions: 1}\nhttp: {port: 0}\npredictions: in\n"
            "models: {m: {features: {x: numeric}, window: 300, baseline: {learn: 500, settle: 0s}}}\n"
        )
        driftline("topics", "create", config, "--sources")
        reader = Reader(broker.bootstrap, "driftline.observations")

        def read() -> list[int]:
            return list(itertools.chain.from_iterable(batch.offset.tolist() for batch in reader.observations("predictions")))

        with running(tmp_path / "log", config, "--no-alert", "--time", "data", "--start", "earliest") as program:
            produce(broker.bootstrap, "in", records[:AWAY])
            program.until(lambda: len(read()) >= AWAY)
            broker.kill()
            broker.start()
            produce(broker.bootstrap, "in", records[AWAY:])
            program.until(lambda: len(read()) >= ROWS, 60)
            assert program.stop() == 0
        driftline("run", config, "--no-alert", "--until-idle", "1")
        found = sorted(read())
        reader.close()
        published = driftline("tail", "drift", config, "--from", "earliest", "--until-idle", "0", "-o", "json").stdout
    replayed = driftline("replay", rows, "-c", config, "-o", "json").stdout

    assert found == list(range(ROWS))
    assert without_ids(published) == without_ids(replayed)
    assert any(event["series"] == "feature:x" and event["kind"] == "drift" for event in map(orjson.loads, published.splitlines()))


def without_ids(lines: bytes) -> list[bytes]:
    """Events but for what carries the source topic's id."""
    events = map(orjson.loads, lines.splitlines())
    return [orjson.dumps({name: value for name, value in event.items() if name not in ("id", "episode")}) for event in events]
