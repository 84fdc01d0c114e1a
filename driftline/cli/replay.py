"""`driftline replay`: what the processors make of a file, or of the observations topic, without publishing anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.columns import ColumnOptions, column_options
from driftline.cli.errors import Refusal
from driftline.cli.events import EVENTS, TABLES, EventPrinter
from driftline.cli.output import config_option, note, output_option
from driftline.cli.records import feed_file
from driftline.cli.times import parse_time_ms

if TYPE_CHECKING:
    from driftline.schemas.config import Config
    from driftline.streams.task import Output

_JSONL_BATCH = 10_000


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@config_option
@click.option("--topic", "from_topic", is_flag=True, help="Read the observations topic instead of a file, and run detect alone.")
@click.option("--from", "begin", default="earliest", show_default=True, metavar="TIME", help="Where to begin, with --topic.")
@click.option("--what", type=click.Choice(EVENTS), default="drift", show_default=True, help="What to print.")
@click.option("--at-end", type=click.Choice(["mature", "wait"]), default="mature", show_default=True, help="Predictions not yet of age.")
@column_options
@output_option
def command(
    file: str | None, config_path: str, columns: ColumnOptions, from_topic: bool, begin: str, what: str, at_end: str, output: str
) -> None:
    """Run the processors over a file and print what they would publish. No Kafka, no Redis.

    FILE is CSV, .csv.gz or Parquet with the column options of `publish`, or .jsonl(.gz) of raw messages as
    `publish --print` writes them. With one partition a topic, `run --until-idle` publishes the same events; those about predictions
    and those about outcomes each in the same order, among each other in any.

    \b
    driftline replay bookings.csv.gz -c hotels.yml --time booked_at --label y --label-time label_at \\
        --score-from logistic:y:20000
    driftline replay --topic -c hotels.yml -o json
    """  # noqa: D301
    from driftline.cli.logs import warnings_on_stderr
    from driftline.detectors.kernels.compiling import compiling_told
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    if (file is not None) == from_topic:
        raise Refusal("expected a FILE or --topic, not both" if from_topic else "expected a FILE, or --topic")
    printer = EventPrinter(what, output)
    with warnings_on_stderr(), compiling_told(note):
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
    from driftline.streams.wiring import make_detect, make_ingest, make_joins, passed_over

    cluster = file_cluster(config)
    counters = MemoryCounters()
    processors = [make_ingest(config, cluster, counters), *make_joins(config, cluster, counters), make_detect(config, cluster, counters)]
    replay = Replay(processors, cluster, _sink(config, what, printer))
    feed_file(config, file, columns, replay.feed, lambda: replay.finish(mature=mature), counters=counters, what="replay")
    if (words := passed_over(processors[0])) is not None:
        note(words)
    for name in counters.unset("subjects_monitored", "model"):
        learn = config.models[name].baseline.learn
        note(f"nothing of model {name} was watched: its first {learn:,} rows are what it learns from (baseline.learn), and no more came")


def _sink(config: Config, what: str, printer: EventPrinter) -> Any:
    """Prints what was asked for as it is published; drift events go through the alert pipeline when that is asked for."""
    from driftline.schemas.topics import DRIFT
    from driftline.streams.replay import AlertReplay, file_cluster

    wanted = f"{config.topics.prefix}.{TABLES[what].topic}"

    def show(output: Output) -> None:
        if output.topic == wanted and output.value is not None:
            printer.add(output.value)

    if what not in ("alerts", "incidents"):
        return show
    alerts = AlertReplay(config, file_cluster(config), show)
    drift = DRIFT.full_name(config.topics.prefix)

    def decide(output: Output) -> None:
        if output.topic == drift:
            alerts.add(output)

    return decide


def _replay_topic(config: Config, begin: str, what: str, printer: EventPrinter) -> None:
    """Detect alone over what ingest and join published; from the middle of the log its state begins there too."""
    from itertools import islice

    from driftline.cli.kafka import admin, read_from, read_topic
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
