"""The rows of a campaign, as a table on the terminal and as a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from tests.chaos.scene import Hit
from tests.chaos.verdict import Verdict

_COLUMNS: Final = (
    "name", "injected", "witnessed", "events_in", "drift_events", "lost", "doubled", "changed", "recovery_p50_s", "recovery_p95_s",
    "uncommitted_duplicates", "seconds", "result",
)  # fmt: skip


@dataclass(slots=True)
class Row:
    """What became of one fault, or of one control.

    Attributes
    ----------
    without : the rule that was taken out: a control, which must be found lossy.
    injected, witnessed : how many hits there were, and how many of them are known to have bitten.
    unwitnessed : kinds of hits of which too few were witnessed.
    events_in : source records.
    by_stage : lost, doubled and changed of each of the three comparisons.
    uncommitted_duplicates : drift events that a reader of uncommitted records sees more than once; that is no fault.
    aborted : records of ours that were taken back.
    drained : whether every stage read everything and ended in order, so that what is missing is lost.
    surprises : workers that ended by themselves.
    failures : what else went wrong, in words.
    attempt : the first, or the one after it was inconclusive.
    together : faults of the same run, to which what was lost may be due as well.
    of_scene, needs : this fault's own hits, and how many of a kind must be witnessed.
    """

    name: str
    protocol: str
    seed: int
    without: str = ""
    rule: int | None = None
    injected: int = 0
    witnessed: int = 0
    unwitnessed: dict[str, str] = field(default_factory=dict)
    events_in: int = 0
    drift_events: int = 0
    snapshots: int = 0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    by_stage: dict[str, dict[str, int]] = field(default_factory=dict)
    recoveries_s: list[float] = field(default_factory=list)
    uncommitted_duplicates: int = 0
    aborted: int = 0
    drained: bool = False
    surprises: list[str] = field(default_factory=list)
    cases: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    phases_s: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    hits: list[dict[str, Any]] = field(default_factory=list)
    attempt: int = 1
    together: list[str] = field(default_factory=list)
    of_scene: list[Hit] = field(default_factory=list)
    needs: dict[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What the row is of, in words."""
        return self.name if not self.without else f"{self.name} without {self.without} (rule {self.rule})"

    @property
    def reasons(self) -> list[str]:
        """What is wrong with a row that did not pass."""
        return [*self.failures, *(f"{what}: {said}" for what, said in self.unwitnessed.items()), *self.notes] or ["nothing differs"]

    @property
    def lossy(self) -> bool:
        """Whether the verifier found a difference."""
        return bool(self.lost or self.doubled or self.changed)

    @property
    def passed(self) -> bool:
        """A fault passes when nothing differs and it was witnessed; a control, when something differs and no delay explains it."""
        if self.without:
            return self.lossy and (self.drained or bool(self.surprises))
        return not (self.lossy or self.unwitnessed or self.failures)

    @property
    def inconclusive(self) -> bool:
        """Whether it failed for want of time or of a witness, and nothing shows that a promise was broken.

        What is missing of a run that did not drain may be late; a control that stays green may have been missed by its fault.
        """
        if self.passed or self.without:
            return not self.passed
        return not (self.doubled or self.changed or self.surprises or (self.lost and self.drained))

    @property
    def result(self) -> str:
        if self.without:
            return "red, as it must be" if self.passed else "STAYED GREEN"
        return "ok" if self.passed else "FAILED"

    @property
    def recovery_p50_s(self) -> float | None:
        return _quantile(self.recoveries_s, 0.5)

    @property
    def recovery_p95_s(self) -> float | None:
        return _quantile(self.recoveries_s, 0.95)

    def count(self, verdicts: Mapping[str, Verdict]) -> None:
        """Take over what the comparisons found, each under its name."""
        for name, verdict in verdicts.items():
            self.by_stage[name] = {kind: getattr(verdict, kind) for kind in ("expected", "lost", "doubled", "changed")}
            self.lost += verdict.lost
            self.doubled += verdict.doubled
            self.changed += verdict.changed
            self.notes += [f"{name}: {note}" for note in verdict.notes]

    def export(self) -> dict[str, Any]:
        """The row for the JSON file."""
        computed = ("recovery_p50_s", "recovery_p95_s", "passed", "result")
        told = {name: value for name, value in asdict(self).items() if name not in ("of_scene", "needs")}
        return told | {name: getattr(self, name) for name in computed}


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(float(np.quantile(values, share)), 2) if values else None


def show(rows: Sequence[Row], console: Console) -> None:
    """The table, and under it what is wrong."""
    table = Table()
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("name", "result") else "right", overflow="fold")
    for row in rows:
        style = None if row.passed else "bold red"
        table.add_row(row.label, *(_cell(getattr(row, column)) for column in _COLUMNS[1:]), style=style)
    console.print(table)
    for row in rows:
        if not row.passed:
            console.print(f"{row.name}: " + "\n    ".join(row.reasons), markup=False, highlight=False)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def write(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """The JSON file."""
    document = about | {"passed": all(row.passed for row in rows), "runs": [row.export() for row in rows]}
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
