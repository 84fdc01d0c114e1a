"""Events of every shape: where ids, models, features, segments and scores are read from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftline.streams.task import RestoredState
from tests.ingest.streams import T0, Ingest, config, event, model, record


def test_nested_paths_headers_key_topic_and_constants_reach_every_field() -> None:
    fields = {
        "id": "key", "time": "meta.when", "model": "const:fraud", "version": "header:version", "features": "payload.in",
        "score": "payload.out.p", "class": "topic", "latency_ms": "header:ms", "error": None,
    }  # fmt: skip
    value = {"meta": {"when": "2025-10-09T08:53:21.5Z"}, "payload": {"in": {"amount": 3, "country": "FR"}, "out": {"p": 0.25}}}
    batch = Ingest(config(fields=fields)).take(record(value, key=b"id-1", headers=(("version", b"v7"), ("ms", b"8.5")))).observation()
    assert batch.numeric is not None
    assert batch.numeric.tolist() == [[3.0]]
    assert batch.time_ms.tolist() == [1_760_000_001_500]
    assert batch.version is not None
    assert batch.class_ is not None
    assert batch.score is not None
    assert batch.latency_ms is not None
    assert (batch.version.values, batch.class_.values, batch.score[0], batch.latency_ms[0]) == (["v7"], ["predictions"], 0.25, 8.5)
    assert batch.error is None


@pytest.mark.parametrize("path", ["meta.model", "header:model", "key"])
def test_the_model_may_stand_anywhere(path: str) -> None:
    conf = config(models={"fraud": model(amount="numeric"), "ads": model(price="numeric")}, fields={"model": path})
    records = [
        record(event(id=str(n), meta={"model": name.decode()}, features={"amount": 1, "price": 2}), n, key=name, headers=(("model", name),))
        for n, name in enumerate([b"fraud", b"ads", b"fraud", b"other"])
    ]
    ingest = Ingest(conf).take(*records)
    assert [(b.model, b.offset.tolist(), b.numeric.tolist() if b.numeric is not None else None) for b in ingest.observations()] == [
        ("ads", [1], [[2.0]]),
        ("fraud", [0, 2], [[1.0], [1.0]]),
    ]
    assert ingest.counters.value("records", outcome="unknown_model") == 1


def test_features_may_come_as_a_list_of_names_and_values() -> None:
    pairs = [{"name": "amount", "value": 4}, {"name": "country", "value": "DE"}, {"name": "other", "value": 1}]
    bad = [{"name": "amount", "value": "x"}, {"nothing": 1}]
    batch = Ingest().take(record(event(features=pairs)), record(event(id="b", features=bad), 1), record(event(id="c"), 2)).observation()
    assert batch.numeric is not None
    assert np.array_equal(batch.numeric[:, 0], [4.0, math.nan, 10.0], equal_nan=True)
    assert batch.invalid is not None
    assert batch.invalid.tolist() == [[1, 0]]


def test_features_may_come_as_an_unnamed_vector() -> None:
    conf = config(models={"fraud": model(a="numeric", b="numeric", c="numeric")}, fields={"feature_names": ["b", "a", "c"]})
    rows = [[1, 2, 3], [4, None, 6], [7, 8], [9, "x", 1], None, "text"]
    batch = Ingest(conf).take(*(record(event(id=str(n), features=row), n) for n, row in enumerate(rows))).observation()
    nan = math.nan
    assert batch.numeric_names == ["a", "b", "c"]
    assert batch.numeric is not None
    expected = np.array([[2, 1, 3], [nan, 4, 6], [8, 7, nan], [nan, 9, 1], [nan] * 3, [nan] * 3])
    assert np.array_equal(batch.numeric, expected, equal_nan=True)
    assert batch.invalid is not None
    assert batch.invalid.tolist() == [[3, 0], [5, 0], [5, 1], [5, 2]]


def test_a_feature_may_have_a_path_of_its_own() -> None:
    age, os = {"kind": "numeric", "path": "user.age"}, {"kind": "categorical", "path": "header:os"}
    conf = config(models={"fraud": {"features": {"amount": {"kind": "numeric"}, "age": age, "os": os}}})
    records = [record(event(user={"age": 30}), 0, headers=(("os", b"mac"),)), record(event(id="b", user={"age": "x"}), 1)]
    batch = Ingest(conf).take(*records).observation()
    assert batch.numeric is not None
    assert np.array_equal(batch.numeric, [[10.0, 30.0], [10.0, math.nan]], equal_nan=True)
    assert batch.categorical["os"].codes.tolist() == [0, -1]
    assert batch.invalid is not None
    assert batch.invalid.tolist() == [[1, 1]]


def test_features_at_the_top_level_of_the_event() -> None:
    conf = config(models={"fraud": model(amount="numeric")}, fields={"features": ""})
    batch = Ingest(conf).take(record({"id": "a", "model": "fraud", "amount": 5})).observation()
    assert batch.numeric is not None
    assert batch.numeric.tolist() == [[5.0]]


def test_undeclared_features_are_found_in_the_batch() -> None:
    conf = config(models={"fraud": {"features": None}})
    rows = [{"b": 1, "a": True}, {"b": "text", "c": "x"}, {"b": None, "d": [1], "a": 2.5}]
    batch = Ingest(conf).take(*(record(event(id=str(n), features=row), n) for n, row in enumerate(rows))).observation()
    nan = math.nan
    assert batch.numeric_names == ["a", "b", "d"]
    assert batch.numeric is not None
    assert np.array_equal(batch.numeric, [[1, 1, nan], [nan, nan, nan], [2.5, nan, nan]], equal_nan=True)
    assert sorted(batch.categorical) == ["b", "c"]
    assert batch.categorical["b"].codes.tolist() == [-1, 0, -1]
    assert batch.invalid is not None
    assert batch.invalid.tolist() == [[2, 2]]


def test_names_of_undeclared_features_are_the_first_500_of_the_stream_in_any_cut() -> None:
    conf = config(models={"fraud": {"segments": {"u700": {}}}})
    records = [record(event(id=str(k), features={"amount": 1.5, f"u{k}": k, "kind": "x"}), k) for k in range(800)]
    whole = Ingest(conf).take(*records)
    first = Ingest(conf).take(*records[:300])
    then = Ingest(conf, state=RestoredState({k: v for k, v in first.task.checkpoint().blobs.items() if v is not None})).take(*records[300:])
    for ingest in (whole, then):
        names = {name for batch in ingest.observations() for name in (*batch.numeric_names, *batch.categorical)}
        assert names <= {"amount", "kind", *(f"u{k}" for k in range(498))}
    assert len(whole.observation().numeric_names) == 499
    assert whole.counters.value("features_dropped", model="fraud") == 302 == then.counters.value("features_dropped", model="fraud")
    segment = whole.observation().segments["u700"]
    assert segment.values[segment.codes[700]] == "700"


def test_names_of_undeclared_classes_are_the_first_1000_of_the_stream_in_any_cut() -> None:
    conf = config(models={"ads": {"task": "multiclass", "classes": ["known"], "features": {}}})
    records = [record(event(id=str(k), model="ads", score={f"c{k}": 0.75, "known": 0.25}), k) for k in range(1_200)]
    whole = Ingest(conf).take(*records)
    first = Ingest(conf).take(*records[:700])
    then = Ingest(conf, state=RestoredState({k: v for k, v in first.task.checkpoint().blobs.items() if v is not None})).take(*records[700:])
    for ingest in (whole, then):
        names = {name for block in ingest.waiting() if "ads" in block.probabilities for name in block.probabilities["ads"].classes}
        assert names <= {"known", *(f"c{k}" for k in range(1_000))}
        assert ingest.counters.value("classes_dropped", model="ads") == 200
    batch = whole.observation()
    assert batch.class_ is not None
    assert batch.class_.values[batch.class_.codes[1_100]] == "c1100"
    assert batch.confidence is not None
    assert set(batch.confidence.tolist()) == {0.75}


def test_a_name_of_a_feature_that_is_too_long_is_no_column() -> None:
    ingest = Ingest(config(models={"fraud": {}})).take(record(event(features={"a": 1, "b" * 513: 2})))
    assert ingest.observation().numeric_names == ["a"]
    assert ingest.counters.value("features_dropped") == 1


def test_undeclared_features_at_the_top_level_leave_out_what_is_mapped() -> None:
    conf = config(models={"fraud": {"features": None}}, fields={"features": ""})
    value = {"id": "a", "time": T0, "model": "fraud", "score": 0.1, "x": 1, "y": "t", "meta": {"z": 1}}
    batch = Ingest(conf).take(record(value)).observation()
    assert batch.numeric_names == ["x"]
    assert list(batch.categorical) == ["y"]


def test_segments_come_from_features_or_paths() -> None:
    segments: dict[str, object] = {"country": {}, "amount": {}, "channel": {}, "tier": {"path": "user.tier"}}
    conf = config(models={"fraud": {**model(amount="numeric", country="categorical"), "segments": segments}})
    batch = Ingest(conf).take(record(event(channel="web", user={"tier": 3}))).observation()
    assert {key: column.values for key, column in batch.segments.items()} == {
        "country": ["DE"], "amount": ["10"], "channel": ["web"], "tier": ["3"],
    }  # fmt: skip


@pytest.mark.parametrize("features", [{"amount": {"kind": "numeric"}}, None])
@pytest.mark.parametrize("topic_path", ["model", "const:fraud"])
def test_segments_come_from_where_the_publisher_sends_them(features: object, topic_path: str) -> None:
    conf = config(models={"fraud": {"features": features, "segments": {"shop": {}, "channel": {}}}}, fields={"model": topic_path})
    sent = {"id": "t", "time": T0, "model": "fraud", "features": {"amount": 1.0}, "score": 0.5}
    events = [
        {**sent, "segments": {"shop": "north", "channel": "web"}}, {**sent, "shop": "top", "segments": {"shop": "low"}},
        sent, {**sent, "segments": None}, {**sent, "segments": "none", "channel": "app"},
    ]  # fmt: skip
    batch = Ingest(conf).take(*(record(value, n) for n, value in enumerate(events))).observation()
    found = {key: [column.values[c] if c >= 0 else None for c in column.codes.tolist()] for key, column in batch.segments.items()}
    assert found == {"shop": ["north", "top", None, None, None], "channel": ["web", None, None, None, "app"]}


@pytest.mark.parametrize("segments", [{"segments": {}, "shop": {}}, {"mine": {"path": "segments"}, "shop": {}}])
def test_a_field_of_the_users_own_named_segments_is_still_read(segments: dict[str, object]) -> None:
    conf = config(models={"fraud": {**model(amount="numeric"), "segments": segments}})
    batch = Ingest(conf).take(record(event(segments="a", shop="b"))).observation()
    assert {key: column.values for key, column in batch.segments.items()} == {next(iter(segments)): ["a"], "shop": ["b"]}


def test_a_multiclass_score_gives_class_confidence_and_entropy() -> None:
    conf = config(models={"fraud": {**model(amount="numeric"), "task": "multiclass", "classes": ["cat", "dog"]}})
    scores = [{"dog": 0.75, "cat": 0.25}, [0.5, 0.5], 0.9, None]
    ingest = Ingest(conf).take(*(record(event(id=str(n), score=s), n) for n, s in enumerate(scores)))
    batch = ingest.observation()
    assert batch.confidence is not None
    assert batch.entropy is not None
    assert batch.class_ is not None
    assert np.array_equal(batch.confidence, [0.75, 0.5, 0.9, math.nan], equal_nan=True)
    assert batch.entropy[1] == pytest.approx(math.log(2))
    assert [batch.class_.values[c] if c >= 0 else None for c in batch.class_.codes] == ["dog", "cat", None, None]
    vectors = {
        int(offset): row
        for block in ingest.waiting()
        for vectors in block.probabilities.values()
        for offset, row in zip(block.offset[vectors.rows], vectors.values.tolist(), strict=True)
    }
    assert vectors == {0: [0.25, 0.75], 1: [0.5, 0.5]}


def test_contradicting_paths_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r'"user"'):
        Ingest(config(fields={"version": "user", "score": "user.score"}))
