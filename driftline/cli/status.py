"""`driftline status CONFIG`: how far behind, how far with learning, what was refused, what fires."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.errors import EXIT_FIRING, Refusal
from driftline.cli.output import cell, output_option, write_json, write_rows
from driftline.cli.times import iso

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from driftline.schemas.config import Config
    from driftline.schemas.topics import Topic

_CALL_SECONDS = 10.0
_DEAD_LETTERS_READ = 2_000
"""Newest dead letters whose reasons are counted."""
_IDLE_SECONDS = 30
"""Without a record for so long a topic is idle."""
_RANK = {"info": 0, "warning": 1, "critical": 2}


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--exit-code", is_flag=True, help="Exit with 3 when an alert fires (of --severity or above).")
@click.option("--severity", type=click.Choice(list(_RANK)), default="warning", show_default=True, help="For --exit-code.")
@output_option
def command(config_path: str, exit_code: bool, severity: str, output: str) -> None:
    """Open incidents, lag of every consumer group, what each model has learned, suspended guarantees, dead letters, open alerts."""
    from driftline.cli.kafka import admin
    from driftline.cli.lags import group_lags
    from driftline.cli.unnamed import unnamed_models, unnamed_words
    from driftline.schemas.loading import load_config

    config = load_config(config_path)
    client = admin(config.kafka)
    sources = _sources(client, config)
    groups = group_lags(client, config)
    _explain(groups, sources, config)
    models = _models(config)
    refused, unnamed = _dead_letters(config), unnamed_models(config)
    incidents, alerts = _open_incidents(config), _open_alerts(config)
    if output == "json":
        told = {"incidents": incidents, "sources": sources, "groups": groups, "models": models, "dead_letters": refused, "alerts": alerts}
        write_json({**told, "unknown_models": unnamed})
    else:
        _show_incidents(incidents)
        _show(sources, groups, models, alerts)
        _show_refused(refused, config_path)
        for one in unnamed:
            click.echo(unnamed_words(one, config.unknown_models))
    loud = [alert for alert in alerts if _RANK[alert["severity"]] >= _RANK[severity] and not alert.get("historical")]
    if exit_code and loud:
        sys.exit(EXIT_FIRING)


def _show_incidents(incidents: list[dict[str, Any]]) -> None:
    """What somebody is to look at first."""
    shown = [{**one, "since": iso(one["starts_at_ms"]), "firing": f"{one['firing']} of {one['alerts']}"} for one in incidents]
    if shown:
        write_rows(shown, ["severity", "model", "since", "firing", "summary"], "table")
    else:
        click.echo("no incident is open")
    click.echo()


def _show(sources: list[dict[str, Any]], groups: list[dict[str, Any]], models: list[dict[str, Any]], alerts: list[dict[str, Any]]) -> None:
    rows = [{**source, "last record": iso(source["last_ms"]), "idle": _idle_words(source)} for source in sources]
    write_rows(rows, ["topic", "last record", "idle"], "table")
    click.echo()
    rows = [{**group, "next record": _next_words(group)} for group in groups]
    write_rows(rows, ["processor", "group", "state", "members", "lag", "next record", "note"], "table")
    click.echo()
    rows = [
        {**model, "progress": _progress(model), "event time": iso(model["time_ms"]), "suspended": len(model.get("suspended", ()))}
        for model in models
    ]
    write_rows(rows, ["model", "version", "panel", "progress", "suspended", "event time", "written"], "table")
    for model in models:
        for series in model.get("suspended", ()):
            click.echo(f"guarantee suspended: {model['model']} {series['series']}: {_suspension(series)}")
        if model.get("mismatched"):
            named = ", ".join(model["mismatched"])
            click.echo(f"baseline mismatch: {model['model']} {model['panel']}: {named}: watched for change, not against the file")
    click.echo()
    if not alerts:
        click.echo("no alert fires")
        return
    shown = [{**alert, "since": iso(alert["starts_at_ms"])} for alert in alerts]
    write_rows(shown, ["severity", "model", "series", "segment", "since", "summary"], "table")


def _show_refused(refused: dict[str, Any], config_path: str) -> None:
    if refused["newest"] is None:
        click.echo("dead letters: their topic cannot be read by this user")
    elif refused["newest"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in refused["reasons"].items())
        click.echo(f"dead letters: {refused['newest']:,} among the newest of their topic ({reasons}), the last {refused['written']}")
        click.echo(f"  driftline tail dlq {config_path} --from -24h --until-idle 0")


def _suspension(series: dict[str, Any]) -> str:
    if series.get("cause") == "hour_effect":
        return f"the hour of the day makes {series['correlation']:.0%} of the variance, one value a day is judged"
    return f"values {series['lag']} apart have a correlation of {series['correlation']:.2f}, one in {series['one_in']} is judged"


def _progress(model: dict[str, Any]) -> str:
    if model["state"] == "none":
        return "no snapshot yet"
    if model["state"] == "watching":
        return f"watching, {model['rows']:,} rows"
    if model["baseline"] is not None:
        return f"comparing its file with {model['rows']:,} of {model['learn_rows']:,}"
    return f"learning {model['rows']:,} of {model['learn_rows']:,}" + (f", ready in about {model['ready_in']}" if model["ready_in"] else "")


def _sources(client: AdminClient, config: Config) -> list[dict[str, Any]]:
    """When the users' topics had their last record, by its time; a topic that has none, or a broker that cannot say, gives None."""
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    from driftline.cli.kafka import partition_counts
    from driftline.streams.kafka import needs_a_person
    from driftline.streams.wiring import sources_of

    names = sources_of(config)
    counts = partition_counts(client, names)
    wanted = {TopicPartition(name, p): OffsetSpec.max_timestamp() for name in names for p in range(counts.get(name, 0))}  # type: ignore[no-untyped-call]
    last: dict[str, int] = {}
    try:
        for place, future in client.list_offsets(wanted, request_timeout=_CALL_SECONDS).items() if wanted else ():
            last[place.topic] = max(last.get(place.topic, -1), future.result(_CALL_SECONDS).timestamp)
    except KafkaException as error:
        # Brokers before 3.0 and the embedded one do not know the question.
        if needs_a_person(error.args[0]):
            raise
    now_ms = time.time() * 1_000
    rows = []
    for name in names:
        last_ms = last[name] if last.get(name, -1) >= 0 else None
        idle = None if last_ms is None else max(0, round((now_ms - last_ms) / 1_000))
        rows.append({"topic": name, "last_ms": last_ms, "idle_seconds": idle})
    return rows


def _idle_words(source: dict[str, Any]) -> str:
    seconds = source["idle_seconds"]
    return "no record" if seconds is None else "-" if seconds < _IDLE_SECONDS else f"for {_about(seconds)}"


def _next_words(group: dict[str, Any]) -> str | None:
    """How long what the group reads next has been there: how far behind it is, by the broker's clock or by its producer's date."""
    if group["next_ms"] is None:
        return None
    return f"{'dated' if group['next_dated'] else 'written'} {_about(max(0.0, time.time() - group['next_ms'] / 1_000))} ago"


def _explain(groups: list[dict[str, Any]], sources: list[dict[str, Any]], config: Config) -> None:
    """What a lag that is no backlog is: a join trails by its age, behind it stand rows that wait, and ticks where nothing comes."""
    from driftline.streams.join.age import join_ages, join_name

    ages = {join_name(age): age for age in join_ages(config)} if config.labels else {}
    idle = min((source["idle_seconds"] for source in sources if source["idle_seconds"] is not None), default=0)
    for row in groups:
        age = ages.get(row["processor"])
        row["note"] = None
        if row["lag"] and age is not None:
            row["note"] = "trails by its label age, " + ("as measured" if age == "auto" else _about(age / 1_000))
            if idle >= _IDLE_SECONDS:
                row["note"] += f"; topics idle for {_about(idle)}: only ticks are added"


def _models(config: Config) -> list[dict[str, Any]]:
    """The newest snapshot of every panel of every model, over all segments."""
    import orjson

    from driftline.cli.kafka import read_topic
    from driftline.schemas.topics import SNAPSHOTS

    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    before: dict[tuple[str, str, str], dict[str, Any]] = {}
    for message in read_topic(config.kafka, SNAPSHOTS.full_name(config.topics.prefix), tail=5_000):
        snapshot = orjson.loads(message.value() or b"null")
        if snapshot is None or snapshot["segment"] is not None:
            continue
        key = (snapshot["model"], snapshot["version"] or "", snapshot["panel"])
        if key in newest:
            before[key] = newest[key]
        newest[key] = {**snapshot, "written_ms": message.timestamp()[1]}
    rows = [_model_row(snapshot, before.get(key)) for key, snapshot in sorted(newest.items())]
    missing = [name for name in config.models if name not in {row["model"] for row in rows}]
    return rows + [
        {"model": name, "version": None, "panel": None, "state": "none", "rows": 0, "time_ms": None, "written": None} for name in missing
    ]


def _model_row(snapshot: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    row = {name: snapshot[name] for name in ("model", "version", "panel", "state", "rows", "learn_rows", "baseline", "time_ms")}
    row["written"] = f"{cell(max(0, round(time.time() - snapshot['written_ms'] / 1_000)))} s ago"
    row["suspended"] = [{"series": s["series"], **s["suspended"]} for s in snapshot["series"] if s.get("suspended")]
    row["mismatched"] = snapshot.get("mismatched", [])
    row["ready_in"] = None
    if before is not None and snapshot["state"] == "learning" and snapshot["rows"] > before["rows"]:
        seconds = (snapshot["written_ms"] - before["written_ms"]) / 1_000 / (snapshot["rows"] - before["rows"])
        row["ready_in"] = _about((snapshot["learn_rows"] - snapshot["rows"]) * seconds)
    return row


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5_400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.0f} d"


def _dead_letters(config: Config) -> dict[str, Any]:
    """How many the newest part of the dead-letter topic holds, by reason, and when the last one was written.

    `newest` is None where this user may not read them: they are records as they came, and the other lines need no right to those.
    """
    from confluent_kafka import KafkaException

    from driftline.cli.events import dead_letter_head
    from driftline.cli.kafka import read_topic
    from driftline.schemas.topics import DEAD_LETTERS
    from driftline.streams.kafka import needs_a_person

    reasons: Counter[str] = Counter()
    written_ms = 0
    try:
        # Markers of transactions stand between them, so that fewer may come than were asked for.
        for message in read_topic(config.kafka, DEAD_LETTERS.full_name(config.topics.prefix), tail=_DEAD_LETTERS_READ):
            reasons[dead_letter_head(message)["reason"]] += 1
            written_ms = max(written_ms, message.timestamp()[1])
    except (Refusal, KafkaException) as error:
        if isinstance(error, KafkaException) and not needs_a_person(error.args[0]):
            raise
        return {"newest": None, "reasons": {}, "written": None, "written_ms": None}
    written = f"{_about(max(0.0, time.time() - written_ms / 1_000))} ago" if written_ms else None
    return {"newest": reasons.total(), "reasons": dict(reasons.most_common()), "written": written, "written_ms": written_ms or None}


def _open_alerts(config: Config) -> list[dict[str, Any]]:
    """The firing alerts, loudest first."""
    from driftline.schemas.topics import ALERTS

    firing = _firing(config, ALERTS)
    return sorted(firing, key=lambda alert: (-_RANK[alert["severity"]], alert["model"], alert["series"], alert["fingerprint"]))


def _open_incidents(config: Config) -> list[dict[str, Any]]:
    """The open incidents, loudest first, then newest."""
    from driftline.schemas.topics import INCIDENTS

    return sorted(_firing(config, INCIDENTS), key=lambda one: (-_RANK[one["severity"]], -one["starts_at_ms"], one["id"]))


def _place(told: dict[str, Any]) -> tuple[int, int]:
    """An alert's episodes follow each other, and states within an episode; an incident has but one."""
    return (told["detected_at_ms"], told["seq"])


def _firing(config: Config, topic: Topic) -> list[dict[str, Any]]:
    """What fires of a compacted topic."""
    import orjson

    from driftline.cli.kafka import read_topic

    latest: dict[bytes, dict[str, Any]] = {}
    for message in read_topic(config.kafka, topic.full_name(config.topics.prefix), from_ms=0):
        key, value = message.key() or b"", message.value()
        if value is None:
            latest.pop(key, None)
            continue
        told = orjson.loads(value)
        if key not in latest or _place(told) >= _place(latest[key]):
            latest[key] = told
    return [told for told in latest.values() if told["condition"] == "firing"]
