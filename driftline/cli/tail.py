"""`driftline tail drift|alerts|incidents|transitions|snapshots|dlq CONFIG`: the events of a topic as they come."""

from __future__ import annotations

import time
from typing import Any

import click

from driftline.cli.events import TABLES, EventPrinter, dead_letter_line
from driftline.cli.output import output_option
from driftline.cli.times import parse_time_ms


@click.command()
@click.argument("what", type=click.Choice(list(TABLES)))
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--from", "begin", default="now", show_default=True, metavar="TIME", help="earliest, now, -24h or an ISO time.")
@click.option("--until-idle", type=float, metavar="S", help="Stop when nothing came for S seconds.  [default: never]")
@click.option("-n", "count", type=click.IntRange(min=1), metavar="N", help="Stop after N events.")
@output_option
def command(what: str, config_path: str, begin: str, until_idle: float | None, count: int | None, output: str) -> None:
    """Print drift events, alerts, incidents, transitions, snapshots or dead letters; json is the very bytes of the topic.

    Only committed events are shown. Of a dead letter (dlq) json is an object: where its record stood, why it was refused, and the record.
    """
    from driftline.cli.kafka import read_topic
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    now_ms = int(time.time() * 1_000)
    start_ms = parse_time_ms(begin, option="--from", now_ms=now_ms)
    from_ms: int | None = None if begin == "now" else start_ms
    printer = EventPrinter(what, output, live=True)
    topic = f"{config.topics.prefix}.{TABLES[what].topic}"
    for message in read_topic(config.kafka, topic, from_ms=from_ms, until_idle=until_idle):
        value: Any = dead_letter_line(message) if what == "dlq" else message.value()
        if value is None:
            continue
        printer.add(value)
        count = None if count is None else count - 1
        if count == 0:
            break
    printer.finish()
