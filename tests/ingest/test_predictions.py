from __future__ import annotations

import hashlib
import hmac
import math

import numpy as np
import orjson
import pytest

from driftline.schemas.dead_letter import DeadLetter
from driftline.schemas.topics import DEAD_LETTERS
from driftline.streams.task import Record, RestoredState
from tests.ingest.streams import T0, Ingest, config, event, model, record


def test_a_prediction_becomes_one_row_of_an_observation_batch() -> None:
    batch = Ingest().take(record(event(latency_ms=12, sample_weight=2), 7)).observation()
    assert (batch.model, batch.task, batch.seq, batch.sources) == ("fraud", "ingest/predictions/0", 1, [("predictions", 0)])
    assert batch.offset.tolist() == [7]
    assert batch.time_ms.tolist() == batch.record_ms.tolist() == [T0]
    assert batch.numeric_names == ["amount"]
    assert batch.numeric is not None
    assert batch.numeric.tolist() == [[10.0]]
    assert batch.categorical["country"].values == ["DE"]
    assert batch.version is not None
    assert batch.version.values == ["v1"]
    for column, value in ((batch.score, 0.5), (batch.latency_ms, 12.0), (batch.weight, 2.0), (batch.error, 0)):
        assert column is not None
        assert column.tolist() == [value]


def test_rows_keep_offset_order_whatever_path_decoded_them() -> None:
    records = [record(event(id=f"i{n}", features={"amount": "bad" if n % 3 == 0 else n, "country": "DE"}), n) for n in range(10)]
    batch = Ingest().take(*records).observation()
    assert batch.offset.tolist() == list(range(10))
    assert batch.numeric is not None
    assert [None if math.isnan(v) else v for v in batch.numeric[:, 0]] == [None if n % 3 == 0 else n for n in range(10)]


def test_the_first_sequence_number_is_one_and_it_survives_a_restart() -> None:
    ingest = Ingest().take(record(event()))
    blobs = {name: blob for name, blob in ingest.task.checkpoint().blobs.items() if blob is not None}
    from driftline.streams.task import RestoredState

    again = Ingest(state=RestoredState(blobs)).take(record(event(), 1))
    assert [ingest.observation().seq, again.observation().seq] == [1, 2]


@pytest.mark.parametrize(
    ("value", "features"),
    [
        ("12.5", [(0, 0)]),
        ([1], [(0, 0)]),
        ({"a": 1}, [(0, 0)]),
        (None, []),
        (True, []),
        (3, []),
    ],
)
def test_a_wrong_type_marks_that_feature_and_keeps_the_row(value: object, features: list[tuple[int, int]]) -> None:
    ingest = Ingest().take(record(event(features={"amount": value, "country": "DE"})))
    batch = ingest.observation()
    assert ([] if batch.invalid is None else [tuple(pair) for pair in batch.invalid.tolist()]) == features
    assert batch.numeric is not None
    assert math.isnan(batch.numeric[0, 0]) == (value is None or bool(features))
    assert batch.categorical["country"].values == ["DE"]
    assert ingest.dead_letters() == []
    assert ingest.counters.value("invalid_values", model="fraud") == len(features)


def test_an_object_where_a_category_should_be_is_invalid() -> None:
    batch = Ingest().take(record(event(features={"amount": 1, "country": {"iso": "DE"}}))).observation()
    assert batch.invalid is not None
    assert batch.invalid.tolist() == [[0, 1]]


def test_a_text_where_the_features_should_be_makes_all_of_them_invalid() -> None:
    batch = Ingest().take(record(event(features="oops"))).observation()
    assert batch.invalid is not None
    assert batch.invalid.tolist() == [[0, 0], [0, 1]]


def test_categories_are_texts_whatever_scalar_was_sent() -> None:
    sent = ["1", 1, 1.0, True, None]
    records = [record(event(id=str(n), features={"country": v}), n) for n, v in enumerate(sent)]
    column = Ingest().take(*records).observation().categorical["country"]
    assert [column.values[c] if c >= 0 else None for c in column.codes] == ["1", "1", "1", "true", None]


def test_nan_and_infinity_literals_are_missing_and_outer_values_of_a_kept_row() -> None:
    texts = [b"NaN", b"Infinity", b"-Infinity", b"1e400"]
    raw = [b'{"id":"%d","model":"fraud","score":0.1,"features":{"amount":%s}}' % (n, t) for n, t in enumerate(texts)]
    batch = Ingest().take(*(record(value, n) for n, value in enumerate(raw))).observation()
    assert batch.numeric is not None
    assert np.array_equal(batch.numeric[:, 0], [math.nan, math.inf, -math.inf, math.inf], equal_nan=True)
    assert batch.invalid is None


def test_the_last_of_duplicate_keys_counts_on_the_fast_and_on_the_slow_path() -> None:
    fast = b'{"id":"a","model":"fraud","features":{"amount":1,"amount":2}}'
    slow = b'{"id":"b","model":"fraud","features":{"amount":1,"amount":2,"country":[]}}'
    batch = Ingest().take(record(fast, 0), record(slow, 1)).observation()
    assert batch.numeric is not None
    assert batch.numeric[:, 0].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"{", "decode"),
        (b"\xff\xfe", "decode"),
        (b"null", "decode"),
        (b"[1,2]", "decode"),
        (b'"text"', "decode"),
        (b'{"id":"\xff","model":"fraud"}', "decode"),
        (b"[" * 200_000, "decode"),
        (b'{"id":"a","model":"fraud","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "decode"),
        (b'{"id":"a","model":"fraud"} trailing', "decode"),
        (b'{"model":"fraud"}', "id"),
        (b'{"id":null,"model":"fraud"}', "id"),
        (b'{"id":"","model":"fraud"}', "id"),
        (b'{"id":true,"model":"fraud"}', "id"),
        (b'{"id":{},"model":"fraud"}', "id"),
        (b'{"id":1.5e300,"model":"fraud","x":NaN}', None),
        (b'{"id":"' + b"x" * 2_000 + b'","model":"fraud"}', "id"),
        (b'{"id":"a"}', "model"),
        (b'{"id":"a","model":null}', "model"),
        (b'{"id":"a","model":["fraud"]}', "model"),
        (b"\x00\x00\x00\x00\x2a{}", "schema_framing"),
    ],
)
def test_what_cannot_be_placed_is_a_dead_letter_with_its_reason(value: bytes | None, reason: str | None) -> None:
    ingest = Ingest().take(record(value))
    assert ingest.reasons() == ([] if reason is None else [reason])
    assert ingest.counters.value("dead_letters", reason=reason or "") == (reason is not None)
    assert len(ingest.observations()) == (reason is None)


def test_a_dead_letter_keeps_bytes_key_headers_and_position() -> None:
    ingest = Ingest().take(record(b"{oops", 41, key=b"k", headers=(("trace", b"t"),)))
    (output,) = [o for o in ingest.outputs if o.topic == "driftline.dlq"]
    letter = DeadLetter.from_headers(output.headers)
    assert (output.key, output.value, dict(output.headers)["trace"]) == (b"k", b"{oops", b"t")
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp_ms) == ("predictions", 0, 41, T0)
    assert (letter.stage, letter.reason, letter.truncated) == ("ingest", "decode", False)


def test_a_dead_letter_above_the_topics_limit_is_cut_and_carries_the_hash_of_the_whole() -> None:
    whole = b"{" + b"x" * 5_000_000
    ingest = Ingest().take(record(whole))
    (output,) = [o for o in ingest.outputs if o.topic == "driftline.dlq"]
    letter = DeadLetter.from_headers(output.headers)
    assert output.value is not None
    assert whole.startswith(output.value)
    assert len(output.value) < DEAD_LETTERS.max_message_bytes
    assert (letter.truncated, letter.sha256) == (True, hashlib.sha256(whole).hexdigest())


_SENSITIVE: list[dict[str, object]] = [
    {"features": {"iban": {"kind": "categorical", "sensitive": True}}},
    {"features": {"iban": {"kind": "categorical"}}, "segments": {"iban": {"sensitive": True}}},
    {"features": {"iban": {"kind": "categorical", "sensitive": True}}, "segments": {"iban": {}, "same": {"path": "features.iban"}}},
    {"features": {"x": {"kind": "categorical", "path": "iban"}}, "segments": {"y": {"path": "iban", "sensitive": True}}},
    {"segments": {"iban": {"sensitive": True}}},
]


@pytest.mark.parametrize("spec", _SENSITIVE)
@pytest.mark.parametrize("raw", ["DE0012345678", 12345678])
def test_sensitive_values_leave_only_as_keyed_hashes(spec: dict[str, object], raw: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_TEST_KEY", "k")
    conf = config(models={"fraud": spec}, hash_key={"env": "DRIFTLINE_TEST_KEY"})
    records = [record(event(id=str(n), iban=raw, segments={"iban": raw}, features={"iban": raw}), n) for n in range(2)]
    ingest = Ingest(conf).take(*records)
    whole = b"".join(output.value or b"" for output in ingest.outputs)
    assert b"12345678" not in whole
    expected = "h:" + hmac.new(b"k", str(raw).encode(), hashlib.sha256).hexdigest()[:16]
    batch = ingest.observation()
    assert batch.numeric is None
    assert {(*column.values, *column.codes) for column in (*batch.categorical.values(), *batch.segments.values())} == {(expected, 0, 0)}


def test_a_sensitive_undeclared_value_that_has_no_text_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_TEST_KEY", "k")
    conf = config(models={"fraud": {"segments": {"iban": {"sensitive": True}}}}, hash_key={"env": "DRIFTLINE_TEST_KEY"})
    value = orjson.dumps(event(features={"iban": "RAW", "x": 1})).replace(b'"RAW"', b"7" + b"0" * 120)
    batch = Ingest(conf).take(record(value)).observation()
    assert batch.numeric is not None
    assert np.array_equal(batch.numeric, [[math.nan, 1.0]], equal_nan=True)


def test_without_a_key_nothing_sensitive_is_read() -> None:
    with pytest.raises(ValueError, match="hash_key"):
        Ingest(config(models={"fraud": _SENSITIVE[0]}))


@pytest.mark.parametrize("spec", _SENSITIVE[:2])
def test_a_dead_letter_of_sensitive_fields_has_no_payload(spec: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_TEST_KEY", "k")
    conf = config(models={"fraud": spec}, hash_key={"env": "DRIFTLINE_TEST_KEY"})
    ingest = Ingest(conf).take(record(b'{"iban": "DE00', headers=(("who", b"Ann"),), key=b"Ann"))
    (output,) = [o for o in ingest.outputs if o.topic == "driftline.dlq"]
    assert output.value is None
    assert b"Ann" not in b"".join(value for _, value in output.headers)
    assert "driftline.sha256" in dict(output.headers)


def test_schema_registry_framing_names_the_schema_id() -> None:
    ingest = Ingest().take(record(b"\x00\x00\x00\x00\x2a" + orjson.dumps(event())))
    assert b"schema id 42" in ingest.dead_letters()[0]["driftline.error"]


def test_an_unknown_model_is_skipped_and_counted() -> None:
    ingest = Ingest().take(record(event(model="ads")), record(event(), 1))
    assert [len(batch) for batch in ingest.observations()] == [1]
    assert ingest.dead_letters() == []
    assert ingest.counters.value("records", outcome="unknown_model") == 1


def test_an_unknown_model_is_a_dead_letter_where_the_configuration_says_so() -> None:
    assert Ingest(config(unknown_models="dead_letter")).take(record(event(model="ads"))).reasons() == ["unknown_model"]


def test_a_changed_type_in_one_model_leaves_the_bytes_of_the_others() -> None:
    conf = config(models={"fraud": model(amount="numeric"), "ads": model(amount="numeric")})
    ads = [record(event(id=f"a{n}", model="ads"), 2 * n) for n in range(5)]
    good: list[Record] = [record(event(id=f"f{n}"), 2 * n + 1) for n in range(5)]
    bad: list[Record] = [record(event(id=f"f{n}", features={"amount": "x"}), 2 * n + 1) for n in range(5)]

    def published(fraud: list[Record]) -> list[bytes | None]:
        records = sorted([*ads, *fraud], key=lambda r: r.offset())
        return [o.value for o in Ingest(conf).take(*records).outputs if o.key == b"ads"]

    assert published(good) == published(bad)


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
