"""The alert campaign's command line; see the package's docstring."""

from __future__ import annotations

import logging
import sys
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.chaos.alerts.campaign import perform, services
from tests.chaos.alerts.controls import ALERT_RULE, CONTROLS
from tests.chaos.alerts.fault import AlertFault
from tests.chaos.alerts.faults import FAULTS
from tests.chaos.alerts.scene import Services
from tests.chaos.command import Options, directory_name, parse, show_job, tried
from tests.chaos.report import Row, show, write

Job = tuple[AlertFault, str]
"""A fault, and the rules that the workers go without."""


def main() -> int:
    """Run the faults and the controls; 0 when all passed."""
    options = parse("python -m tests.chaos.alerts", "Faults of the alert app on a real Kafka and Redis.", FAULTS)
    jobs: list[Job] = [(fault, "") for fault in options.faults(FAULTS)]
    jobs += [(fault, control.without) for fault, control in options.controls(CONTROLS, FAULTS)]
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.listed:
        for number, (fault, without) in enumerate(jobs):
            show_job(console, number, [fault], without, ALERT_RULE if without else None)
        return 0
    # The uninterrupted run tells of each poison record, too.
    logging.getLogger("driftline").setLevel(logging.CRITICAL)
    rows: list[Row] = []
    running = services()
    with tempfile.TemporaryDirectory(prefix="chaos-alerts-") as scratch, running.kafka, running.redis:
        logs = options.logs or Path(scratch)
        for number, job in enumerate(jobs):
            rows += tried(partial(_perform, job, number, running, logs, options), again=options.again)
            if options.json:
                # After every run: whoever stops it keeps what it has found.
                write(options.json, rows, {"form": "short" if options.short else "long", "seed": options.seed})
    show(rows, console)
    return 0 if all(row.passed for row in rows) else 1


def _perform(job: Job, number: int, running: Services, logs: Path, options: Options, attempt: int) -> list[Row]:
    fault, without = job
    short, rule = options.short or bool(without), ALERT_RULE if without else None
    directory = logs / directory_name(number, fault.name, without, attempt)
    return [perform(fault, running, directory, seed=options.seed + number, short=short, without=without, rule=rule)]


if __name__ == "__main__":
    sys.exit(main())
