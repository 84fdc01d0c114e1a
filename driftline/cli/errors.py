"""What a command may end with, and how an error of a library becomes one clear line.

Exit codes: 0 done; 1 failure; 2 bad configuration, file or usage; 3 an alert fires (`status --exit-code`).

    click.ClickException
      Failure   exit 1: the input is fine, the world is not (broker away, disk full)
        Refusal exit 2: what was asked for is wrong and doing it again will not help
"""

from __future__ import annotations

import sys
from typing import IO, Any

import click

EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
EXIT_FIRING = 3


class Failure(click.ClickException):
    """An error with its place and, on a line of its own, what to do."""

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, _file: IO[Any] | None = None) -> None:
        click.echo(f"error: {self.message}", err=True)
        if self.hint:
            click.echo(f"  hint: {self.hint}", err=True)


class Refusal(Failure):
    """Bad configuration, file or usage."""

    exit_code = EXIT_BAD_INPUT


def translate(error: Exception) -> Failure | None:
    """The one-line form of an error of a library or of ours; None when it is a fault in the program.

    Looks only at modules that are loaded already, so that an error costs no import either.
    """
    kafka = sys.modules.get("confluent_kafka")
    if kafka is not None and isinstance(error, kafka.KafkaException):
        return _kafka(error)
    redis = sys.modules.get("redis")
    if redis is not None and isinstance(error, redis.RedisError):
        return Failure(f"redis: {_one_line(error)}", hint="is redis.url right and the server up? `redis-cli -u URL ping` must say PONG")
    config_module = sys.modules.get("driftline.schemas.problems")
    if config_module is not None and isinstance(error, config_module.ConfigError):
        # each mistake a line of its own that says what it is: editors and CI look for it
        return Refusal("\nerror: ".join(config_module.told(error.problems)))
    streams = sys.modules.get("driftline.streams.errors")
    if streams is not None and isinstance(error, streams.StreamError):
        failure = Failure(error.message, hint=error.hint)
        failure.exit_code = error.exit_code
        return failure
    source = sys.modules.get("driftline.streams.source_file")
    if source is not None and isinstance(error, source.SourceFileError):
        return Refusal(str(error))
    detectors = sys.modules.get("driftline.detectors.spec")
    if detectors is not None and isinstance(error, detectors.BaselineError):
        return Refusal(str(error))
    if isinstance(error, FileNotFoundError):
        return Refusal(f'no such file: "{error.filename}"')
    if isinstance(error, PermissionError | IsADirectoryError) and error.filename is not None:
        return Refusal(f'"{error.filename}": {(error.strerror or type(error).__name__).lower()}')
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(error, arrow.ArrowException):
        return Refusal(f"cannot read the file: {_one_line(error)}")
    if isinstance(error, OSError):
        return Failure(_one_line(error))
    return None


def _kafka(error: Exception) -> Failure:
    first = error.args[0] if error.args else error
    name = first.name() if hasattr(first, "name") else ""
    text = first.str() if hasattr(first, "str") else _one_line(error)
    return Failure(f"kafka: {text}", hint=_KAFKA_HINTS.get(name))


_KAFKA_HINTS = {
    "_TRANSPORT": "is kafka.bootstrap right and the broker up? `make services` starts a local one",
    "_ALL_BROKERS_DOWN": "is kafka.bootstrap right and the broker up? `make services` starts a local one",
    "_TIMED_OUT": "is kafka.bootstrap right and the broker up? `make services` starts a local one",
    "UNKNOWN_TOPIC_OR_PART": "create it, or for our own topics run `driftline topics create CONFIG`",
    "_UNKNOWN_TOPIC": "create it, or for our own topics run `driftline topics create CONFIG`",
    "TOPIC_AUTHORIZATION_FAILED": "`driftline topics create CONFIG --print` lists the rights each processor needs",
    "GROUP_AUTHORIZATION_FAILED": "`driftline topics create CONFIG --print` lists the rights each processor needs",
    "CLUSTER_AUTHORIZATION_FAILED": "`driftline topics create CONFIG --print` lists the rights each processor needs",
}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
