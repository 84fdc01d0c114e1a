"""What a row is of: where it is read from, and what leaves ingest of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from driftline.streams.observation import NO_UNIT
from driftline.streams.task import MemoryRecord
from tests.ingest.streams import Ingest, config, event, model, record


def ingest(unit: str, *events: MemoryRecord, spec: dict[str, Any] | None = None, **more: Any) -> Ingest:
    declared = model(amount="numeric", country="categorical") if spec is None else spec
    return Ingest(config(models={"fraud": {**declared, "unit": unit}}, **more)).take(*events)


def units(found: Ingest) -> list[int]:
    column = found.observation().unit
    assert column is not None
    return [int(value) for value in column]


@pytest.mark.parametrize(
    ("unit", "spec", "records"),
    [
        ("card", None, [record(event(card=card), n) for n, card in enumerate(("a", "b", "a", None))]),
        ("payload.card", None, [record(event(payload={"card": card}), n) for n, card in enumerate(("a", "b", "a", None))]),
        ("card", None, [record(event(segments={"card": card}), n) for n, card in enumerate(("a", "b", "a", None))]),
        ("header:card", None, [record(event(), n, headers=(("card", c),) if c else ()) for n, c in enumerate((b"a", b"b", b"a", None))]),
        ("key", None, [record(event(), n, key=key) for n, key in enumerate((b"a", b"b", b"a", None))]),
        ("country", None, [record(event(features={"country": c}), n) for n, c in enumerate(("a", "b", "a", None))]),
        ("amount", None, [record(event(features={"amount": v}), n) for n, v in enumerate((1, 2, 1.0, None))]),
        ("card", {}, [record(event(features={"card": c, "x": 1}), n) for n, c in enumerate(("a", "b", "a", None))]),
    ],
    ids=["field", "path", "published", "header", "key", "categorical", "numeric", "undeclared"],
)
def test_a_unit_is_read_where_a_segment_would_be(unit: str, spec: dict[str, Any] | None, records: list[MemoryRecord]) -> None:
    found = ingest(unit, *records, spec=spec)
    a, b, again, none = units(found)
    assert a == again != b
    assert none == NO_UNIT != a
    # The join hands it on: the same hashes stand beside what waits.
    rows = [zip(block.offset, block.unit, strict=True) for block in found.waiting() if block.unit is not None]
    waiting = {int(offset): int(value) for row in rows for offset, value in row}
    assert waiting == {0: a, 1: b, 2: again, 3: none}


def test_a_number_and_its_text_are_one_unit() -> None:
    a, b, c = units(ingest("card", *(record(event(card=card), n) for n, card in enumerate((17, "17", 17.0)))))
    assert a == b == c


def test_models_without_a_unit_have_none_beside_one_that_has() -> None:
    both = config(models={"fraud": {**model(amount="numeric"), "unit": "card"}, "ads": model(amount="numeric")})
    found = Ingest(both).take(record(event(card="a"), 0), record(event(model="ads", card="a"), 1))
    assert {batch.model: batch.unit is not None for batch in found.observations()} == {"fraud": True, "ads": False}
    (waiting,) = [block for block in found.waiting() if len(block)][:1]
    assert waiting.unit is not None


def test_where_anything_is_sensitive_the_hash_is_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"features": {"country": {"kind": "categorical", "sensitive": True}}}
    found = []
    for key in ("one", "two", "one"):
        monkeypatch.setenv("HASH_KEY", key)
        found.append(units(ingest("card", record(event(card="4111")), spec=spec, hash_key={"env": "HASH_KEY"})))
    assert found[0] == found[2] != found[1]
    assert found[0] != units(ingest("card", record(event(card="4111"))))


def test_the_value_itself_leaves_ingest_nowhere() -> None:
    found = ingest("card", record(event(card="4111-1111-1111-1111")))
    assert found.outputs
    assert not [output for output in found.outputs if b"4111" in (output.value or b"")]
    assert b"4111" in orjson.dumps(event(card="4111-1111-1111-1111"))


@pytest.mark.parametrize("sensitive", [False, True])
@pytest.mark.parametrize("unit", ["country", "card"])
def test_an_empty_text_is_nobodys(unit: str, sensitive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASH_KEY", "one")
    spec = {"features": {"country": {"kind": "categorical", "sensitive": sensitive}}}
    more = {"hash_key": {"env": "HASH_KEY"}} if sensitive else {}
    records = [record(event(card=value, features={"country": value}), n) for n, value in enumerate(("a", "", "a", ""))]
    a, nobody, again, nobody_either = units(ingest(unit, *records, spec=spec, **more))
    assert a == again != NO_UNIT == nobody == nobody_either


def test_what_is_no_scalar_is_nobodys_and_long_texts_stay_different() -> None:
    values = [{"x": 1}, ["a"], None, "x" * 100_000, "x" * 99_999 + "y", "x" * 100_000]
    nested, listed, nothing, one, other, again = units(ingest("card", *(record(event(card=value), n) for n, value in enumerate(values))))
    assert (nested, listed, nothing) == (NO_UNIT,) * 3
    assert one == again != other


def missing(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.getMessage().startswith("unit_missing")]


def test_a_unit_that_no_row_says_is_warned_of_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    found = ingest("segments.card", *(record(event(card="a"), n) for n in range(999)))
    assert not missing(caplog)
    found.take(*(record(event(card="a"), n) for n in range(999, 2_500)))
    found.take(record(event(card="a"), 2_500))
    (told,) = missing(caplog)
    assert "model=fraud unit='segments.card' rows=2500" in told
    assert found.counters.value("unit_missing", model="fraud") == 2_501


def test_guests_without_a_unit_are_counted_and_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    found = ingest("card", *(record(event(card="a" if n == 7 else None), n) for n in range(3_000)))
    assert not missing(caplog)
    assert found.counters.value("unit_missing", model="fraud") == 2_999
    assert found.counters.value("unit_missing", model="ads") == 0
