"""`driftline publish FILE`: the rows of a file as a model service would have sent them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.columns import ColumnOptions, FileMessages, column_options, open_file
from driftline.cli.errors import Failure, Refusal
from driftline.cli.output import Progress, note, output_option, write_json
from driftline.cli.times import iso, parse_time_ms

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from driftline.schemas.config import Config, Kafka
    from driftline.streams.source_rows import Message


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("-c", "--config", "config_path", type=click.Path(dir_okay=False), help="Take topics, broker and field mapping from it.")
@click.option("-b", "--bootstrap", help="Broker address.  [default: the configuration's, else localhost:9092]")
@click.option("--topic", help="Topic of predictions.  [default: the configuration's first]")
@click.option("--labels-topic", help="Topic of labels.  [default: the configuration's first]")
@column_options
@click.option("--rate", type=float, metavar="N", help="Rows a second.  [default: as fast as the broker takes them]")
@click.option("--speed", type=float, metavar="X", help="By event time, X times as fast as it happened.")
@click.option("--allow-expiry", is_flag=True, help="Send even where the topic's retention will delete old rows.")
@click.option("--print", "show", is_flag=True, help="Print the messages as JSON lines and send nothing.")
@output_option
def command(
    file: str,
    columns: ColumnOptions,
    config_path: str | None,
    bootstrap: str | None,
    topic: str | None,
    labels_topic: str | None,
    rate: float | None,
    speed: float | None,
    allow_expiry: bool,
    show: bool,
    output: str,
) -> None:
    """Send the rows of a CSV, .csv.gz or Parquet file as predictions, and their labels when they are due.

    Records carry the event time as their timestamp, and labels stand between the predictions in the order of time:
    what `run` makes of the topics is what `replay` prints for the file.

    \b
    driftline publish bookings.csv.gz -c hotels.yml --time booked_at --label y --label-time label_at \\
        --score-from logistic:y:20000 --drop country,assigned_room_type
    """  # noqa: D301
    config = _config(config_path)
    kafka = _kafka(config, bootstrap)
    now_ms = int(time.time() * 1_000)
    start_ms = parse_time_ms(columns.start, option="--row-start", now_ms=now_ms) if columns.start else now_ms
    source = open_file(file, columns, config, start_ms=start_ms)
    topics = _topics(config, topic, labels_topic, with_labels=columns.label is not None)
    if show:
        _print(source, topics)
        return
    pace = _Pace(rate, speed)
    counts = _send(source, kafka, topics, pace, check=not allow_expiry, file=file)
    if output == "json":
        write_json(counts)
    else:
        click.echo(", ".join(f"{value:,} {name}" for name, value in counts.items() if name in ("predictions", "labels")) + " sent")
    if counts["bad_times"]:
        note(f"warning: {counts['bad_times']:,} rows have no usable time; they were sent with the time of the row before")


def _config(path: str | None) -> Config | None:
    if path is None:
        return None
    from driftline.schemas.loading import load_config

    return load_config(path)


def _kafka(config: Config | None, bootstrap: str | None) -> Kafka:
    from driftline.schemas.config import Kafka

    kafka = config.kafka if config is not None else Kafka()
    return kafka.model_copy(update={"bootstrap": bootstrap}) if bootstrap else kafka


def _topics(config: Config | None, topic: str | None, labels_topic: str | None, *, with_labels: bool) -> dict[str, str]:
    """Side of a message to its topic."""
    predictions = topic or (config.predictions[0].topic if config is not None else None)
    labels = labels_topic or (config.labels[0].topic if config is not None and config.labels else None)
    if predictions is None:
        raise Refusal("--topic is needed", hint="or -c CONFIG")
    if with_labels and labels is None:
        raise Refusal("--labels-topic is needed for --label", hint="or `labels: [{topic: ...}]` in the configuration")
    return {"prediction": predictions, "label": labels or ""}


def _print(source: FileMessages, topics: dict[str, str]) -> None:
    """One object a line: topic, key, time_ms, value."""
    import orjson

    for batch in source:
        for message in batch:
            value = orjson.Fragment(message.value)
            write_json({"topic": topics[message.side], "key": message.key.decode(), "time_ms": message.time_ms, "value": value})


class _Pace:
    """Waits so that rows leave at a rate, or as their times ask."""

    def __init__(self, rate: float | None, speed: float | None) -> None:
        if rate is not None and speed is not None:
            raise Refusal("--rate and --speed: expected one of them")
        for name, value in (("--rate", rate), ("--speed", speed)):
            if value is not None and not value > 0:
                raise Refusal(f"{name}: expected a number above 0, got {value}")
        self._rate = rate
        self._speed = speed
        self._begun = time.monotonic()
        self._first_ms: int | None = None
        self._rows = 0

    def due(self, message: Message) -> float:
        """When this message is due, by the monotonic clock; to be asked once a message, in their order."""
        if self._first_ms is None:
            self._first_ms = message.time_ms
            self._begun = time.monotonic()
        seconds = 0.0
        if self._rate is not None and message.side == "prediction":
            seconds = self._rows / self._rate
            self._rows += 1
        elif self._speed is not None:
            seconds = (message.time_ms - self._first_ms) / 1_000 / self._speed
        return self._begun + seconds


class _Delivery:
    """Counts what the broker refused and keeps the first reason."""

    def __init__(self) -> None:
        self.failed = 0
        self.reason: Any = None

    def __call__(self, error: Any, _message: Any) -> None:
        if error is not None:
            self.failed += 1
            self.reason = self.reason or error


def _send(source: FileMessages, kafka: Kafka, topics: dict[str, str], pace: _Pace, *, check: bool, file: str) -> dict[str, int]:
    from confluent_kafka import Producer

    from driftline.cli.kafka import admin, quiet
    from driftline.streams.kafka import producer_properties

    client = admin(kafka)
    producer = Producer(quiet(producer_properties(kafka)))
    delivery = _Delivery()
    _check_existence(client, kafka, topics, source)
    checked = not check
    try:
        with Progress(f"publish {file}", source.total()) as progress:
            for batch in source:
                if not checked and batch:
                    _check_retention(client, topics, source, batch)
                    checked = True
                _send_batch(producer, batch, topics, pace, delivery)
                progress.advance(sum(message.side == "prediction" for message in batch))
                if delivery.failed:
                    break
    finally:
        left = producer.flush(30)
    if delivery.failed or left:
        reason = delivery.reason.str() if delivery.reason is not None else "no answer from the broker within 30 s"
        raise Failure(f"kafka: {delivery.failed + left:,} messages were not delivered: {reason}")
    counts = source.messages.counts
    return {"predictions": counts.predictions, "labels": counts.labels, "bad_times": counts.bad_times}


def _send_batch(producer: Any, batch: list[Message], topics: dict[str, str], pace: _Pace, delivery: _Delivery) -> None:
    for message in batch:
        if delivery.failed:  # at a slow pace a batch lasts for hours
            return
        due = pace.due(message)
        while (seconds := due - time.monotonic()) > 0:
            producer.poll(min(seconds, 0.1))
        while True:
            try:
                producer.produce(
                    topics[message.side],
                    message.value,
                    message.key,
                    timestamp=max(message.time_ms, 0),
                    headers=list(message.headers) or None,
                    on_delivery=delivery,
                )
                break
            except BufferError:  # the client's queue is full: the broker sets the pace
                producer.poll(0.1)
    producer.poll(0)


def _needed(topics: dict[str, str], source: FileMessages) -> list[str]:
    """The topics that the file's messages go to."""
    sides = ["prediction", "label"] if source.messages.mapping.label is not None else ["prediction"]
    return list(dict.fromkeys(topics[side] for side in sides))


def _check_existence(client: AdminClient, kafka: Kafka, topics: dict[str, str], source: FileMessages) -> None:
    """Refuse a missing topic before the first row: the client would retry it for half a minute and blame the broker."""
    from driftline.cli.kafka import no_topic, partition_counts

    needed = _needed(topics, source)
    existing = partition_counts(client, needed)
    for topic in needed:
        if topic not in existing:
            raise no_topic(topic, existing, kafka)


def _check_retention(client: AdminClient, topics: dict[str, str], source: FileMessages, first: list[Message]) -> None:
    """Refuse topics that would stamp or delete these rows: history must be there when it is read.

    Retention counts from the newest record of a segment to now, so the file's first row decides.
    """
    from driftline.streams.retention import topic_settings

    oldest_ms = min(message.time_ms for message in first)
    age_ms = int(time.time() * 1_000) - oldest_ms
    for topic in _needed(topics, source):
        settings = topic_settings(client, topic)
        alter = f"kafka-configs.sh --bootstrap-server ... --entity-type topics --entity-name {topic} --alter --add-config"
        if not settings.create_time:
            raise Refusal(
                f'topic "{topic}" stamps records with the broker\'s time; the file\'s times would be lost',
                hint=f"{alter} message.timestamp.type=CreateTime",
            )
        if 0 <= settings.retention_ms < age_ms:
            raise Refusal(
                f'topic "{topic}" keeps {_days(settings.retention_ms)}; the file begins {_days(age_ms)} ago ({iso(oldest_ms)}) '
                "and its first rows would be deleted before they are read",
                hint=f"{alter} retention.ms=-1; or --allow-expiry",
            )


def _days(ms: int) -> str:
    return f"{ms / 86_400_000:,.1f} days"
