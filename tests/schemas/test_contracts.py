"""Every example message, by our decoder and by an independent JSON Schema validator."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from driftline.schemas.contracts import (
    CONTRACTS,
    ContractError,
    cloud_event_headers,
    contract_name,
    decode,
    encode_event,
    rfc3339_ms,
)
from driftline.schemas.dead_letter import DeadLetter
from driftline.schemas.events import CLOUD_EVENT_TYPES, Alert, DriftEvent, Effect, Incident, Snapshot, Transition
from driftline.schemas.json_schema import all_schemas
from driftline.schemas.topics import TOPICS

EXAMPLES = Path(__file__).parents[1] / "contracts"
SCHEMA_OF = {
    "prediction": "prediction",
    "label": "label",
    "drift": "drift_event",
    "alerts": "alert",
    "incidents": "incident",
    "transitions": "transition",
    "snapshots": "snapshot",
}
EVENTS = {"drift", "alerts", "incidents", "transitions"}


def examples(kind: str) -> list[Any]:
    found = sorted(EXAMPLES.glob(f"*/{kind}/*.json"))
    return [pytest.param(path.parts[-3], json.loads(path.read_text("utf-8")), id=f"{path.parts[-3]}/{path.stem}") for path in found]


def kafka_headers(example: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    return [(name, value.encode()) for name, value in example.get("headers", {}).items()]


def schema_paths(topic: str, example: dict[str, Any]) -> set[str]:
    """Paths that jsonschema finds fault with, in value and headers; inside alternatives, those of each one."""
    schemas = all_schemas()
    paths: set[str] = set()
    if topic in SCHEMA_OF:
        errors = Draft202012Validator(schemas[SCHEMA_OF[topic]]).iter_errors(example["message"])
        paths |= set(_leaves(errors, "$", quoted=False))
    if topic in EVENTS:
        errors = Draft202012Validator(schemas["cloud_event"]).iter_errors(example.get("headers", {}))
        paths |= set(_leaves(errors, "$.headers", quoted=False))
    if topic == "dlq":
        errors = Draft202012Validator(schemas["dead_letter"]).iter_errors(example.get("headers", {}))
        paths |= set(_leaves(errors, "$.headers", quoted=True))
    return paths


def _leaves(errors: Any, root: str, *, quoted: bool) -> Iterator[str]:
    for error in errors:
        path = root
        for part in error.absolute_path:
            path += f"[{part}]" if isinstance(part, int) else (f'["{part}"]' if quoted or _free(path) else f".{part}")
        yield path
        if error.validator == "required":
            for name in error.validator_value:
                if name not in error.instance:
                    yield f'{path}["{name}"]' if quoted else f"{path}.{name}"
        yield from _leaves(error.context or (), root, quoted=quoted)


def _free(path: str) -> bool:
    """Whether the keys at a path are the user's, not the contract's."""
    return path in ("$.segment", "$.features", "$.segments", "$.evidence")


@pytest.mark.parametrize(("topic", "example"), examples("valid"))
def test_valid_example_is_accepted_by_decoder_and_schema(topic: str, example: dict[str, Any]) -> None:
    value = json.dumps(example["message"]).encode()
    decode(topic, value, kafka_headers(example))
    assert schema_paths(topic, example) == set()


@pytest.mark.parametrize(("topic", "example"), examples("invalid"))
def test_invalid_example_is_refused_with_its_path(topic: str, example: dict[str, Any]) -> None:
    value = json.dumps(example["message"]).encode()
    with pytest.raises(ContractError) as refused:
        decode(topic, value, kafka_headers(example))
    assert refused.value.path == example["path"], refused.value
    assert refused.value.reason


@pytest.mark.parametrize(("topic", "example"), examples("invalid"))
def test_invalid_example_breaks_the_json_schema_at_its_path(topic: str, example: dict[str, Any]) -> None:
    assert (example["path"] in schema_paths(topic, example)) != example.get("beyond_schema", False)


def test_every_contract_has_examples_of_both_kinds() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == {*CONTRACTS, "dlq"}
    for folder in folders:
        assert list((EXAMPLES / folder / "valid").glob("*.json"))
        assert len(list((EXAMPLES / folder / "invalid").glob("*.json"))) >= 4


def test_contract_is_found_by_the_full_name_of_each_json_topic() -> None:
    named = {topic.name for topic in TOPICS if "JSON" in topic.event} | {"dlq"}
    assert {contract_name(topic.full_name("team.a")) for topic in TOPICS if topic.name in named} == named
    with pytest.raises(KeyError, match="no contract"):
        contract_name("driftline.observations")


@pytest.mark.parametrize("topic", sorted(CONTRACTS))
@pytest.mark.parametrize(
    "value", [b"", b"{", b"\xff\xfe", b"nul", b'{"id": NaN}', b"[" * 100_000, b'{"a":' * 100_000, b"\x00\x00\x00\x00\x07{}"]
)
def test_bytes_that_are_not_json_are_a_contract_error(topic: str, value: bytes) -> None:
    with pytest.raises(ContractError):
        decode(topic, value)


def test_tombstone_is_a_contract_error() -> None:
    with pytest.raises(ContractError, match="tombstone"):
        decode("drift", None)


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(CONTRACTS)))
def test_any_bytes_decode_or_raise_contract_error(value: bytes, topic: str) -> None:
    with pytest.raises(ContractError):
        decode(topic, value)


@pytest.mark.parametrize(("key", "path"), [("a", '["a"]'), ('a"]', '["a\\"]"]'), ("`", '["\\u0060"]')])
def test_any_key_that_holds_what_it_should_not_is_named(key: str, path: str) -> None:
    example = json.loads((EXAMPLES / "alerts" / "valid" / "firing.json").read_text("utf-8"))
    message = example["message"] | {"segment": {"country": "BR", key: None}}
    with pytest.raises(ContractError) as caught:
        decode("alerts", json.dumps(message).encode(), kafka_headers(example))
    assert caught.value.path == f"$.segment{path}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.data())
def test_an_example_with_one_field_replaced_decodes_or_names_that_field(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(p for p in EXAMPLES.glob("*/valid/*.json") if p.parts[-3] != "dlq")))
    example = json.loads(path.read_text("utf-8"))
    field = data.draw(st.sampled_from(sorted(example["message"])))
    example["message"][field] = data.draw(JSON)
    refused = f"$.{field}"
    try:
        decode(path.parts[-3], json.dumps(example["message"]).encode(), kafka_headers(example))
    except ContractError as error:
        refused = error.path
    # The id of a drift event also stands in the headers, which then differ.
    assert refused.startswith(f"$.{field}") or (refused, field) == ("$.headers.ce_id", "id")


FLOATS = st.floats() | st.none()


@settings(deadline=None)
@given(FLOATS, st.floats())
def test_numbers_that_are_not_finite_never_reach_the_wire(statistic: float | None, size: float) -> None:
    event = msgspec.structs.replace(drift_event(), statistic=statistic, effect=Effect("rate", size))
    value = encode_event(event)
    plain = json.loads(value, parse_constant=lambda name: pytest.fail(name))
    finite = statistic is not None and math.isfinite(statistic)
    assert plain["statistic"] == (statistic if finite else None)
    assert math.isfinite(plain["effect"]["size"])
    decode("drift", value, cloud_event_headers(event, id=event.id, source="/driftline/test", subject="m", time_ms=0))


def test_equal_events_give_equal_bytes_whatever_the_order_of_a_mapping() -> None:
    event = drift_event()
    one = msgspec.structs.replace(event, segment={"a": "1", "b": "2"})
    two = msgspec.structs.replace(event, segment={"b": "2", "a": "1"})
    assert encode_event(one) == encode_event(two)
    assert list(json.loads(encode_event(one))) == [*DriftEvent.__struct_fields__]


@pytest.mark.parametrize("struct", [DriftEvent, Alert, Incident, Transition])
def test_headers_of_every_cloud_event_are_complete(struct: type[msgspec.Struct]) -> None:
    folder = {DriftEvent: "drift", Alert: "alerts", Incident: "incidents", Transition: "transitions"}[struct]
    example = json.loads(sorted((EXAMPLES / folder / "valid").glob("*.json"))[0].read_text("utf-8"))
    event = msgspec.convert(example["message"], struct)
    identity = getattr(event, "id", "x")
    headers = dict(cloud_event_headers(event, id=identity, source="/driftline/test", subject="modèle", time_ms=1_763_726_400_001))
    assert headers["ce_type"] == CLOUD_EVENT_TYPES[struct].encode()
    assert headers["ce_time"] == b"2025-11-21T12:00:00.001Z"
    assert decode(folder, encode_event(event), headers.items()) == event
    texts = {name: value.decode() for name, value in headers.items()}
    assert list(Draft202012Validator(all_schemas()["cloud_event"]).iter_errors(texts)) == []


def test_a_type_that_is_no_cloud_event_has_no_headers() -> None:
    snapshot = msgspec.convert(json.loads((EXAMPLES / "snapshots/valid/learning.json").read_text("utf-8"))["message"], Snapshot)
    with pytest.raises(KeyError):
        cloud_event_headers(snapshot, id="x", source="s", subject="m", time_ms=0)


@settings(deadline=None)
@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_time_is_rfc_3339_with_milliseconds(time_ms: int) -> None:
    text = rfc3339_ms(time_ms)
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert (moment - datetime.fromisoformat("1970-01-01T00:00:00+00:00")) / (moment.resolution * 1_000) == time_ms
    assert text.endswith("Z")
    assert len(text) == len("2025-11-21T12:00:00.000Z")


@pytest.mark.parametrize(("time_ms", "text"), [(1 << 62, "9999-12-31T23:59:59.999Z"), (-(1 << 62), "0001-01-01T00:00:00.000Z")])
def test_time_beyond_the_calendar_is_its_end(time_ms: int, text: str) -> None:
    assert rfc3339_ms(time_ms) == text


def test_dead_letter_example_reads_as_what_it_says() -> None:
    example = json.loads((EXAMPLES / "dlq/valid/ingest.json").read_text("utf-8"))
    letter = decode("driftline.dlq", None, kafka_headers(example))
    assert isinstance(letter, DeadLetter)
    assert (letter.topic, letter.partition, letter.offset, letter.reason) == ("fraud.predictions", 2, 184467, "no_id")


def drift_event() -> DriftEvent:
    return msgspec.convert(json.loads((EXAMPLES / "drift/valid/drift.json").read_text("utf-8"))["message"], DriftEvent)
