"""`driftline run CONFIG`: the processors, each in a process of its own, or one of them in this one."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from driftline.cli.errors import Refusal

if TYPE_CHECKING:
    from driftline.schemas.config import Config

@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--processors", metavar="A,B", help="Of ingest, join, detect, alert; one alone runs in this process.  [default: all needed]")
@click.option("--no-alert", is_flag=True, help="All but alert.")
@click.option("--until-idle", type=click.FloatRange(min=0), metavar="S", help="End when the sources were quiet for S seconds.")
@click.option("--time", "time_mode", type=click.Choice(["wall", "data"]), help="What moves time.  [default: wall; data with --until-idle]")
@click.option("--at-end", type=click.Choice(["mature", "wait"]), help="Predictions not yet of age at the end.  [default: mature]")
@click.option("--start", metavar="TIME", help="now, earliest, -24h or a time.  [default: earliest with --until-idle, else as configured]")
@click.option(
    "--on-lost-state",
    type=click.Choice(["fail", "rebuild-from-earliest"]),
    default="fail",
    show_default=True,
    help="When neither Redis nor Kafka holds a task's state: end with the reason, or learn again from what the topics still hold.",
)
@click.option("--instance", metavar="NAME", help="Stable name of this worker.  [default: host and slot]")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True)
@click.option("--supervised", is_flag=True, hidden=True)
@click.option("--age", type=int, hidden=True)
def command(
    config_path: str,
    processors: str | None,
    no_alert: bool,
    until_idle: float | None,
    time_mode: Literal["wall", "data"] | None,
    at_end: Literal["mature", "wait"] | None,
    start: str | None,
    on_lost_state: Literal["fail", "rebuild-from-earliest"],
    instance: str | None,
    log_format: Literal["text", "json"],
    log_level: str,
    supervised: bool,
    age: int | None,
) -> None:
    """Run the processors until stopped; SIGTERM and Ctrl-C commit what is done and end with 0.

    With --until-idle the run ends by itself when its input has: ingest first, then join, detect and alert, each after
    it has read to the end of what the one before it wrote.
    """
    from driftline.cli.logs import configure_logs
    from driftline.schemas.loading import load_config
    from driftline.streams.wiring import join_names

    config = load_config(config_path)
    names = _names(config, processors, no_alert=no_alert)
    draining = until_idle is not None
    joins = join_names(config)
    if len(names) > 1 or (names == ["join"] and len(joins) > 1 and age is None):
        configure_logs("run", style=log_format, level=log_level)
        _check_topics(config, names)
        sys.exit(_supervise(config_path, names, joins, until_idle))
    from driftline.cli.worker import WorkerOptions, run_worker
    from driftline.streams.supervisor import relay_drain, watch_parent

    configure_logs(names[0], style=log_format, level=log_level)
    if supervised:
        relay_drain()
        # to the process, not to the watching thread, where it would not wake a main thread that waits
        watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    options = WorkerOptions(
        time=time_mode or ("data" if draining else "wall"),
        until_idle=until_idle,
        at_end=at_end or "mature",
        start=start or ("earliest" if draining else None),
        on_lost_state=on_lost_state,
        instance=instance,
        age=age,
    )
    sys.exit(run_worker(names[0], config, options))


def _names(config: Config, given: str | None, *, no_alert: bool) -> list[str]:
    """The processors to run, in the order of an event's way."""
    from driftline.streams.wiring import PROCESSORS, needed

    if given is None:
        return [name for name in needed(config) if not (no_alert and name == "alert")]
    wanted = {name.strip() for name in given.split(",") if name.strip()}
    unknown = sorted(wanted - set(PROCESSORS))
    if unknown or not wanted:
        raise Refusal(f'--processors "{given}": expected some of {", ".join(PROCESSORS)}')
    if "join" in wanted and not config.labels:
        raise Refusal("--processors join: the configuration has no labels topic, there is nothing to join")
    if no_alert and "alert" in wanted:
        raise Refusal("--no-alert and --processors alert: expected one of them")
    return [name for name in PROCESSORS if name in wanted]


def _check_topics(config: Config, names: list[str]) -> None:
    """Say once which topics are missing, not once a processor; a broker that does not answer yet is theirs to wait for.

    Raises
    ------
    SetupError : some are missing.
    """
    from confluent_kafka import KafkaException

    from driftline.cli.kafka import partition_counts
    from driftline.streams.kafka import make_admin, no_such_topic
    from driftline.streams.wiring import sources_of, topics_of

    wanted = {topic for name in names for topic in topics_of(name, config)}
    try:
        known = partition_counts(make_admin(config.kafka), wanted)
    except KafkaException:
        return
    if missing := sorted(wanted - known.keys()):
        raise no_such_topic(missing, sources_of(config))


def _supervise(config_path: str, names: list[str], joins: list[str], until_idle: float | None) -> int:
    """One child a processor (a join for each age), with this command's own options."""
    from driftline.streams.supervisor import Command, Supervisor

    context = click.get_current_context()
    passed = _options_as_given(context.params)
    commands: list[Command] = []
    for name in names:
        for age, label in enumerate(joins if name == "join" else [name]):
            words = [sys.executable, "-m", "driftline", "run", config_path, "--processors", name, "--supervised"]
            if name == "join":
                words += ["--age", str(age)]
            # only the first one watches its sources; the others end when they are told to
            if until_idle is not None:
                words += ["--until-idle", str(until_idle)] if name == names[0] else ["--time", "data", "--start", "earliest"]
            words += passed  # last: what was given holds
            commands.append(Command(label, tuple(words)))
    supervisor = Supervisor(commands, until_idle=until_idle is not None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    return supervisor.run()


def _options_as_given(params: dict[str, Any]) -> list[str]:
    flags = {
        "time_mode": "--time",
        "at_end": "--at-end",
        "start": "--start",
        "on_lost_state": "--on-lost-state",
        "instance": "--instance",
        "log_format": "--log-format",
        "log_level": "--log-level",
    }
    return [word for name, flag in flags.items() if params[name] is not None for word in (flag, str(params[name]))]
