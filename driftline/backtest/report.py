"""What a backtest found, as one JSON object and as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from driftline.backtest.alarms import Account, by_series, duration_words, sentence
from driftline.backtest.changes import Change
from driftline.backtest.run import Json
from driftline.backtest.suggest import Suggestion
from driftline.backtest.trials import Trial, by_kind
from driftline.streams.observation import Int64

WHAT: Final = {
    "shift": "moved by {size:g} reference sd",
    "scale": "multiplied by {size:g}",
    "nulls": "null in {size:.0%} of the rows",
    "unseen": "a category never seen before in {size:.0%} of the rows",
    "correlation": "permuted among 1,000 rows at a time",
    "labels": "another label in {size:.0%} of the rows",
}


@dataclass(frozen=True, slots=True)
class ModelReport:
    """All that was found for one model."""

    account: Account
    row_times: Int64
    trials: tuple[Trial, ...] = ()
    suggestion: Suggestion = field(default_factory=Suggestion)

    def times(self, change: Change) -> tuple[int, int]:
        """Event time of the first row of a change and of the last."""
        return int(self.row_times[change.start]), int(self.row_times[change.stop - 1])

    def as_json(self) -> Json:
        """Plain values; names and units as in the drift events."""
        found = self.account
        return {
            "rows": found.rows,
            "learned_rows": found.first_row,
            "first_ms": found.first_ms,
            "last_ms": found.last_ms,
            "allowed": {"most": found.allowed.most, "source": found.allowed.source},
            "alarms": found.count,
            "alarms_per_week": found.per_week,
            "not_covered": found.beside,
            "quiet_alarms": len(found.quiet) if found.quiet_named else None,
            "by_series": by_series(found.alarms),
            "changes": by_kind(self.trials),
            "runs": [run_json(trial) for trial in self.trials],
            "suggestion": self.suggestion.as_json(),
            "summary": [sentence(found), *change_sentences(self.trials), *self.suggestion.sentences],
        }


def run_json(trial: Trial) -> Json:
    """One run."""
    change, alarm = trial.change, trial.alarm
    return {
        "change": change.kind,
        "size": change.size if change.kind != "correlation" else None,
        "feature": change.feature or None,
        "start_row": change.start,
        "stop_row": change.stop,
        "outcome": trial.outcome,
        "series": alarm.series if alarm else None,
        "segment": (alarm.segment or None) if alarm else None,
        "detector": alarm.detector if alarm else None,
        "delay_rows": trial.delay_rows,
        "delay_ms": trial.delay_ms,
        "accused": list(trial.accused),
    }


def change_sentences(trials: Sequence[Trial]) -> list[str]:
    """A sentence for each kind of change, and one on who was accused beside it."""
    out = [_change_sentence(row, trials) for row in by_kind(trials)]
    accused = [trial for trial in trials if trial.accused]
    if accused:
        names = ", ".join(dict.fromkeys(name for trial in accused for name in trial.accused))
        out.append(f"in {len(accused)} of {len(trials)} runs a series that did not change was accused too: {names}")
    return out


def _change_sentence(row: Json, trials: Sequence[Trial]) -> str:
    what = WHAT[row["change"]].format(size=row["size"] or 0.0)
    head = f"{row['change']} ({what}): "
    beside = f"; {row['open_before']} more could not tell, the series was off its baseline before" if row["open_before"] else ""
    if not row["runs"]:
        return head + "no run could tell, the series were off their baselines before"
    if not row["found"]:
        why = ""
        if row["change"] == "correlation":
            why = ": the feature's own values did not change, and no pair of it in `correlations` showed it"
        return f"{head}not found in {row['runs']} of {row['runs']} runs{why}{beside}"
    worst = f"{row['delay_rows_worst']:,} events ({duration_words(row['delay_ms_worst'])})"
    missed = [t.change.feature or "labels" for t in trials if t.change.kind == row["change"] and t.outcome == "missed"]
    lost = f"; missed in {', '.join(dict.fromkeys(missed))}" if missed else ""
    median: Any = row["delay_rows_median"]
    delay = f"after {median:,.0f} events in the median and {worst} at worst"
    return f"{head}found in {row['found']} of {row['runs']} runs, {delay}{lost}{beside}"
