"""Run, stop, edit the file, run: what was not edited goes on to the byte, what is gone ends, whatever is lost meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import redis

from tests.conftest import CreateTopics, Kafka
from tests.e2e.programs import Reader, driftline, produce

T0 = 1_700_000_000_000
CHANGE, EDIT, ROWS = 2_000, 3_000, 6_000

BEFORE = """
models:
  m:
    features: {x: numeric, y: numeric}
    segments: {shop: {}}
    window: 400
    snapshot_every: 1000
    baseline: {learn: 800, settle: 0s}
    monitors:
      - {id: inputs, series: ["feature:*", "quality:*"]}
      - {id: outputs, series: ["score", "decision"]}
"""
AFTER = (
    BEFORE.replace("y: numeric", "z: numeric")
    .replace("window: 400", "decision: 0.4\n    window: 400")
    .replace("id: outputs, series: [", "id: scores, window: 300, series: [")
)


def rows(first: int, stop: int) -> list[tuple[int, bytes]]:
    """A prediction a second: `x`, `y` and the score move at `CHANGE` for good, `z` at 5,000."""
    draw = np.random.default_rng(3)
    x, y, z, u = (draw.normal(size=ROWS) for _ in range(4))
    shop = draw.choice(["a", "b"], ROWS)
    out = []
    for i in range(first, stop):
        moved = i >= CHANGE
        values = {"x": x[i] + 1.5 * moved, "y": y[i] - 1.5 * moved, "z": z[i] + 2 * (i >= 5_000)}
        score = 1 / (1 + np.exp(-0.5 * u[i] - 0.8 * moved))
        event = {"id": f"i{i}", "model": "m", "time": T0 + i * 1_000, "features": values, "score": score, "shop": str(shop[i])}
        out.append((T0 + i * 1_000, orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY)))
    return out


@dataclass
class Installation:
    """One of several over the same predictions, with topics, groups and keys of its own."""

    kafka: str
    redis_url: str
    source: str
    name: str
    path: Path

    def write(self, models: str) -> None:
        self.path.write_text(
            f'kafka: {{bootstrap: "{self.kafka}", group_prefix: "{self.name}"}}\n'
            f'redis: {{url: "{self.redis_url}", key_prefix: "{self.name}"}}\ntopics: {{prefix: "{self.name}-ours", partitions: 1}}\n'
            f"http: {{port: 0}}\npredictions: {self.source}\n{models}"
        )

    def run(self, *, alert: bool = False) -> str:
        return driftline("run", self.path, "--until-idle", "2", *([] if alert else ["--no-alert"])).stderr.decode()

    def lose_redis(self) -> None:
        client: redis.Redis = redis.Redis.from_url(self.redis_url)
        keys = [key for key in client.scan_iter(f"*{self.name}*", count=10_000) if b"detect" in key]
        assert keys
        client.delete(*keys)
        client.close()

    def read(self, topic: str) -> list[bytes]:
        reader = Reader(self.kafka, f"{self.name}-ours.{topic}")
        found = [message.value() or b"" for message in reader.look()]
        reader.close()
        return found

    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(value) for value in self.read("drift")]


@pytest.fixture
def install(kafka: Kafka, redis_url: str, topic_prefix: str, create_topics: CreateTopics, tmp_path: Path) -> Any:
    (source,) = create_topics("in", config={"retention.ms": "-1"})

    def make(name: str) -> Installation:
        one = Installation(kafka.bootstrap, redis_url, source, f"{topic_prefix.rstrip('.')}-{name}", tmp_path / f"{name}.yml")
        one.write(BEFORE)
        driftline("topics", "create", one.path)
        return one

    return make


def of(series: str, found: list[bytes]) -> list[bytes]:
    return [value for value in found if orjson.loads(value)["series"] == series]


def test_an_edit_ends_what_is_gone_begins_what_is_new_and_leaves_the_rest_alone(install: Any, kafka: Kafka) -> None:
    always, edited, lost = install("always"), install("edited"), install("lost")
    produce(kafka.bootstrap, always.source, rows(0, EDIT))
    for one in (edited, lost):
        one.run(alert=one is edited)
        one.write(AFTER)
    produce(kafka.bootstrap, always.source, rows(EDIT, ROWS))
    lost.lose_redis()
    always.run()
    log = edited.run(alert=True)
    assert "configuration_changed task=detect/0" in log

    # What was not edited: the same bytes, ids and all, as without an edit.
    published, expected = edited.read("drift"), always.read("drift")
    for series in ("feature:x", "quality:x:missing", "quality:x:out_of_range"):
        assert of(series, published) == of(series, expected)
    assert of("feature:x", published)

    # What is gone ends once, and its alert with it.
    events = edited.events()
    ended = {(e["series"], e["monitor"], str(e["segment"])): e for e in events if e["detector"] == "removed"}
    assert len(ended) == len([e for e in events if e["detector"] == "removed"])
    assert {e["position"]["offset"] for e in ended.values()} == {EDIT - 1}
    reasons = {(series, monitor): e["reason"] for (series, monitor, _), e in ended.items()}
    assert reasons["feature:y", "inputs"] == "closed because the configuration no longer watches it, not because it recovered"
    assert reasons["decision", "outputs"] == "closed because models.m.decision was edited, not because it recovered"
    assert reasons["score", "outputs"] == 'closed because monitor "scores" watches it now, not because it recovered'
    alerts = {alert["fingerprint"]: alert for alert in map(orjson.loads, edited.read("alerts"))}
    firing = {(a["series"], a["monitor"]) for a in alerts.values() if a["condition"] == "firing"}
    assert not {(series, monitor) for series, monitor in firing if series == "feature:y" or monitor == "outputs"}
    assert {("feature:x", "inputs"), ("score", "scores")} <= firing
    resolved = next(a for a in alerts.values() if a["series"] == "feature:y" and a["segment"] is None)
    assert resolved["summary"].endswith("the configuration no longer watches it, not because it recovered")

    # What is new learned a reference of its own from the edit on, and is watched.
    learned = [e["position"]["offset"] for e in events if e["kind"] == "baseline" and e["series"] == "panel:features"]
    assert learned == [799, EDIT + 799]
    found = next(e for e in events if e["series"] == "feature:z" and e["kind"] == "drift" and e["segment"] is None)
    assert 5_000 <= found["position"]["offset"] < 5_200

    # State that was lost while the file was edited: replayed under the old file up to the edit, then the same.
    log = lost.run()
    # On a slow machine the last commit of the first run may carry a base, and then nothing is left to replay.
    assert "checkpoint_replaced task=detect/0" in log
    assert "by=base" in log
    assert "replay_under_another_configuration" not in log
    assert lost.read("drift") == published
    assert lost.read("snapshots") == edited.read("snapshots")

    # And when which file was active, for whoever asks.
    for one in (edited, lost):
        shown = driftline("state", "inspect", "-c", one.path, "--task", "detect", "-o", "json").stdout
        history = orjson.loads(shown.splitlines()[0])["redis"]["history"]
        assert len({entry["config"] for entry in history}) == len(history) == 2
        first, second = (next(iter(entry["from"].values())) for entry in history)
        assert first == 0 < second
