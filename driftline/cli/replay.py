"""`driftline replay`: what the processors make of a file, or of the observations topic, without publishing anything."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.columns import REPLAY_START_MS, ColumnOptions, column_options, open_file
from driftline.cli.errors import Refusal
from driftline.cli.events import TABLES, EventPrinter
from driftline.cli.output import Progress, config_option, note, output_option
from driftline.cli.times import parse_time_ms

if TYPE_CHECKING:
    from driftline.schemas.config import Config
    from driftline.streams.counters import MemoryCounters
    from driftline.streams.source_rows import Message
    from driftline.streams.task import MemoryRecord, Output

_JSONL_BATCH = 10_000


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@config_option
@click.option("--topic", "from_topic", is_flag=True, help="Read the observations topic instead of a file, and run detect alone.")
@click.option("--from", "begin", default="earliest", show_default=True, metavar="TIME", help="Where to begin, with --topic.")
@click.option("--what", type=click.Choice(list(TABLES)), default="drift", show_default=True, help="What to print.")
@click.option("--at-end", type=click.Choice(["mature", "wait"]), default="mature", show_default=True, help="Predictions not yet of age.")
@column_options
@output_option
def command(
    file: str | None, config_path: str, columns: ColumnOptions, from_topic: bool, begin: str, what: str, at_end: str, output: str
) -> None:
    """Run the processors over a file and print what they would publish. No Kafka, no Redis.

    FILE is CSV, .csv.gz or Parquet with the column options of `publish`, or .jsonl(.gz) of raw messages as
    `publish --print` writes them. With one partition a topic, `run --until-idle` publishes the same events.

    \b
    driftline replay bookings.csv.gz -c hotels.yml --time booked_at --label y --label-time label_at \
        --score-from logistic:y:20000
    driftline replay --topic -c hotels.yml -o json
    """  # noqa: D301
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    if (file is not None) == from_topic:
        raise Refusal("expected a FILE or --topic, not both" if from_topic else "expected a FILE, or --topic")
    printer = EventPrinter(what, output)
    if file is None:
        _replay_topic(config, begin, what, printer)
    else:
        _replay_file(config, file, columns, what, printer, mature=at_end == "mature")
    printer.finish()
    if printer.count == 0:
        note(f"no {what if what != 'drift' else 'drift events'}")


def _replay_file(config: Config, file: str, columns: ColumnOptions, what: str, printer: EventPrinter, *, mature: bool) -> None:
    from driftline.streams.counters import MemoryCounters
    from driftline.streams.replay import Replay, file_cluster
    from driftline.streams.wiring import make_detect, make_ingest, make_joins

    cluster = file_cluster(config)
    counters = MemoryCounters()
    processors = [make_ingest(config, cluster, counters), *make_joins(config, cluster, counters), make_detect(config, cluster)]
    replay = Replay(processors, cluster, _sink(config, what, printer))
    total, batches = record_batches(config, file, columns)
    begun, rows = time.monotonic(), 0
    with Progress(f"replay {file}", total) as progress:
        for records in batches:
            replay.feed(records)
            rows += len(records)
            progress.advance(sum(record.topic_ == config.predictions[0].topic for record in records))
        replay.finish(mature=mature)
    report_input(counters, rows, time.monotonic() - begun)


def _sink(config: Config, what: str, printer: EventPrinter) -> Any:
    """Prints what was asked for as it is published; drift events go through the alert pipeline when that is asked for."""
    from driftline.schemas.topics import DRIFT
    from driftline.streams.replay import AlertReplay, file_cluster

    wanted = f"{config.topics.prefix}.{TABLES[what].topic}"

    def show(output: Output) -> None:
        if output.topic == wanted and output.value is not None:
            printer.add(output.value)

    if what != "alerts":
        return show
    alerts = AlertReplay(config, file_cluster(config), show)
    drift = DRIFT.full_name(config.topics.prefix)

    def decide(output: Output) -> None:
        if output.topic == drift:
            alerts.add(output)

    return decide


def report_input(counters: MemoryCounters, rows: int, seconds: float) -> None:
    """What became of the input, on stderr: a replay in which every row was refused must not look like a quiet one."""
    parts = [f"{rows:,} messages in {seconds:.1f} s"]
    for outcome in ("invalid", "unknown_model"):
        count = counters.value("records", outcome=outcome)
        if count:
            parts.append(f"{count:,} {outcome.replace('_', ' ')}")
    joined = {key: counters.value("label_join", case=key) for key in ("joined", "implicit", "unlabelled", "late", "orphan", "duplicate")}
    parts += [f"{count:,} {case}" for case, count in joined.items() if count]
    note(", ".join(parts))


def record_batches(config: Config, file: str, columns: ColumnOptions) -> tuple[int | None, Iterator[list[MemoryRecord]]]:
    """The number of rows, where it is known, and the records of the source topics in time order."""
    if file.endswith((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")):
        return None, _from_lines(config, file)
    start_ms = REPLAY_START_MS
    if columns.start:
        start_ms = parse_time_ms(columns.start, option="--row-start", now_ms=int(time.time() * 1_000))
    source = open_file(file, columns, config, start_ms=start_ms)
    if columns.label is not None and not config.labels:
        raise Refusal("--label: the configuration has no labels topic", hint="add `labels: [{topic: ...}]`, or leave --label out")
    return source.total(), _from_messages(config, iter(source))


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


def _replay_topic(config: Config, begin: str, what: str, printer: EventPrinter) -> None:
    """Detect alone over what ingest and join published; from the middle of the log its state begins there too."""
    from itertools import islice

    from driftline.cli.kafka import admin, read_topic
    from driftline.schemas.topics import OBSERVATIONS
    from driftline.streams.kafka import read_cluster
    from driftline.streams.replay import Replay
    from driftline.streams.wiring import make_detect, topics_of

    from_ms = parse_time_ms(begin, option="--from", now_ms=int(time.time() * 1_000))
    config = read_from(config, from_ms)
    cluster = read_cluster(admin(config.kafka), topics_of("detect", config))
    replay = Replay([make_detect(config, cluster)], cluster, _sink(config, what, printer))
    topic = OBSERVATIONS.full_name(config.topics.prefix)
    messages: Iterator[Any] = read_topic(config.kafka, topic, from_ms=from_ms)
    while batch := list(islice(messages, 500)):
        replay.feed(batch)
    replay.finish(mature=False)


def read_from(config: Config, from_ms: int) -> Config:
    """The configuration for reading the observations topic from a time on: in the middle of it, a gap in the numbers is no loss."""
    if not from_ms:
        return config
    note("reading begins inside the log: windows and baselines are learned from there on")
    return config.model_copy(update={"kafka": config.kafka.model_copy(update={"guarantee": "at_least_once"})})
