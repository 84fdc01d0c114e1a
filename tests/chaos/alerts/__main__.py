"""The alert campaign's command line; see the package's docstring."""

from __future__ import annotations

import logging
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from rich.console import Console

from tests.chaos.alerts.campaign import perform, services
from tests.chaos.alerts.controls import ALERT_RULE, CONTROLS
from tests.chaos.alerts.faults import FAULTS, AlertFault
from tests.chaos.report import Row, show, write


def main() -> int:
    """Run the faults and the controls; 0 when all passed."""
    parser = ArgumentParser(prog="python -m tests.chaos.alerts", description="Faults of the alert app on a real Kafka and Redis.")
    parser.add_argument("--short", action="store_true", help="fewer hits, fewer controls")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[fault.name for fault in FAULTS], metavar="FAULT")
    parser.add_argument("--no-controls", action="store_true")
    parser.add_argument("--only-controls", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--logs", type=Path, metavar="DIRECTORY", help="keep configurations and logs there")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if fault.name in options.only and (fault.short or not options.short)]
    jobs: list[tuple[AlertFault, str]] = [] if options.only_controls else [(fault, "") for fault in chosen]
    if not options.no_controls:
        by_name = {fault.name: fault for fault in chosen}
        found = [control for control in CONTROLS if control.fault in by_name and (control.short or not options.short)]
        jobs += [(by_name[control.fault], control.without) for control in found]
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
    show(rows, Console(width=None if sys.stdout.isatty() else 200))
    if options.json:
        write(options.json, rows, {"form": "short" if options.short else "long", "seed": options.seed})
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
