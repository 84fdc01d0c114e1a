from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import xxhash

from driftline.schemas.config import LabelFields
from driftline.streams.columns import LabelBlock, WaitingBlock
from tests.ingest.streams import T0, Ingest, config, event, record


def label_rows(ingest: Ingest) -> dict[int, tuple[float | None, str | None, bytes]]:
    """By offset: value, text, id."""
    out = {}
    for block in ingest.labels():
        for row in range(len(block)):
            text = None if block.text is None or block.text.codes[row] < 0 else block.text.values[block.text.codes[row]]
            value = None if math.isnan(block.value[row]) else float(block.value[row])
            out[int(block.offset[row])] = (value, text, block.ids[row].tobytes())
    return out


@pytest.mark.parametrize(
    ("value", "number", "text"),
    [(1, 1.0, None), (0.25, 0.25, None), (True, 1.0, None), (False, 0.0, None), ("cat", None, "cat"), ("1", None, "1")],
)
def test_a_label_is_a_number_or_a_text(value: object, number: float | None, text: str | None) -> None:
    ingest = Ingest(topic="labels").take(record({"id": "a", "label": value}, topic="labels"))
    assert label_rows(ingest)[0][:2] == (number, text)


@pytest.mark.parametrize("value", [None, {}, [1], "", "\x00", "x" * 300])
def test_a_label_without_a_usable_value_is_a_dead_letter(value: object) -> None:
    assert Ingest(topic="labels").take(record({"id": "a", "label": value}, topic="labels")).reasons() == ["label"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "empty"), (b"", "empty"), (b"{", "decode"), (b"[]", "decode"), (b'{"label":1}', "id"), (b'{"id":{},"label":1}', "id"),
     (b'{"id":1,"label":NaN}', "label"), (b"\x00\x00\x00\x00\x07{}", "schema_framing")],
)  # fmt: skip
def test_a_label_that_cannot_be_joined_is_a_dead_letter(value: bytes | None, reason: str) -> None:
    assert Ingest(topic="labels").take(record(value, topic="labels")).reasons() == [reason]


@pytest.mark.parametrize("id_", [1, 1.0, "1"])
def test_ids_join_whatever_json_type_they_have(id_: object) -> None:
    labels = Ingest(topic="labels").take(record({"id": id_, "label": 1}, topic="labels"))
    waiting = Ingest().take(record(event(id="1")))
    (row,) = [block.ids[0].tobytes() for block in waiting.waiting() if len(block)]
    assert label_rows(labels)[0][2] == row == xxhash.xxh3_128_digest(b"1")


def test_labels_and_predictions_of_one_id_go_to_one_partition() -> None:
    ids = [f"id-{n}" for n in range(200)]
    predictions = Ingest().take(*(record(event(id=i), n) for n, i in enumerate(ids)))
    labels = Ingest(topic="labels").take(*(record({"id": i, "label": 1}, n, topic="labels") for n, i in enumerate(ids)))

    def places(ingest: Ingest, blocks: Sequence[LabelBlock | WaitingBlock], topic: str) -> dict[int, int | None]:
        outputs = [o for o in ingest.outputs if o.topic == topic]
        return {int(n): o.partition for o, block in zip(outputs, blocks, strict=True) for n in block.offset}

    waiting = places(predictions, predictions.waiting(), "driftline.waiting")
    assert waiting == places(labels, labels.labels(), "driftline.labels")
    assert sorted(waiting) == list(range(200))
    assert 60 < sum(partition == 0 for partition in waiting.values()) < 140


def test_label_fields_may_be_mapped_and_name_a_model() -> None:
    conf = config().model_copy(update={"labels": []})
    mapped = LabelFields(id="ref.txn", value="outcome.fraud", model="header:model", time=None)
    conf = config(labels=False).model_copy(update={"labels": [type(config().labels[0])(topic="labels", fields=mapped)]})
    value = {"ref": {"txn": 9}, "outcome": {"fraud": True}}
    ingest = Ingest(conf, topic="labels").take(record(value, topic="labels", headers=(("model", b"fraud"),)))
    (block,) = [b for b in ingest.labels() if len(b)]
    assert (block.value.tolist(), block.record_ms.tolist()) == ([1.0], [T0])
    assert block.model is not None
    assert block.model.values == ["fraud"]
