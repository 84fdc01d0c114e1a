"""`driftline picture CONFIG`: one self-contained page of what the topics say, or an SVG for a document."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.errors import Refusal
from driftline.cli.times import parse_time_ms

if TYPE_CHECKING:
    from driftline.schemas.config import Config

# How long a silent topic is waited for: what is there comes at once, and a picture is of what is there.
_IDLE_SECONDS = 2.0


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--model", metavar="NAME", help="Of several models.  [default: the only one]")
@click.option("--from", "begin", default="earliest", show_default=True, metavar="TIME", help="earliest, -24h or an ISO time.")
@click.option("--title", metavar="TEXT", help="[default: environment and model]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("driftline.html"), show_default=True,
              help="A name that ends in .svg gets the drawing alone.")  # fmt: skip
def command(config_path: str, model: str | None, begin: str, title: str | None, out: Path) -> None:
    """Draw score, error, detector statistics and drift events on a time axis, from the output topics alone."""
    import time

    from driftline.schemas.loading import load_config
    from driftline.schemas.topics import DRIFT, SNAPSHOTS
    from driftline.streams.picture import render_html, render_svg

    config = load_config(config_path)
    name = _model(config, model)
    from_ms = parse_time_ms(begin, option="--from", now_ms=int(time.time() * 1_000))
    snapshots, events = (_records(config, topic.full_name(config.topics.prefix), name, from_ms) for topic in (SNAPSHOTS, DRIFT))
    events.sort(key=lambda event: event["time_ms"])
    render = render_svg if out.suffix == ".svg" else render_html
    out.write_text(render(title or f"{config.environment}: {name}", snapshots, events), encoding="utf-8")
    click.echo(f"{out}: {len(events):,} drift events, {len(snapshots):,} snapshots", err=True)


def _model(config: Config, model: str | None) -> str:
    names = list(config.models)
    if model is None and len(names) == 1:
        return names[0]
    if model not in names:
        raise Refusal(f"--model: expected one of {', '.join(names)}, got {model or 'none'}")
    return model


def _records(config: Config, topic: str, model: str, from_ms: int | None) -> list[dict[str, Any]]:
    import orjson

    from driftline.cli.kafka import read_topic

    found = []
    for message in read_topic(config.kafka, topic, from_ms=from_ms, until_idle=_IDLE_SECONDS):
        value = message.value()
        record = orjson.loads(value) if value else {}
        if record.get("model") == model:
            found.append(record)
    return found
