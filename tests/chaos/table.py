"""Reports as the tables of docs/guarantees.md: ``python -m tests.chaos.table REPORT.json ...``.

Of each fault and size, and of each control, the newest run stands there, whatever came of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from tests.chaos.controls import CONTROLS
from tests.chaos.faults import FAULTS

_FAULTS: Final = (
    "fault", "size", "hits", "witnessed", "events in", "drift events", "lost", "doubled", "changed", "recovery p50", "p95 s", "run on",
)  # fmt: skip
_CONTROLS: Final = ("rule", "taken out", "fault", "lost", "doubled", "changed", "run on")

Run = Mapping[str, Any]


def newest(reports: Iterable[Run]) -> list[Run]:
    """The last run of each fault and size and of each control, whatever came of it, in the order in which they were first met."""
    found: dict[tuple[str, str, str], Run] = {}
    for report in sorted(reports, key=lambda report: int(report["started"])):
        circumstances = {"form": report["form"], "day": time.strftime("%Y-%m-%d", time.gmtime(report["started"]))}
        for run in report["runs"]:
            found[run["name"], run["without"], "" if run["without"] else report["form"]] = run | circumstances
    return list(found.values())


def tables(reports: list[Run]) -> str:
    """Both tables, and under them what they were run with."""
    # What is not in the catalogue any more was given up, and says nothing about what is.
    controls_now = {(control.fault, control.without) for control in CONTROLS}
    faults_now = {fault.name for fault in FAULTS}
    runs = [r for r in newest(reports) if ((r["name"], r["without"]) in controls_now if r["without"] else r["name"] in faults_now)]
    faults = [_fault(run) for run in runs if not run["without"]]
    controls = [_control(run) for run in sorted(runs, key=lambda run: run["rule"] or 0) if run["without"]]
    versions = sorted({f"{name} {number}" for report in reports for name, number in report["versions"].items()})
    return "\n\n".join([_table(_FAULTS, faults), _table(_CONTROLS, controls), f"Versions: {', '.join(versions)}."])


def _fault(run: Run) -> list[object]:
    wrong = "" if run["passed"] else " (FAILED)"
    share = "" if not run["together"] else " *"
    hits = [run["injected"], run["witnessed"], f"{run['events_in']:,}{share}", f"{run['drift_events']:,}{share}"]
    counts = [run[name] for name in ("lost", "doubled", "changed")]
    recovery = [_seconds(run[name]) for name in ("recovery_p50_s", "recovery_p95_s")]
    return [f"`{run['name']}`{wrong}", run["form"], *hits, *counts, *recovery, run["day"]]


def _control(run: Run) -> list[object]:
    names = ", ".join(f"`{name}`" for name in run["without"].split(","))
    wrong = "" if run["passed"] else " (STAYED GREEN)"
    return [run["rule"], names + wrong, f"`{run['name']}`", *(run[name] for name in ("lost", "doubled", "changed")), run["day"]]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines: list[Sequence[object]] = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    print(tables([orjson.loads(Path(name).read_bytes()) for name in sys.argv[1:]]))
