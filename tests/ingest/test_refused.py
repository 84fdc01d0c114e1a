"""What cannot be placed leaves as a dead letter, and what is sensitive never leaves at all."""

from __future__ import annotations

import hashlib
import hmac
import math

import numpy as np
import orjson
import pytest

from driftline.schemas.config import LabelSource
from driftline.schemas.dead_letter import DeadLetter
from driftline.schemas.topics import DEAD_LETTERS
from tests.ingest.streams import T0, Ingest, config, event, record


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


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b'{"id":"\xff","model":"fraud"}', "not JSON: the text is not UTF-8: byte 0xff at position 7"),
        # What Python's own reader takes for UTF-16, and says so.
        (b"\xff\xfe{", "not JSON: the text is not UTF-8: byte 0xff at position 0"),
        (b'{\x00"\x00a', "not JSON: a NUL byte at position 1, as UTF-16 has them: expected UTF-8"),
        (b'{"id":"\\ud800"}', "not JSON: half of a character, a \\u escape from d800 to dfff without the other one of its pair"),
    ],
)
def test_text_that_is_none_is_told_in_plain_words(value: bytes, detail: str) -> None:
    ingest = Ingest().take(record(value))
    (output,) = [o for o in ingest.outputs if o.topic == "driftline.dlq"]
    assert DeadLetter.from_headers(output.headers).error == detail


def test_a_dead_letter_keeps_bytes_key_headers_and_position() -> None:
    ingest = Ingest().take(record(b"{oops", 41, key=b"k", headers=(("trace", b"t"),)))
    (output,) = [o for o in ingest.outputs if o.topic == "driftline.dlq"]
    letter = DeadLetter.from_headers(output.headers)
    assert (output.key, output.value, dict(output.headers)["trace"]) == (b"k", b"{oops", b"t")
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp_ms) == ("predictions", 0, 41, T0)
    assert (letter.stage, letter.reason, letter.truncated) == ("ingest", "decode", False)


NESTED = {"id": "payload.txn.id", "model": "head.model", "time": "payload.at"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"head": {"model": "fraud"}, "payload": {"txn": {"id": ["x"]}}}, '"payload.txn.id": expected a text or a number, got'),
        ({"head": {"model": "fraud"}, "payload": {}}, '"payload.txn.id": expected a text or a number, got nothing'),
        ({"head": {}, "payload": {"txn": {"id": "a"}}}, 'no model: expected a name at "head.model"'),
    ],
)
def test_the_error_of_a_dead_letter_names_the_path_and_the_log_says_it_once_a_batch(
    value: dict[str, object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    conf = config(fields=NESTED)
    ingest = Ingest(conf).take(*(record(orjson.dumps(value), i) for i in range(3)))
    letters = [DeadLetter.from_headers(o.headers) for o in ingest.outputs if o.topic == "driftline.dlq"]
    assert [letter.error.startswith(said) for letter in letters] == [True] * 3
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("dead_lettered")]
    assert f"reason={letters[0].reason} records=3 first=predictions/0:0 error=" in line
    assert said in line


def test_a_label_s_dead_letter_names_its_path() -> None:
    source = LabelSource.model_validate({"topic": "labels", "fields": {"id": "of", "value": "truth.y"}})
    conf = config().model_copy(update={"labels": [source]})
    ingest = Ingest(conf, topic="labels").take(record(b'{"of":"a","truth":{"y":[1]}}', topic="labels"))
    (letter,) = [DeadLetter.from_headers(o.headers) for o in ingest.outputs if o.topic == "driftline.dlq"]
    assert letter.error.startswith('"truth.y": expected a number, boolean or text, got')


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
def test_a_dead_letter_of_sensitive_fields_has_no_payload(
    spec: dict[str, object], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DRIFTLINE_TEST_KEY", "k")
    conf = config(models={"fraud": spec}, hash_key={"env": "DRIFTLINE_TEST_KEY"})
    ingest = Ingest(conf).take(record(b'{"iban": "DE00', headers=(("who", b"Ann"),), key=b"Ann"))
    (output,) = [o for o in ingest.outputs if o.topic == "driftline.dlq"]
    assert output.value is None
    assert b"Ann" not in b"".join(value for _, value in output.headers)
    assert "dead_lettered reason=decode" in caplog.text
    assert "DE00" not in caplog.text
    assert "driftline.sha256" in dict(output.headers)
