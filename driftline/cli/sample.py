"""A sample of a file or a topic as columns of values, for `init` to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from driftline.cli.errors import Failure, Refusal

if TYPE_CHECKING:
    from driftline.schemas.config import Kafka


@dataclass(frozen=True, slots=True)
class Sample:
    """Column name (for events: dotted path, ``key`` or ``header:NAME``) to its values, None where there is none."""

    source: str
    rows: int
    columns: dict[str, list[Any]]
    unreadable: int = 0


def sample_file(path: str, rows: int) -> Sample:
    """The first rows of a CSV or Parquet file."""
    from driftline.streams.source_file import read_batches

    columns: dict[str, list[Any]] = {}
    n = 0
    for batch in read_batches(path, rows=rows):
        for name, column in batch.columns.items():
            columns.setdefault(name, []).extend(column.to_pylist())
        n += batch.rows
    if n == 0:
        raise Refusal(f'"{path}" has no rows')
    return Sample(path, n, columns)


def sample_topic(kafka: Kafka, topic: str, rows: int) -> Sample:
    """Up to `rows` JSON events from the beginning of a topic.

    Raises
    ------
    Failure : the topic has no JSON objects.
    """
    from itertools import islice

    from driftline.cli.kafka import read_topic

    events: list[dict[str, Any]] = []
    unreadable = 0
    for message in islice(read_topic(kafka, topic, from_ms=0), rows):
        event = _event(message.value())
        if event is None:
            unreadable += 1
            continue
        flat = dict(flatten(event))
        if (key := message.key()) is not None:
            flat["key"] = key.decode("utf-8", "replace")
        for name, content in list(message.headers() or []):
            flat["header:" + str(name)] = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
        events.append(flat)
    if not events:
        found = f"{unreadable:,} records, none of them a JSON object" if unreadable else "no records"
        raise Failure(f'topic "{topic}" has {found}', hint="init needs some events to look at; write them first, or use --from-file")
    return Sample(topic, len(events), as_columns(events), unreadable)


def flatten(event: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted paths of the values of nested objects; lists stay whole."""
    for name, value in event.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def as_columns(events: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns in order of first appearance."""
    names: dict[str, None] = {}
    for event in events:
        names.update(dict.fromkeys(event))
    return {name: [event.get(name) for event in events] for name in names}


def _event(value: Any) -> dict[str, Any] | None:
    import orjson

    try:
        event = orjson.loads(value) if value else None
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None
