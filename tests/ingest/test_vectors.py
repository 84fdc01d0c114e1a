"""Lists of numbers on their way into an observation batch: which rows have one, and what is no such list."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from driftline.schemas.config import Config
from driftline.streams.block_rows import MESSAGE_BYTES_MAX
from driftline.streams.ingest.features import _list_of_numbers
from driftline.streams.observation import decode, encode
from tests.ingest.streams import Ingest, config, event, record


def conf(path: str | None = None, **more: str) -> Config:
    kinds = {name: {"kind": kind} for name, kind in more.items()}
    text = {"kind": "vector", "length": 3} | ({} if path is None else {"path": path})
    return config(models={"fraud": {"features": {**kinds, "text": text}, "blocks": {"text": {"features": ["text"]}}}})


PLACES = ["features.text", "embedding", "deep.text"]


def sent(place: str, value: object, **features: object) -> dict[str, Any]:
    if place == "features.text":
        return event(features={**features, "text": value})
    inner, _, name = place.rpartition(".")
    return event(features=features, **({inner: {name: value}} if inner else {name: value}))


@pytest.mark.parametrize("kinds", [{}, {"amount": "numeric"}, {"amount": "numeric", "country": "categorical"}])
@pytest.mark.parametrize("place", PLACES)
def test_a_list_of_numbers_is_a_row_of_single_floats_wherever_it_stands(place: str, kinds: dict[str, str]) -> None:
    values = [[1.5, -2, 0.1], [0, 1, 3e-5]]
    features = {name: 1.0 if kind == "numeric" else "x" for name, kind in kinds.items()}
    ingest = Ingest(conf(None if place == "features.text" else place, **kinds))
    batch = ingest.take(*(record(sent(place, value, **features), n) for n, value in enumerate(values))).observation()
    assert batch.vectors["text"].dtype == np.float32
    assert np.array_equal(batch.vectors["text"], np.array(values, np.float32))
    assert batch.invalid is None
    if "amount" in kinds:
        assert batch.numeric is not None
        assert batch.numeric.tolist() == [[1.0], [1.0]]
    assert ingest.dead_letters() == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("value", "invalid"),
    [
        ([1, 2, 3], False), (None, False), ([1, 2], True), ([1, 2, 3, 4], True), ([], True), ([1, None, 3], True), ([1, "2", 3], True),
        ("abc", True), (5, True), ({"a": 1}, True), ([[1], 2, 3], True), ([1, 2, 1e300], True), ([1, True, 3], True),
    ],
)  # fmt: skip
def test_what_is_no_such_list_is_invalid_and_keeps_its_row(place: str, value: object, invalid: bool) -> None:
    ingest = Ingest(conf(None if place == "features.text" else place, amount="numeric", country="categorical"))
    others = sent(place, [7.0, 8.0, 9.0], amount=1.0, country="DE")
    batch = ingest.take(record(sent(place, value, amount=2.0, country="DE"), 0), record(others, 1)).observation()
    assert ([] if batch.invalid is None else batch.invalid.tolist()) == ([[0, 2]] if invalid else [])
    assert np.isnan(batch.vectors["text"][0]).all() == (invalid or value is None)
    assert batch.vectors["text"][1].tolist() == [7.0, 8.0, 9.0]
    assert batch.numeric is not None
    assert batch.numeric.tolist() == [[2.0], [1.0]]
    assert batch.categorical["country"].values == ["DE"]
    assert ingest.counters.value("invalid_values", model="fraud") == int(invalid)


def test_bytes_that_look_like_numbers_are_none() -> None:
    """Binary codecs have lists of them, and numpy reads them as numbers."""
    assert _list_of_numbers([b"1", b"2"], 2) is None
    assert _list_of_numbers([bytearray(b"1"), 2.0], 2) is None
    found = _list_of_numbers([1, 2.5], 2)
    assert found is not None
    assert found.tolist() == [1.0, 2.5]


def test_a_row_without_the_list_is_missing_it() -> None:
    batch = Ingest(conf(amount="numeric")).take(record(event(features={"amount": 1.0}))).observation()
    assert [math.isnan(x) for x in batch.vectors["text"][0]] == [True] * 3
    assert batch.invalid is None


def test_a_batch_of_lists_is_read_as_it_was_written() -> None:
    batch = Ingest(conf()).take(record(event(features={"text": [1, 2, 3]}), 0), record(event(id="b", features={}), 1)).observation()
    again = decode(encode(batch))
    assert np.array_equal(again.vectors["text"], batch.vectors["text"], equal_nan=True)
    assert encode(again) == encode(batch)


def test_wide_rows_are_cut_so_that_a_record_fits_its_topic() -> None:
    text = {"kind": "vector", "length": 4_096}
    wide = config(models={"fraud": {"features": {"text": text}, "blocks": {"text": {"features": ["text"]}}}})
    records = [record(event(id=str(n), features={"text": [n * 0.001] * 4_096}), n) for n in range(300)]
    ingest = Ingest(wide).take(*records)
    found = [o for o in ingest.outputs if o.topic.endswith(".observations") and o.value]
    assert len(found) > 1
    assert max(len(o.value or b"") for o in found) <= MESSAGE_BYTES_MAX
    assert sum(len(batch) for batch in ingest.observations()) == 300
