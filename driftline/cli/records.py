"""Rows of a file as the records that the configured topics would hold: what `replay`, `backtest` and `baseline build` read."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from driftline.cli.columns import REPLAY_START_MS, ColumnOptions, open_file
from driftline.cli.errors import Refusal
from driftline.cli.output import Progress, note
from driftline.cli.times import parse_time_ms

if TYPE_CHECKING:
    from driftline.schemas.config import Config
    from driftline.streams.counters import MemoryCounters
    from driftline.streams.source_rows import Message
    from driftline.streams.task import MemoryRecord

_Made = TypeVar("_Made")
_JSONL_BATCH: Final = 10_000


def feed_file(
    config: Config, file: str, columns: ColumnOptions, feed: Callable[[list[MemoryRecord]], object], finish: Callable[[], _Made], *,
    counters: MemoryCounters, what: str,
) -> _Made:  # fmt: skip
    """Hand all records of a file to `feed` and say on stderr what `counters` know became of them; what `finish` makes of them."""
    total, batches = record_batches(config, file, columns)
    begun, rows = time.monotonic(), 0
    with Progress(f"{what} {file}", total) as progress:
        for records in batches:
            feed(records)
            rows += len(records)
            progress.advance(sum(record.topic_ == config.predictions[0].topic for record in records))
        made = finish()
    _report_input(counters, rows, time.monotonic() - begun)
    return made


def record_batches(config: Config, file: str, columns: ColumnOptions) -> tuple[int | None, Iterator[list[MemoryRecord]]]:
    """The number of rows, where it is known, and the records of the source topics in time order."""
    from driftline.streams.source_file import is_messages

    if is_messages(file):
        return None, _from_lines(config, file)
    start_ms = REPLAY_START_MS
    if columns.start:
        start_ms = parse_time_ms(columns.start, option="--row-start", now_ms=int(time.time() * 1_000))
    source = open_file(file, columns, config, start_ms=start_ms)
    if columns.label is not None and not config.labels:
        raise Refusal("--label: the configuration has no labels topic", hint="add `labels: [{topic: ...}]`, or leave --label out")
    return source.total(), _from_messages(config, iter(source))


def _report_input(counters: MemoryCounters, rows: int, seconds: float) -> None:
    """What became of the input, on stderr: a run in which every row was refused must not look like a quiet one."""
    parts = [f"{rows:,} messages in {seconds:.1f} s"]
    for outcome in ("invalid", "unknown_model"):
        count = counters.value("records", outcome=outcome)
        if count:
            parts.append(f"{count:,} {outcome.replace('_', ' ')}")
    joined = {key: counters.value("label_join", case=key) for key in ("joined", "implicit", "unlabelled", "late", "orphan", "duplicate")}
    parts += [f"{count:,} {case}" for case, count in joined.items() if count]
    note(", ".join(parts))


def _from_messages(config: Config, batches: Iterator[list[Message]]) -> Iterator[list[MemoryRecord]]:
    from driftline.streams.task import MemoryRecord

    topics = {"prediction": config.predictions[0].topic, "label": config.labels[0].topic if config.labels else ""}
    offsets = {"prediction": 0, "label": 0}
    for batch in batches:
        records: list[MemoryRecord] = []
        for side, _, key, value, time_ms, headers in batch:
            records.append(MemoryRecord(topics[side], 0, offsets[side], key, value, max(time_ms, 0), headers))
            offsets[side] += 1
        yield records


def _from_lines(config: Config, file: str) -> Iterator[list[MemoryRecord]]:
    """Raw messages: ``{"topic": ..., "key": ..., "time_ms": ..., "value": ..., "headers": {...}}`` a line."""
    known = {source.topic for source in config.predictions} | {source.topic for source in config.labels}
    offsets = dict.fromkeys(known, 0)
    batch: list[MemoryRecord] = []
    for number, line in _lines(file):
        if not line.strip():
            continue
        batch.append(_record(line, f"{file}:{number}", offsets))
        if len(batch) >= _JSONL_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _lines(file: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, from 1."""
    opener: Any = gzip.open if file.endswith(".gz") else open
    number = 0
    with opener(file, "rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                yield number, line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Refusal(f'"{file}", after line {number}: {error}') from error


def _record(line: bytes, place: str, offsets: dict[str, int]) -> MemoryRecord:
    import orjson

    from driftline.streams.task import MemoryRecord

    try:
        item = orjson.loads(line)
        topic, value, time_ms = item["topic"], item.get("value"), int(item["time_ms"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refusal(f'{place}: expected {{"topic": ..., "time_ms": ..., "value": ...}}: {error}') from error
    if topic not in offsets:
        raise Refusal(f'{place}: topic "{topic}" is not in the configuration, which has {", ".join(sorted(offsets))}')
    body = None if value is None else value.encode() if isinstance(value, str) else orjson.dumps(value)
    key = item.get("key")
    headers = tuple((str(name), str(text).encode()) for name, text in (item.get("headers") or {}).items())
    offset = offsets[topic]
    offsets[topic] += 1
    return MemoryRecord(topic, 0, offset, None if key is None else str(key).encode(), body, time_ms, headers)
