"""`driftline topics create`: our topics from the topic table, or their list and ACLs for a platform team."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from driftline.cli.output import output_option, write_rows

if TYPE_CHECKING:
    from driftline.schemas.config import Config
    from driftline.streams.topic_creation import WantedTopic


@click.group()
def command() -> None:
    """Driftline's topics."""


@command.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--partitions", type=click.IntRange(1, 10_000), help="Of observations, waiting and labels.  [default: the configuration's]")
@click.option("--sources", is_flag=True, help="Also the topics of predictions and labels, one partition each, kept for ever: for a trial.")
@click.option("--print", "show", is_flag=True, help="Print topics and ACLs; create nothing.")
@output_option
def create(config_path: str, partitions: int | None, sources: bool, show: bool, output: str) -> None:
    """Create the topics of Driftline that are not there yet; existing ones are left as they are."""
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    wanted = wanted_topics(config, partitions=partitions, sources=sources)
    if show:
        from driftline.cli.rights import acls, redis_acl

        rows = [_row(topic) for topic in wanted]
        write_rows(rows, ["topic", "partitions", "replication", "settings"], output)
        if output == "table":
            click.echo()
        write_rows(acls(config), ["who", "resource", "name", "pattern", "operations"], output)
        if output == "table":
            click.echo(f"\nRedis: {redis_acl(config)}")
        return
    rows = _create(config, wanted)
    write_rows(rows, ["topic", "partitions", "state"], output)


def wanted_topics(config: Config, *, partitions: int | None = None, sources: bool = False) -> list[WantedTopic]:
    """Our topics as the table has them and, for a trial, the sources."""
    from driftline.streams.topic_creation import WantedTopic
    from driftline.streams.topic_creation import wanted_topics as ours
    from driftline.streams.wiring import sources_of

    topics = config.topics.model_copy(update={"partitions": partitions}) if partitions else config.topics
    out = ours(topics, greatest_age_ms=config.greatest_age_ms)
    if sources:
        settings = {"cleanup.policy": "delete", "retention.ms": "-1", "message.timestamp.type": "CreateTime"}
        out += [WantedTopic(name, 1, topics.replication, settings) for name in sources_of(config)]
    return out


def _row(topic: WantedTopic, state: str = "") -> dict[str, Any]:
    settings = " ".join(f"{key}={value}" for key, value in topic.properties.items())
    return {"topic": topic.name, "partitions": topic.partitions, "replication": topic.replication, "settings": settings, "state": state}


def _create(config: Config, wanted: list[WantedTopic]) -> list[dict[str, Any]]:
    from driftline.cli.kafka import admin
    from driftline.streams.topic_creation import create_topics

    created = set(create_topics(admin(config.kafka), wanted))
    return [_row(topic, "created" if topic.name in created else "exists") for topic in wanted]
