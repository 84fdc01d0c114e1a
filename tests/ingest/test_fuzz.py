"""Every message is a row or a dead letter, whatever its bytes; and its meaning does not depend on its neighbours."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from driftline.schemas.config import Config
from tests.ingest.streams import T0, Ingest, config, event, model, record

_CONFIGS: dict[str, Config] = {
    "declared": config(
        models={"fraud": {**model(amount="numeric", country="categorical"), "segments": {"country": {}}}, "ads": model(x="numeric")}
    ),
    "dynamic": config(models={"fraud": {"features": None, "segments": {"country": {}}}}),
    "top level": config(models={"fraud": {"features": None}}, fields={"features": ""}),
    "vector": config(models={"fraud": model(amount="numeric", country="categorical")}, fields={"feature_names": ["amount", "country"]}),
    "multiclass": config(models={"fraud": {**model(amount="numeric"), "task": "multiclass"}}, fields={"model": "const:fraud"}),
    "nested": config(models={"fraud": model(amount="numeric")}, fields={"features": "a.b", "score": "a.s", "model": "a.m", "id": "key"}),
}
_WORDS: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, -(10**30), 2**63, 1e308, "", "x", "1", "ü", "\u0000", "2025-01-01", T0, {}, [], [1, "a", None],
    {"name": "amount", "value": 1}, [{"name": "amount", "value": {}}], {"amount": "1", "country": 5}, {"a": {"b": {"amount": 3}}},
    ["\U0001f600"],
]  # fmt: skip
_KEYS = ["id", "time", "model", "version", "features", "score", "class", "latency_ms", "error", "sample_weight", "a", "label", "zz"]


def messages(seed: int, n: int) -> list[bytes | None]:
    """Events with random wrong values, and their texts with random damage."""
    rng = random.Random(seed)
    out: list[bytes | None] = []
    for _ in range(n):
        nested = {"b": {"amount": 1}, "s": 0.5, "m": "fraud"}
        value = event(model=rng.choice(["fraud", "fraud", "ads", "no"]), label=rng.choice(_WORDS), a=nested)
        for _ in range(rng.choice([0, 0, 1, 2, 4])):
            value[rng.choice(_KEYS)] = rng.choice(_WORDS)
        if rng.random() < 0.3:
            value["features"] = {"amount": rng.choice(_WORDS), "country": rng.choice(_WORDS), "more": rng.choice(_WORDS)}
        text = bytearray(orjson.dumps(value) if all(_fits(v) for v in value.values()) else repr(value).encode())
        damage = rng.random()
        if damage < 0.15:
            del text[rng.randrange(len(text)) :]
        elif damage < 0.4:
            for _ in range(rng.choice([1, 1, 3])):
                text[rng.randrange(len(text))] = rng.randrange(256)
        elif damage < 0.43:
            # A lone surrogate in some text or key: fine by JSON's grammar, by no encoder.
            places = [i for i, byte in enumerate(text) if byte == ord('"')] or [0]
            at = rng.choice(places) + 1
            text[at:at] = rng.choice([b"\\ud800", b"\\uDFFF", b"\xed\xa0\x80", b"\\udc00\\ud800"])
        elif damage < 0.45:
            text = text.replace(b"0.5", rng.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"'x'", b"[" * 2_000, b'"\\ud800"']))
        out.append(None if damage > 0.995 else bytes(text))
    return out


def _fits(value: object) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def rows_of(ingest: Ingest) -> dict[int, tuple[Any, ...]]:
    """By offset: what was published of a row, from whatever batch it came."""
    out: dict[int, tuple[Any, ...]] = {}
    for batch in ingest.observations():
        invalid = set() if batch.invalid is None else {tuple(pair) for pair in batch.invalid.tolist()}
        names = [*batch.numeric_names, *batch.categorical]
        for row, offset in enumerate(batch.offset.tolist()):
            seen: dict[str, Any] = {}
            for i, name in enumerate(batch.numeric_names):
                if batch.numeric is not None and batch.numeric[row, i] == batch.numeric[row, i]:
                    seen["n:" + name] = float(batch.numeric[row, i])
            segments = {"s:" + k: v for k, v in batch.segments.items()}
            texts = {**batch.categorical, **segments, "version": batch.version, "class": batch.class_}
            seen.update({k: t.values[t.codes[row]] for k, t in texts.items() if t is not None and t.codes[row] >= 0})
            for k in ("score", "confidence", "entropy", "latency_ms", "weight"):
                column = getattr(batch, k)
                if column is not None and column[row] == column[row]:
                    seen[k] = float(column[row])
            marked = sorted({names[f] for r, f in invalid if r == row})
            assert offset not in out
            out[offset] = (batch.model, int(batch.time_ms[row]), int(batch.record_ms[row]), seen, marked)
    return out


@pytest.mark.parametrize("name", list(_CONFIGS))
def test_every_fuzzed_prediction_is_a_row_unknown_or_a_dead_letter(name: str) -> None:
    values = messages(seed=7, n=10_000)
    ingest = Ingest(_CONFIGS[name])
    for start in range(0, len(values), 500):
        ingest.take(*(record(v, start + i, key=b"k%d" % (start + i)) for i, v in enumerate(values[start : start + 500])))
    counts = {k: ingest.counters.value("records", outcome=k) for k in ("ok", "invalid", "unknown_model")}
    assert sum(counts.values()) == len(values)
    assert len(rows_of(ingest)) == counts["ok"] > 1_000
    assert len(ingest.dead_letters()) == counts["invalid"]


@pytest.mark.parametrize("place", ["id", "model", "version", "class", "seg", "country", "name", "unread", "key"])
@pytest.mark.parametrize("name", ["declared", "dynamic", "multiclass"])
def test_a_lone_surrogate_is_a_dead_letter_or_not_read(name: str, place: str) -> None:
    value: dict[str, Any] = event(**{"class": "c", "seg": "s", "unread": 1})
    value["features"]["name"] = "n"
    if place in value["features"]:
        value["features"][place] = "SURROGATE"
    elif place == "key":
        value["features"]["SURROGATE"] = 1.0
    else:
        value[place] = "SURROGATE"
    if name == "multiclass":
        value["score"] = {"SURROGATE": 0.5}
    bad = orjson.dumps(value).replace(b"SURROGATE", b"\\ud800")
    ingest = Ingest(_CONFIGS[name]).take(record(bad), record(event(), 1))
    assert set(ingest.reasons()) <= {"decode"}
    assert len(rows_of(ingest)) + len(ingest.reasons()) == 2


@pytest.mark.parametrize("text", [b'{"id":"\\ud800","label":1}', b'{"id":"a","label":"\\udc00"}', b'{"id":"a","label":NaN,"\\ud800":1}'])
def test_a_label_with_a_lone_surrogate_is_a_dead_letter(text: bytes) -> None:
    ingest = Ingest(topic="labels").take(record(text, topic="labels"), record({"id": "b", "label": 1}, 1, topic="labels"))
    assert ingest.reasons() == ["decode"]
    assert [len(block) for block in ingest.labels() if len(block)] == [1]


def test_every_fuzzed_label_is_a_row_or_a_dead_letter() -> None:
    values = messages(seed=8, n=10_000)
    ingest = Ingest(topic="labels")
    for start in range(0, len(values), 500):
        ingest.take(*(record(v, start + i, topic="labels") for i, v in enumerate(values[start : start + 500])))
    assert sum(len(block) for block in ingest.labels()) + len(ingest.dead_letters()) == len(values)
    assert sum(len(block) for block in ingest.labels()) > 1_000


@pytest.mark.parametrize("name", list(_CONFIGS))
def test_a_record_means_the_same_in_any_cut(name: str) -> None:
    values = messages(seed=9, n=600)
    records = [record(v, i, key=b"k%d" % i) for i, v in enumerate(values)]
    whole = Ingest(_CONFIGS[name]).take(*records)
    single = Ingest(_CONFIGS[name])
    for one in records:
        single.take(one)
    assert rows_of(whole) == rows_of(single)
    assert [d["driftline.source.offset"] for d in whole.dead_letters()] == [d["driftline.source.offset"] for d in single.dead_letters()]
    assert whole.reasons() == single.reasons()
