"""The campaign's command line; see the package's docstring."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import redis
from confluent_kafka import libversion
from rich.console import Console

from driftline.streams.local.jars import kafka_version
from driftline.streams.local.redis import LocalRedis
from tests.chaos.brokers import started
from tests.chaos.campaign import perform_together
from tests.chaos.command import Options, directory_name, parse, show_job, tried
from tests.chaos.controls import CONTROLS
from tests.chaos.fault import Fault
from tests.chaos.faults import FAULTS
from tests.chaos.installation import BROKER_PROPERTIES
from tests.chaos.report import Row, show, write
from tests.chaos.scene import Services

Job = tuple[Sequence[Fault], str, int | None]

_REDIS_PROPERTIES: Final = {"appendfsync": "everysec"}


def main() -> int:
    """Run the faults and the controls; 0 when all passed."""
    options = parse("python -m tests.chaos", "Faults on a real Kafka and Redis; nothing may be lost, doubled or changed.", FAULTS)
    console = Console(width=None if sys.stdout.isatty() else 200)
    jobs = _jobs(options)
    if options.listed:
        for number, job in enumerate(jobs):
            show_job(console, number, *job)
        show_job(console, "-", [fault for fault in FAULTS if fault.form == "named" and fault.name not in options.only], "", None)
        return 0
    # The uninterrupted run tells of each bad record, too.
    logging.getLogger("driftline").setLevel(logging.CRITICAL)
    began = time.time()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        logs = options.logs or Path(scratch)
        for brokers, numbered in itertools.groupby(sorted(enumerate(jobs), key=_brokers), _brokers):
            with _services(brokers) as services:
                for number, job in numbered:
                    rows += tried(partial(_perform, job, number, services, logs, options), again=options.again)
                    if options.json:
                        # After every run: the long form takes hours, and whoever stops it keeps what it has found.
                        write(options.json, rows, _about(options, services, began))
    show(rows, console)
    return 0 if all(row.passed for row in rows) else 1


def _perform(job: Job, number: int, services: Services, logs: Path, options: Options, attempt: int) -> list[Row]:
    faults, without, rule = job
    directory = logs / directory_name(number, faults[0].name, without, attempt)
    circumstances: dict[str, Any] = {"seed": options.seed + number, "short": options.short, "without": without, "rule": rule}
    return perform_together(faults, services, directory, **circumstances)


def _brokers(numbered: tuple[int, Job]) -> int:
    return numbered[1][0][0].options.brokers


def _about(options: Options, services: Services, began: float) -> dict[str, Any]:
    versions = {name: version(name) for name in ("driftline", "confluent-kafka")}
    with contextlib.suppress(redis.exceptions.ConnectionError):
        client: Any = redis.Redis.from_url(services.redis.url)
        versions["Redis"] = client.info("server")["redis_version"]
        client.close()
    versions |= {"Kafka": kafka_version(), "librdkafka": libversion()[0], "Python": platform.python_version()}
    form = "short" if options.short else "long"
    told = {"form": form, "seed": options.seed, "started": round(began), "seconds": round(time.time() - began), "versions": versions}
    return told | {"cores": os.cpu_count()}


def _jobs(options: Options) -> list[Job]:
    """What to run: faults of one installation, the rule they go without, that rule's number."""
    together: dict[str, list[Fault]] = {}
    for fault in options.faults(FAULTS):
        # Alone, a fault shows what is lost to it; the short form has no time for that.
        key = fault.circumstances if options.short and fault.shares else fault.name
        together.setdefault(str(key), []).append(fault)
    jobs: list[Job] = [(faults, "", None) for faults in together.values()]
    return jobs + [([fault], control.without, control.rule) for fault, control in options.controls(CONTROLS, FAULTS)]


@contextmanager
def _services(brokers: int) -> Iterator[Services]:
    """One Kafka and one Redis for all runs that need as many brokers; data outlive a restart of either."""
    with started(brokers, BROKER_PROPERTIES) as kafka, LocalRedis(append_only=True, properties=_REDIS_PROPERTIES) as redis:
        yield Services(kafka, redis)


if __name__ == "__main__":
    sys.exit(main())
