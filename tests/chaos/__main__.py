"""The campaign's command line; see the package's docstring."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import redis
from confluent_kafka import libversion
from rich.console import Console

from driftline.streams.local.jars import kafka_version
from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.redis import LocalRedis
from tests.chaos.campaign import perform_together
from tests.chaos.command import Options, parse, show_job
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
        return 0
    began = time.time()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch, _services() as services:
        logs = options.logs or Path(scratch)
        for number, (faults, without, rule) in enumerate(jobs):
            name = f"{number:02}-{faults[0].name}" + (f"-without-{without}" if without else "")
            circumstances: dict[str, Any] = {"seed": options.seed + number, "short": options.short, "without": without, "rule": rule}
            done = perform_together(faults, services, logs / name, **circumstances)
            rows += done
            said = ", ".join(f"{row.name} {row.result}" for row in done)
            print(f"{said} in {done[0].seconds:.0f} s", file=sys.stderr, flush=True)
            if options.json:
                # After every run: the long form takes hours, and whoever stops it keeps what it has found.
                write(options.json, rows, _about(options, services, began))
    show(rows, console)
    return 0 if all(row.passed for row in rows) else 1


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
def _services() -> Iterator[Services]:
    """One Kafka and one Redis for the whole campaign; data outlive a restart of either."""
    with LocalKafka(properties=BROKER_PROPERTIES) as kafka, LocalRedis(append_only=True, properties=_REDIS_PROPERTIES) as redis:
        yield Services(kafka, redis)


if __name__ == "__main__":
    sys.exit(main())
