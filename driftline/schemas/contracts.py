"""Messages against their contract: decode with the failing path named, encode the same bytes every time.

Drift events, alerts, incidents and transitions are CloudEvents 1.0 in Kafka's binary mode (CloudEvents Kafka Protocol Binding 1.0.2,
3.2): attributes are ``ce_`` headers, the value is the JSON data alone.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from driftline.schemas.dead_letter import DeadLetter, DeadLetterError
from driftline.schemas.events import CLOUD_EVENT_TYPES, Alert, DriftEvent, Incident, Label, Prediction, Snapshot, Transition

Headers = Iterable[tuple[str, bytes | None]]

CONTRACTS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "prediction": Prediction,
    "label": Label,
    "drift": DriftEvent,
    "alerts": Alert,
    "incidents": Incident,
    "transitions": Transition,
    "snapshots": Snapshot,
}
"""JSON messages by the name of their topic without its prefix; the users' own topics by what they carry."""
DEAD_LETTER_CONTRACT: Final = "dlq"

_CONTENT_TYPE: Final = "application/json"
_ATTRIBUTES: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_PATH: Final = re.compile(r" - at `(key in )?(\$[^`]*)`\Z")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_DECODERS: Final = {name: msgspec.json.Decoder(struct) for name, struct in CONTRACTS.items()}


class ContractError(ValueError):
    """A message that breaks its contract.

    Attributes
    ----------
    path : where, for example ``$.effect.size`` in the value or ``$.headers.ce_id``; ``$`` for the message as a whole.
    reason : what was expected and found.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def contract_name(topic_name: str) -> str:
    """The contract of a topic: ``driftline.drift`` and ``drift`` are both ``drift``.

    Raises
    ------
    KeyError : the topic carries no message that other programs read.
    """
    name = topic_name.rsplit(".", 1)[-1]
    if name not in CONTRACTS and name != DEAD_LETTER_CONTRACT:
        raise KeyError(f'no contract for topic "{topic_name}"; there are: {", ".join([*CONTRACTS, DEAD_LETTER_CONTRACT])}')
    return name


def decode(topic_name: str, value: bytes | None, headers: Headers | None = None) -> msgspec.Struct | DeadLetter:
    """The typed message.

    Parameters
    ----------
    headers : as Kafka gave them; checked for CloudEvents and dead letters, ignored for the rest.

    Raises
    ------
    ContractError : the message breaks its contract; names the first path that does.
    KeyError : the topic has no contract.
    """
    name = contract_name(topic_name)
    if name == DEAD_LETTER_CONTRACT:
        try:
            return DeadLetter.from_headers(headers or ())
        except DeadLetterError as error:
            raise ContractError(f'$.headers["{error.header}"]', str(error).split(": ", 1)[1]) from None
    if value is None:
        raise ContractError("$", "expected a value, got a tombstone")
    event = _decode_json(name, value)
    if type(event) in CLOUD_EVENT_TYPES:
        _check_attributes(event, headers or ())
    return event


def encode_event(event: msgspec.Struct) -> bytes:
    """The event as JSON: equal events give equal bytes, NaN and infinities never leave.

    A number that is not finite becomes null; an effect's size, which may not be null, becomes the largest number.
    """
    effect = getattr(event, "effect", None)
    if effect is not None and not math.isfinite(effect.size):
        largest = 0.0 if math.isnan(effect.size) else math.copysign(sys.float_info.max, effect.size)
        event = msgspec.structs.replace(event, effect=msgspec.structs.replace(effect, size=largest))
    return _ENCODER.encode(event)


def cloud_event_headers(
    event: msgspec.Struct,
    *,
    id: str,  # noqa: A002 - the attribute's name
    source: str,
    subject: str,
    time_ms: int,
) -> tuple[tuple[str, bytes], ...]:
    """The headers of an event in CloudEvents' binary mode.

    Parameters
    ----------
    id : unique within `source`; ours are deterministic, so a consumer drops duplicates by it.
    source : a URI reference, for example ``/driftline/production``.
    subject : what the event is about, for example the model's name.
    time_ms : when it happened, Unix milliseconds.

    Raises
    ------
    KeyError : the type of event is not a CloudEvent.
    """
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", CLOUD_EVENT_TYPES[type(event)].encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", rfc3339_ms(time_ms).encode()),
        ("content-type", _CONTENT_TYPE.encode()),
    )


def rfc3339_ms(time_ms: int) -> str:
    """Unix milliseconds as ``2026-01-31T12:00:00.000Z``; beyond the years 1 to 9999 the nearest time within."""
    lowest, highest = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    try:
        moment = _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        moment = lowest if time_ms < 0 else highest
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def near_words(version: str, time_ms: int) -> str:
    """What is said of a version that came shortly before a change."""
    return f'near version "{version}", first seen at {rfc3339_ms(time_ms)}'


def _decode_json(name: str, value: bytes) -> msgspec.Struct:
    try:
        return _DECODERS[name].decode(value)
    except msgspec.ValidationError as error:
        raise _contract_error(_exact(str(error), name, value)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractError("$", f"not JSON: {error}") from None
    except RecursionError:
        raise ContractError("$", "nested too deeply") from None


def _exact(message: str, name: str, value: bytes) -> str:
    """The message with the index or key in its path that msgspec writes as ``[...]``."""
    match = _PATH.search(message)
    if match is None or "[...]" not in match[2]:
        return message
    head = match[2].split("[...]")[0]
    data = container = msgspec.json.decode(value)
    for part in head.split(".")[1:]:
        container = container[part]
    entries = list(container.items() if isinstance(container, dict) else enumerate(container))
    for key, entry in entries:
        container.clear()
        if isinstance(container, dict):
            container[key] = entry
        else:
            container.append(entry)
        try:
            msgspec.convert(data, CONTRACTS[name])
        except msgspec.ValidationError as error:
            if str(error) == message:
                # As JSON, so that a quote in a key ends nothing; a backtick would end the path.
                place = msgspec.json.encode(key).decode().replace("`", "\\u0060")
                return message.replace(f"{head}[...]", f"{head}[{place}]")
    return message


def _contract_error(message: str) -> ContractError:
    """The error with its path taken out, and the field that is missing put into the path."""
    match = _PATH.search(message)
    path = match[2] if match else "$"
    reason = message[: match.start()] if match else message
    if match and match[1]:
        reason = f"key: {reason}"
    missing = re.fullmatch(r"Object missing required field `(.+)`", reason)
    if missing:
        return ContractError(f"{path}.{missing[1]}", "expected a value, got nothing")
    return ContractError(path, reason[:1].lower() + reason[1:])


def _check_attributes(event: msgspec.Struct, headers: Headers) -> None:
    found = dict(headers)
    texts: dict[str, str] = {}
    for name in _ATTRIBUTES:
        raw = found.get(name)
        try:
            texts[name] = (raw or b"").decode()
        except UnicodeDecodeError:
            raise ContractError(f"$.headers.{name}", "expected UTF-8 text, got other bytes") from None
        if not texts[name]:
            raise ContractError(f"$.headers.{name}", "expected a value, got nothing")
    expected = {"ce_specversion": "1.0", "ce_type": CLOUD_EVENT_TYPES[type(event)]}
    if isinstance(event, DriftEvent):
        expected["ce_id"] = event.id
    for name, text in expected.items():
        if texts[name] != text:
            raise ContractError(f"$.headers.{name}", f'expected "{text}", got "{texts[name][:80]}"')
    if not _RFC3339.match(texts["ce_time"]):
        raise ContractError("$.headers.ce_time", f'expected an RFC 3339 time, got "{texts["ce_time"][:80]}"')


def as_json(event: msgspec.Struct) -> Any:
    """The event as plain values, exactly as they are on the wire."""
    return msgspec.json.decode(encode_event(event))
