"""The scanner reads what the typed decoder would have read, to the bit, or leaves the event to it."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest

from driftline.streams.ingest.decoder import PredictionDecoder
from driftline.streams.ingest.mapping import scannable
from driftline.streams.ingest.scan import FeatureScanner
from tests.ingest.streams import Ingest, config, event, model, record

_NAMES = ["amount", "age", "x"]
_CONF = config(models={"fraud": model(amount="numeric", age="numeric", x="numeric")})
_NESTED = config(
    models={name: model(amount="numeric", age="numeric", x="numeric") for name in ("fraud", "ads")}, fields={"features": "a.b.features"}
)


def spelled(rng: random.Random) -> str:
    """A number as JSON may spell it."""
    kind = rng.randrange(6)
    if kind == 0:
        return repr(struct.unpack("<d", struct.pack("<Q", rng.getrandbits(62)))[0])
    if kind == 1:
        return f"{rng.choice(['', '-'])}{rng.getrandbits(rng.randrange(1, 70))}"
    if kind == 2:
        return f"{rng.gauss(0, 1):.{rng.randrange(0, 19)}f}"
    if kind == 3:
        return f"{rng.getrandbits(rng.randrange(1, 64))}{rng.choice(['e', 'E'])}{rng.choice(['', '+', '-'])}{rng.randrange(0, 320)}"
    if kind == 4:
        # Halfway between two doubles, or next to it.
        return f"{((1 << 53) + 2 * rng.randrange(1 << 50) + 1) * rng.choice([1, 5, 25])}e{rng.choice([-2, -1, 0, 1])}"
    return rng.choice(["0", "-0", "0.0", "-0.0", "0e5", "1e22", "1e23", "9007199254740993", "0." + "0" * 30 + "5", "0.1", "1E-7"])


def test_numbers_are_the_doubles_nearest_to_their_text() -> None:
    rng = random.Random(5)
    texts = [spelled(rng) for _ in range(60_000)]
    numbers, rest = FeatureScanner(["f"], ["x"]).read([b'{"f":{"x":%s}}' % text.encode() for text in texts])
    read = np.array(list(map(bool, rest)))
    expected = np.array([0.0 if text == "-0" else float(text) for text in texts])  # an integer has no -0
    assert np.array_equal(numbers[read, 0].view(np.uint64), expected[read].view(np.uint64))
    assert read.mean() > 0.9
    digits = np.array([len(text.lstrip("-0.").split("e")[0].replace(".", "")) for text in texts])
    plain = (digits <= 19) & (np.abs(expected) < 1e250) & ((np.abs(expected) > 1e-250) | (expected == 0))
    assert read[plain].mean() > 0.999, "what is plain is read"


@pytest.mark.parametrize(
    "text",
    [
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "-Infinity",
        "tru",
        "falsee",
        '"1"',
        "[1]",
        "{}",
        "1 2",
        "1,",
        "--1",
        "1_0",
        "nul",
        "",
    ],
)
def test_what_is_no_number_is_not_read(text: str) -> None:
    numbers, rest = FeatureScanner(["f"], ["x"]).read([b'{"f":{"x":1}}', b'{"f":{"x":%s}}' % text.encode(), b'{"f":{"x":2}}'])
    assert rest == [b'{"f":0}', b"", b'{"f":0}']
    assert numbers[[0, 2], 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b' {\t"a" : {"f":\n{ "x" : 1 , "other":[1,{"x":2},"t"],"y":null } } }\r\n', True),
        (b'{"a":{"f":{}}}', True),
        (b'{"a":{}}', True),
        (b"{}", True),
        (b'{"f":{"x":9},"a":{"x":9,"f":{"y":2,"x":1}}}', True),
        (b'{"a":{"f":{"x":1,"x":2}}}', False),
        (b'{"a":{"f":{"x":1}},"a":{"f":{"x":2}}}', False),
        (b'{"a":{"f":{"x":1},"f":{}}}', False),
        (b'{"a":{"f":{"x":1,}}}', False),
        (b'{"a":{"f":{"x":1}},}', False),
        (b'{"a":{"f":{"x":1}}', False),
        (b'{"a":{"f":{"x":1}}}}', False),
        (b'{"a":{"f":{"x":1}}} {}', False),
        (b'{"a":{"f":[1]}}', False),
        (b'{"a":{"f":{\xffx":1}}}', False),
        (b'{"a":{"f":{"x":1,\xffy":1}}}', False),
        (b'{"a":null}', False),
        (b'{"a":{"f":{"x":1}},"t":"\\u0041 \\" \\\\"}', True),
        (b'{"a":{"f":{"y":false,"x":true}}}', True),
        (b'{"a":{"f":{"x":1,"t":"\\u0041"}}}', False),
        (b'{"a":{"f":{"x":1,"t":"\xc3\xbc"}}}', False),
        (b'{"a":{"\\u0066":{"x":1}}}', False),
        (b'{"t":"\xc3\xbc","a":{"f":{"x":1}}}', True),
        (b'{"a":{"f":{"x":1,"t":"\x01"}}}', False),
        (b'{"a":{"f":{"x":1}},"t":[1,}}', False),
        (b'{"a":{"f":{"x":1}},"t":' + b"[" * 40 + b"]" * 40 + b"}", False),
        (b'[{"a":{"f":{"x":1}}}]', False),
        (b"", False),
        (b" ", False),
    ],
)
def test_an_event_is_read_whole_or_left(value: bytes, read: bool) -> None:
    scanner = FeatureScanner(["a", "f"], ["x", "y"])
    numbers, rest = scanner.read([b'{"a":{"f":{"x":5,"y":6}}}', value, b'{"a":{"f":{"y":8,"x":7}}}'])
    assert numbers[[0, 2]].tolist() == [[5.0, 6.0], [7.0, 8.0]], "neighbours do not notice"
    assert bool(rest[1]) == read
    if read:
        whole, without = orjson.loads(value), orjson.loads(rest[1])
        found: dict[str, Any] = whole.get("a", {}).get("f", {})
        assert np.array_equal(numbers[1], [np.nan if found.get(k) is None else found[k] for k in ("x", "y")], equal_nan=True)
        if "f" in whole.get("a", {}):
            whole["a"]["f"] = 0
        assert without == whole


def test_keys_that_would_need_escapes_have_no_scanner() -> None:
    assert all(map(scannable, ["amount", "a b", "é"[:0] + "x-1"]))
    assert not any(map(scannable, ["", "é", 'a"b', "a\\b", "a\n"]))


_WORDS = [
    b"null",
    b"true",
    b"false",
    b"tru",
    b'"text"',
    b"-0",
    b"1e400",
    b"{}",
    b"[]",
    b"NaN",
    b"12345678901234567890123",
    b'"\\u00fc"',
    b"3.0",
]


def damaged(seed: int, n: int, *, nested: bool) -> list[bytes]:
    """Events of plain numbers, and such as somebody has meddled with."""
    rng = random.Random(seed)
    out = []
    for i in range(n):
        value = event(id=f"i{i}", model=rng.choice(["fraud", "fraud", "ads", "none"]) if rng.random() < 0.2 else "fraud")
        features = {name: rng.gauss(0, 100) for name in rng.sample(_NAMES, rng.choice([3, 3, 3, 2, 0]))}
        value["features"] = features if rng.random() < 0.9 else [{"name": k, "value": v} for k, v in features.items()]
        if nested:
            value["a"] = {"b": {"features": value.pop("features")}, "zz": [1, {"b": {"features": {"x": 1}}}]}
        items = list(value.items())
        rng.shuffle(items)
        text = orjson.dumps(dict(items), option=rng.choice([None, orjson.OPT_INDENT_2]))
        kind = rng.random()
        if kind < 0.2:
            numbers = [repr(v).encode() for v in features.values()] or [b"x"]
            text = text.replace(rng.choice(numbers), rng.choice(_WORDS))
        elif kind < 0.3:
            at = rng.randrange(len(text))
            text = text[:at] + bytes([rng.choice(b'{}[]",:0 \\\x00\xff')]) + text[at + rng.choice([0, 1]) :]
        elif kind < 0.35:
            text = text[: rng.randrange(len(text))]
        elif kind < 0.4:
            text = text.replace(b'"x"', b'"age"')
        out.append(text)
    return out


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("conf", [_CONF, _NESTED], ids=["flat", "nested"])
def test_ingest_publishes_the_same_with_and_without_it(conf: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = damaged(seed, 1_500, nested=conf is _NESTED)
    records = [record(value, i) for i, value in enumerate(values)]
    cuts = [0, 1, 700, 701, 1_500]
    published = []
    for scanning in (True, False):
        if not scanning:
            monkeypatch.setattr(PredictionDecoder, "_shared_scanner", lambda _self: None)
        ingest = Ingest(conf)
        assert (ingest.task._decoder._scanner is not None) == scanning  # type: ignore[attr-defined]
        for first, last in pairwise(cuts):
            ingest.take(*records[first:last])
        published.append((ingest.outputs, ingest.counters))
    (with_it, counted), (without, plainly) = published
    assert with_it == without
    assert vars(counted) == vars(plainly)
    assert sum(len(batch) for batch in Ingest(conf).take(*records).observations()) > 700


def test_models_whose_features_differ_have_no_scanner() -> None:
    assert Ingest(config(models={"a": model(x="numeric"), "b": model(y="numeric")})).task._decoder._scanner is None  # type: ignore[attr-defined]
    mixed = config(models={"a": {**model(x="numeric"), "segments": {"x": {}}}})
    assert Ingest(mixed).task._decoder._scanner is not None  # type: ignore[attr-defined]
    shared = config(models={"a": model(x="numeric", y="numeric")}, fields={"score": "features.x"})
    assert Ingest(shared).task._decoder._scanner is None  # type: ignore[attr-defined]
