from __future__ import annotations

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.streams.columns import (
    ID_TYPE,
    BlockError,
    ClassProbabilities,
    LabelBlock,
    WaitingBlock,
    decode_labels,
    decode_waiting,
    encode_labels,
    encode_waiting,
)
from driftline.streams.ingest.values import texts
from driftline.streams.observation import Coded
from tests.ingest.streams import T0, Ingest, config, event, model, record

int64s = st.integers(-(2**62), 2**62)


def coded(values: list[str | None]) -> Coded:
    return texts(values)


@settings(deadline=None)
@given(st.data(), st.integers(1, 30))
def test_a_waiting_block_comes_back_bit_for_bit(data: st.DataObject, n: int) -> None:
    def column(of: st.SearchStrategy[object]) -> list[object]:
        return data.draw(st.lists(of, min_size=n, max_size=n))

    names = st.one_of(st.none(), st.sampled_from(["a", "b", "ü"]))
    block = WaitingBlock(("t", 3), data.draw(int64s))
    block.ids = np.frombuffer(data.draw(st.binary(min_size=16 * n, max_size=16 * n)), ID_TYPE)
    block.offset = np.array(column(st.integers(0, 2**62)), np.int64)
    block.record_ms = np.array(column(st.integers(0, 2**50)), np.int64)
    block.seen_ms = np.array(column(st.integers(0, 2**50)), np.int64)
    block.time_ms = np.array(column(st.integers(0, 2**50)), np.int64)
    block.score = np.array(column(st.floats()), np.float64)
    block.unit = data.draw(st.one_of(st.none(), st.just(np.array(column(int64s), np.int64))))
    block.model = coded(["m"] * n)
    block.version = coded(column(names))  # type: ignore[arg-type]
    block.segments = {"country": coded(column(names))}  # type: ignore[arg-type]
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))), np.int64)
    block.probabilities = {"m": ClassProbabilities(["x", "y"], rows, np.tile([0.25, 0.75], (len(rows), 1)))}
    back = decode_waiting(encode_waiting(block))
    assert (back.source, back.tick_ms, len(back)) == (("t", 3), block.tick_ms, n)
    for name in ("ids", "offset", "record_ms", "seen_ms", "time_ms", "score"):
        assert getattr(back, name).tobytes() == getattr(block, name).tobytes(), name
    assert (back.unit is None) == (block.unit is None)
    assert back.unit is None or block.unit is None or back.unit.tolist() == block.unit.tolist()
    assert back.version is not None
    assert block.version is not None
    assert (back.version.values, back.version.codes.tolist()) == (block.version.values, block.version.codes.tolist())
    assert back.segments["country"].codes.tolist() == block.segments["country"].codes.tolist()
    assert back.probabilities["m"].rows.tolist() == rows.tolist()
    assert back.probabilities["m"].values.tolist() == block.probabilities["m"].values.tolist()


@pytest.mark.parametrize("value", [b"", b"DLB", b"ARROW1\0\0", encode_labels(LabelBlock(("t", 0), 5))])
def test_what_is_no_waiting_block_is_refused(value: bytes) -> None:
    with pytest.raises(BlockError):
        decode_waiting(value)


def test_a_newer_version_is_refused_by_name() -> None:
    newer = b"DLB\x03" + encode_labels(LabelBlock(("t", 0), 5))[4:]
    with pytest.raises(BlockError, match="version 3"):
        decode_labels(newer)


@settings(deadline=None)
@given(st.integers(0, 400))
def test_a_block_cut_short_is_refused(cut: int) -> None:
    n = np.arange(10)
    block = LabelBlock(("t", 0), 5, np.frombuffer(bytes(range(160)), ID_TYPE), n * 7, n * 343, n * 343, n * 16_807, n.astype(np.float64))
    whole = encode_labels(block)
    if cut < len(whole):
        with pytest.raises(BlockError):
            decode_labels(whole[:cut])


def sizes(ingest: Ingest, topic: str, n: int) -> float:
    blocks = [o.value for o in ingest.outputs if o.topic == topic and o.value]
    return sum(len(bytes(cramjam.lz4.compress_block(value))) for value in blocks) / n


def test_a_waiting_row_takes_at_most_60_bytes_and_a_label_less() -> None:
    rng = np.random.default_rng(1)
    n = 4_000
    conf = config(models={"fraud": {**model(amount="numeric"), "segments": {"country": {}, "channel": {}}}})
    sent, truths = [], []
    for i in range(n):
        segments = {"country": f"c{i % 10}", "channel": f"ch{i % 3}"}
        value = event(id=f"txn-{i:016d}", time=T0 + 3 * i, score=rng.random(), version=f"v{i % 2}", **segments)
        value["class"] = str(i % 2)
        record_ = record(value, i, at=T0 + 3 * i + int(rng.integers(0, 50)))
        sent.append(record_)
        truths.append(record({"id": f"txn-{i:016d}", "label": int(rng.random() < 0.1)}, i, topic="labels", at=T0 + 3 * i))
    predictions, labels = Ingest(conf).take(*sent), Ingest(conf, topic="labels").take(*truths)
    assert sizes(predictions, "driftline.waiting", n) <= 60
    assert sizes(labels, "driftline.labels", n) <= 40


def test_rows_of_several_models_stand_in_one_block_in_offset_order() -> None:
    conf = config(models={"fraud": {**model(amount="numeric"), "segments": {"country": {}}}, "ads": model(price="numeric")})
    records = [record(event(id=str(n), model=["fraud", "ads"][n % 2], country="DE"), n) for n in range(40)]
    blocks = Ingest(conf).take(*records).waiting()
    assert len(blocks) == 2
    for block in blocks:
        assert block.offset.tolist() == sorted(block.offset.tolist())
        named = [block.model.values[c] for c in block.model.codes]
        assert named == [["fraud", "ads"][n % 2] for n in block.offset.tolist()]
        assert [c >= 0 for c in block.segments["country"].codes] == [name == "fraud" for name in named]


def test_a_large_batch_is_cut_into_messages_below_the_limit() -> None:
    conf = config(models={"fraud": model(**{f"f{i}": "numeric" for i in range(100)})})
    features = {f"f{i}": i * 0.1 for i in range(100)}
    ingest = Ingest(conf).take(*(record(event(id=str(n), features=features), n) for n in range(12_000)))
    batches = ingest.observations()
    assert [batch.seq for batch in batches] == list(range(1, len(batches) + 1))
    assert sum(map(len, batches)) == 12_000
    assert max(len(o.value or b"") for o in ingest.outputs) < 5 << 20
    assert np.concatenate([batch.offset for batch in batches]).tolist() == list(range(12_000))


def test_rows_of_long_texts_are_cut_into_messages_that_fit() -> None:
    segments = {"url": {"path": "url"}}
    conf = config(models={"fraud": {**model(country="categorical"), "segments": segments}})
    records = [record(event(id=str(k), url=f"{k:06d}" + "x" * 490, features={"country": f"{k:07d}" + "y" * 480}), k) for k in range(20_000)]
    whole = Ingest(conf).take(*records)
    assert max(len(output.value or b"") for output in whole.outputs) <= 4 << 20
    batches = whole.observations()
    assert len(batches) > 2
    assert [batch.seq for batch in batches] == list(range(1, len(batches) + 1))
    assert [offset for batch in batches for offset in batch.offset.tolist()] == list(range(20_000))
    seen = [batch.segments["url"].values[c] for batch in batches for c in batch.segments["url"].codes.tolist()]
    assert seen == [f"{k:06d}" + "x" * 490 for k in range(20_000)]
    blocks = [block for block in whole.waiting() if len(block)]
    assert len(blocks) > 2
    assert sorted(offset for block in blocks for offset in block.offset.tolist()) == list(range(20_000))
    # Rows of a later part are late by the tick of an earlier one, if that had it.
    assert [block.tick_ms for block in blocks].count(T0) == 2


def test_label_rows_of_long_texts_are_cut_into_messages_that_fit() -> None:
    records = [record({"id": str(k), "label": f"{k:06d}" + "ü" * 240}, k, topic="labels") for k in range(30_000)]
    ingest = Ingest(topic="labels").take(*records)
    assert max(len(output.value or b"") for output in ingest.outputs) <= 4 << 20
    blocks = ingest.labels()
    assert len(blocks) > 2
    assert sorted(offset for block in blocks for offset in block.offset.tolist()) == list(range(30_000))
    assert all(np.diff(block.offset).min() > 0 for block in blocks)


def test_a_very_long_text_is_cut_and_stays_different_from_its_neighbour() -> None:
    segments = {"a": {"path": "seg"}, "b": {"path": "seg"}}
    conf = config(models={"fraud": {**model(country="categorical"), "segments": segments}})
    records = [record(event(id=str(k), seg="x" * 900_000 + str(k % 2), version="v" * 600), k) for k in range(4)]
    (batch,) = Ingest(conf).take(*records).observations()
    column = batch.segments["a"]
    assert column.codes.tolist() == [0, 1, 0, 1]
    assert [len(text) for text in column.values] == [512, 512]
    assert all("…" in text for text in column.values)
    assert batch.version is not None
    assert len(batch.version.values[0]) == 512
