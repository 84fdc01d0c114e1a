"""A prediction's way into an observation batch: which rows come out, and what becomes of values of the wrong type."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest

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

    again = Ingest(state=RestoredState(blobs)).take(record(event(), 1))
    assert [ingest.observation().seq, again.observation().seq] == [1, 2]


def test_a_rebuilt_task_counts_from_one_and_stamps_its_generation_after_restarts_too() -> None:
    rebuilt = Ingest(state=RestoredState(generation=7))
    (blob,) = rebuilt.task.checkpoint().blobs.values()
    assert blob is not None
    again = Ingest(state=RestoredState({"ingest": blob})).take(record(event()))
    batch = again.observation()
    assert (batch.seq, batch.generation) == (1, 7)
    assert Ingest().take(record(event())).observation().generation == 0


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
