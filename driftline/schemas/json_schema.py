"""JSON Schema (Draft 2020-12) of the messages and of the configuration file, made from the types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from driftline.schemas import dead_letter
from driftline.schemas.config import Config, FeatureKind
from driftline.schemas.descriptions import FIELDS
from driftline.schemas.detector_checks import DETECTOR_PARAMS
from driftline.schemas.events import CLOUD_EVENT_TYPES, Alert, DriftEvent, Incident, Label, Prediction, Snapshot, Transition

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
BASE_URL: Final = "https://driftline.dev/schemas/v1"

MESSAGES: Final[Mapping[str, type[msgspec.Struct]]] = {
    "prediction": Prediction,
    "label": Label,
    "drift_event": DriftEvent,
    "alert": Alert,
    "incident": Incident,
    "transition": Transition,
    "snapshot": Snapshot,
}

_RFC3339: Final = r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$"
_NAME: Final = {"type": "string", "minLength": 1}
_DEAD_LETTER_HEADERS: Final[Mapping[str, tuple[dict[str, Any], str]]] = {
    dead_letter.SOURCE_TOPIC: (_NAME, "topic of the source record"),
    dead_letter.SOURCE_PARTITION: ({"type": "string", "pattern": r"^[0-9]{1,19}$"}, "its partition"),
    dead_letter.SOURCE_OFFSET: ({"type": "string", "pattern": r"^[0-9]{1,19}$"}, "its offset"),
    dead_letter.SOURCE_TIMESTAMP: ({"type": "string", "pattern": r"^(-1|[0-9]{1,19})$"}, "its time, Unix milliseconds; -1 = none"),
    dead_letter.STAGE: (_NAME, "the processor that gave it up"),
    dead_letter.REASON: (_NAME, "why, in one word"),
    dead_letter.ERROR: ({"type": "string"}, "why, as a sentence"),
    dead_letter.SHA256: ({"type": "string", "pattern": "^[0-9a-f]{64}$"}, "digest of the whole source value"),
    dead_letter.TRUNCATED: ({"enum": ["true", "false"]}, "whether value, headers or key were cut to fit"),
}


def all_schemas() -> dict[str, dict[str, Any]]:
    """Name to schema, in the order of the files."""
    schemas = {name: message_schema(name, struct) for name, struct in MESSAGES.items()}
    return schemas | {"cloud_event": cloud_event_schema(), "dead_letter": dead_letter_schema(), "config": config_schema()}


def message_schema(name: str, struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Schema of a JSON message; fields we do not know are allowed, so that a newer writer does not break a reader."""
    _, components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    for component in components.values():
        for field, schema in component.get("properties", {}).items():
            schema["description"] = FIELDS[field]
    top = components.pop(struct.__name__)
    comment = CLOUD_EVENT_TYPES.get(struct)
    return (
        _head(name, struct.__name__, top.pop("description"))
        | ({"$comment": f"CloudEvents type {comment}, binary mode: attributes are ce_ headers"} if comment else {})
        | {key: value for key, value in top.items() if key != "title"}
        | ({"$defs": components} if components else {})
    )


def dead_letter_schema() -> dict[str, Any]:
    """Schema of a dead letter's headers, as an object of texts; its value is the source record's own bytes."""
    properties = {name: {**schema, "description": text} for name, (schema, text) in _DEAD_LETTER_HEADERS.items()}
    head = _head("dead_letter", "DeadLetter", "Headers of a dead letter; the value is the source record's own bytes.")
    return head | {"type": "object", "properties": properties, "required": list(properties)}


def cloud_event_schema() -> dict[str, Any]:
    """Schema of the headers of drift events, alerts, incidents and transitions, as an object of texts."""
    properties = {
        "ce_specversion": {"const": "1.0", "description": "version of CloudEvents"},
        "ce_id": {**_NAME, "description": "the same for the same event, however often it is sent"},
        "ce_source": {**_NAME, "description": "the installation"},
        "ce_type": {"enum": sorted(CLOUD_EVENT_TYPES.values()), "description": "which schema the value follows"},
        "ce_subject": {**_NAME, "description": "what the event is about"},
        "ce_time": {"type": "string", "pattern": _RFC3339, "description": "event time, RFC 3339"},
        "content-type": {"const": "application/json", "description": "of the value"},
    }
    head = _head("cloud_event", "CloudEventHeaders", "Headers of an event in CloudEvents' binary mode.")
    return head | {"type": "object", "properties": properties, "required": [name for name in properties if name != "content-type"]}


def config_schema() -> dict[str, Any]:
    """Schema of the configuration file for editors, with its short forms."""
    schema = Config.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    _short_forms(schema["properties"], definitions)
    for part in (schema, *definitions.values()):
        for field in part.get("properties", {}).values():
            field.pop("title", None)
    head = _head("config", "Driftline configuration", schema.pop("description"))
    schema.pop("title")
    return head | schema


def _head(name: str, title: str, description: str) -> dict[str, Any]:
    return {"$schema": DRAFT, "$id": f"{BASE_URL}/{name}.schema.json", "title": title, "description": description}


def _short_forms(top: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Allow what `shorthand.py` spells out."""
    text, empty = {"type": "string"}, {"type": "null"}
    for side in ("predictions", "labels"):
        source = top[side]["items"]
        top[side] = {"description": top[side]["description"]} | _one_of(text, source, _list(_one_of(text, source)))
    top["models"] = _named(top["models"], empty)
    model = definitions["Model"]["properties"]
    model["segments"] = _named(model["segments"], empty)
    features = next(one for one in model["features"]["anyOf"] if one["type"] == "object")
    features["additionalProperties"] = _one_of({"enum": list(get_args(FeatureKind))}, features["additionalProperties"])
    model["baseline"] = {"description": model["baseline"].pop("description", ""), **_one_of(text, model["baseline"])}
    labels = definitions["Labels"]["properties"]
    labels["ages"] = {"description": labels["ages"].pop("description"), **_one_of(labels["ages"]["items"], labels["ages"])}
    labels["absent"]["anyOf"].append({"type": "boolean"})
    monitor = definitions["Monitor"]["properties"]
    monitor["series"] = {"description": monitor["series"]["description"], **_one_of(text, monitor["series"])}
    detector = {
        "type": "object",
        "description": "{name: adwin, delta: 0.002} or {adwin: {delta: 0.002}}",
    }
    definitions["DetectorSpec"] = _one_of({"enum": sorted(DETECTOR_PARAMS)}, {"type": "string", "pattern": r"^river\."}, detector)
    monitor["detectors"] = {"description": monitor["detectors"].pop("description"), **_one_of(text, monitor["detectors"])}


def _named(schema: dict[str, Any], empty: dict[str, Any]) -> dict[str, Any]:
    """A mapping by name whose values may be left empty, a list of names, or one name."""
    values = _one_of(schema["additionalProperties"], empty)
    long = {key: value for key, value in schema.items() if key != "description"} | {"additionalProperties": values}
    described = {"description": schema["description"]} if "description" in schema else {}
    return described | _one_of(long, _list({"type": "string"}), {"type": "string"})


def _one_of(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}
