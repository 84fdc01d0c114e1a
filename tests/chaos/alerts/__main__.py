"""The alert campaign's command line; see the package's docstring."""

from __future__ import annotations

import logging
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from rich.console import Console

from tests.chaos.alerts.campaign import perform, services
from tests.chaos.alerts.controls import ALERT_RULE, CONTROLS
from tests.chaos.alerts.fault import AlertFault
from tests.chaos.alerts.faults import FAULTS
from tests.chaos.report import Row, show, write

Job = tuple[AlertFault, str]
"""A fault, and the rules that the workers go without."""


def main() -> int:
    """Run the faults and the controls; 0 when all passed."""
    options = _options()
    jobs = _jobs(options)
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.list:
        for number, (fault, without) in enumerate(jobs):
            control = f" without {without}" if without else ""
            form = "short" if fault.short else "long"
            console.print(f"{number:3} {form:6}{fault.name}{control}: {fault.about}", markup=False, highlight=False)
        return 0
    # The uninterrupted run tells of each poison record, too.
    logging.getLogger("driftline").setLevel(logging.CRITICAL)
    rows: list[Row] = []
    running = services()
    with tempfile.TemporaryDirectory(prefix="chaos-alerts-") as scratch, running.kafka, running.redis:
        logs = options.logs or Path(scratch)
        for number, (fault, without) in enumerate(jobs):
            name = f"{number:02}-{fault.name}" + (f"-without-{without}" if without else "")
            short, rule = options.short or bool(without), ALERT_RULE if without else None
            row = perform(fault, running, logs / name, seed=options.seed + number, short=short, without=without, rule=rule)
            rows.append(row)
            print(f"{name}: {row.result} in {row.seconds:.0f} s", file=sys.stderr, flush=True)
            if options.json:
                # After every run: whoever stops it keeps what it has found.
                write(options.json, rows, {"form": "short" if options.short else "long", "seed": options.seed})
    show(rows, console)
    return 0 if all(row.passed for row in rows) else 1


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.chaos.alerts", description="Faults of the alert app on a real Kafka and Redis.")
    parser.add_argument("--short", action="store_true", help="fewer hits, fewer controls")
    parser.add_argument("--seed", type=int, default=1, help="of drift events and of all choices")
    parser.add_argument("--only", nargs="+", default=[], metavar="FAULT", help="these, and their controls, whichever form has them")
    parser.add_argument("--no-controls", action="store_true", help="the faults alone")
    parser.add_argument("--only-controls", action="store_true", help="the controls alone")
    parser.add_argument("--list", action="store_true", help="print what would run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--logs", type=Path, metavar="DIRECTORY", help="keep configurations and logs there")
    options = parser.parse_args()
    if unknown := sorted(set(options.only) - {fault.name for fault in FAULTS}):
        parser.error(f"no such fault: {', '.join(unknown)}; --list names them")
    return options


def _jobs(options: Namespace) -> list[Job]:
    chosen = [fault for fault in FAULTS if (fault.name in options.only if options.only else fault.short or not options.short)]
    jobs: list[Job] = [] if options.only_controls else [(fault, "") for fault in chosen]
    if options.no_controls:
        return jobs
    by_name = {fault.name: fault for fault in chosen}
    found = [c for c in CONTROLS if c.fault in by_name and (c.short or not options.short or options.only)]
    return jobs + [(by_name[control.fault], control.without) for control in found]


if __name__ == "__main__":
    sys.exit(main())
