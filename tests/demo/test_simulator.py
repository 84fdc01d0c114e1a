"""The simulated stream: reproducible, and changed exactly where its truth says."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from driftline.demo.simulator import FraudStream, Message

ROWS = 20_000


def messages(seed: int, *, changed: bool = True) -> list[Message]:
    stream = FraudStream(seed=seed, rows=ROWS, rate=1_000, start_ms=1_700_000_000_000, changed=changed)
    return [message for chunk in stream.messages() for message in chunk]


def predictions(found: list[Message]) -> list[dict[str, Any]]:
    return [orjson.loads(m.value) for m in found if not m.label]


def test_a_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    assert messages(3) == messages(3)
    assert messages(3) != messages(4)


def test_every_prediction_gets_one_label_and_no_record_comes_before_its_time() -> None:
    found = messages(1)
    ids = [m.key for m in found if not m.label]
    assert sorted(ids) == sorted(m.key for m in found if m.label)
    times = [m.time_ms for m in found]
    assert times == sorted(times)


def test_labels_follow_the_score_except_while_the_concept_has_changed() -> None:
    found = messages(1)
    change = next(c for c in FraudStream(seed=1, rows=ROWS, rate=1_000, start_ms=0).changes if c.name == "concept")
    labels = {m.key: orjson.loads(m.value)["label"] for m in found if m.label}
    rows = predictions(found)
    score = np.array([p["score"] for p in rows])
    label = np.array([labels[p["id"]] for p in rows])
    index = np.arange(ROWS)
    inside = (index >= change.start) & (index < change.stop)
    # Calibrated outside: the mean residual of n rows has sd below .3/sqrt(n).
    assert abs(np.mean(label[~inside] - score[~inside])) < 4 * 0.3 / np.sqrt(np.sum(~inside))
    assert np.mean(label[inside] - score[inside]) > 0.05


def test_nulls_and_the_shift_are_where_the_truth_says_and_nowhere_else() -> None:
    changed, same = predictions(messages(1)), predictions(messages(1, changed=False))
    by_name = {c.name: c for c in FraudStream(seed=1, rows=ROWS, rate=1_000, start_ms=0).changes}
    shift, nulls = by_name["feature_shift"], by_name["nulls"]
    moved = {i for i in range(ROWS) if changed[i]["features"]["amount"] != same[i]["features"]["amount"]}
    assert moved == {i for i in range(shift.start, shift.stop) if changed[i]["features"]["country"] == "BR"}
    missing = np.array([p["features"]["merchant_risk"] is None for p in changed])
    assert 0.15 < missing[nulls.start : nulls.stop].mean() < 0.25
    assert missing[: nulls.start].mean() < 0.02
