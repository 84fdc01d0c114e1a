"""Incidents per true change, the public way: a file, a configuration, `driftline replay --what incidents`.

Fifty features, a score that rests on some of them, and labels ten minutes late; twenty rows a second. What changes stays
changed, so that a second change comes while the first is open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from benchmarks.quality.measure import generator
from benchmarks.quality.public import replayed_columns
from benchmarks.quality.report import Gate, Section, Size

FEATURES: Final = 50
ROWS_PER_SECOND: Final = 20
START_MS: Final = 1_760_000_000_000
LEARN: Final = 4_000
CHANGE: Final = LEARN + 1_000
AFTER: Final = 8_000
APART: Final = 20_000
"""Rows between the first change and the second one."""
_SCORED: Final = 10
"""Features that the score rests on."""
_LABEL_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Case:
    """What changes.

    Attributes
    ----------
    moved : features that shift by `sds` from the change on, the last ones; `second` = those that shift `APART` rows later, the first ones.
    country : the segment value that changes; None = all rows.
    """

    name: str
    moved: int
    sds: float
    second: int = 0
    country: str | None = None

    @property
    def rows(self) -> int:
        return CHANGE + (APART if self.second else 0) + AFTER


CASES: Final = (
    Case("1 of 50 features by .5 sd", 1, 0.5),
    Case("5 of 50 by .5 sd", 5, 0.5),
    # Some of these are found thousands of rows later, and are to be dated back to the change all the same.
    Case("50 of 50 by .3 sd", 50, 0.3),
    Case("50 of 50 by 1 sd", 50, 1.0),
    Case("5 of 50 by 1 sd in one of four countries", 5, 1.0, country="NL"),
    Case("1 of 50, another one later", 1, 0.5, second=1),
    Case("20 of 50, 5 others later", 20, 0.5, second=5),
)

CONFIG: Final = f"""\
version: 1
kafka: {{bootstrap: "localhost:9092"}}
redis: {{url: "redis://localhost:6379/0"}}
predictions: p
labels: l
models:
  m:
    false_alarms: 1 per 100000 events
    window: 1000
    snapshot_every: 1000000
    segments: [country]
    labels: {{ages: [{_LABEL_MS}ms]}}
    baseline: {{learn: {LEARN}, settle: 0s}}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one stream gave.

    Attributes
    ----------
    first, second : incidents that were opened after the change and before the next one.
    joined : alerts in the largest incident of the first change.
    second_blamed : whether an incident of the second change's own blames a feature that changed then.
    """

    first: int
    second: int
    joined: int
    second_blamed: bool


def stream(case: Case, g: np.random.Generator) -> dict[str, Any]:
    """The columns of a stream."""
    values = g.normal(size=(case.rows, FEATURES))
    country = g.choice(["NL", "DE", "FR", "BE"], case.rows)
    # The label follows what the features were; what shifts them later is an error of the source.
    p = 1.0 / (1.0 + np.exp(1.0 - values[:, :_SCORED].sum(axis=1) / math.sqrt(_SCORED)))
    labels = (g.random(case.rows) < p).astype(np.int64)
    hit = np.ones(case.rows, bool) if case.country is None else country == case.country
    row = np.arange(case.rows)
    values[np.ix_(hit & (row >= CHANGE), np.arange(FEATURES - case.moved, FEATURES))] += case.sds
    values[np.ix_(hit & (row >= CHANGE + APART), np.arange(case.second))] += case.sds
    score = 1.0 / (1.0 + np.exp(1.0 - values[:, :_SCORED].sum(axis=1) / math.sqrt(_SCORED)))
    return {f"f{k:02}": values[:, k] for k in range(FEATURES)} | {"country": country, "score": score, "y": labels}


def last_records(case: Case, g: np.random.Generator) -> list[dict[str, Any]]:
    """The last record of each incident."""
    options = ("--label", "y", "--label-delay", "fixed:1m", "--segment", "country")
    found = replayed_columns(stream(case, g), _at(np.arange(case.rows)), CONFIG, *options, what="incidents")
    return list({one["id"]: one for one in found}.values())


def outcome(case: Case, incidents: Sequence[dict[str, Any]]) -> Outcome:
    """Hold incidents against the truth."""
    first_ms, second_ms = (int(_at(np.array(row))) for row in (CHANGE, CHANGE + APART))
    later = [one for one in incidents if one["detected_at_ms"] >= first_ms]
    first = [one for one in later if one["detected_at_ms"] < second_ms]
    second = [one for one in later if one["detected_at_ms"] >= second_ms]
    names = {f"feature:f{k:02}" for k in range(case.second)}
    blamed = any(alert["series"] in names for one in second for alert in one["blamed"])
    return Outcome(len(first), len(second), max((one["alerts"] for one in first), default=0), blamed)


def incidents(size: Size) -> Section:
    """How many incidents a change makes."""
    rows, gates = [], []
    for case in CASES:
        streams = range(max(size.change_streams // 15, 4))
        found = [outcome(case, last_records(case, generator(size.seed, "incidents", case.name, stream))) for stream in streams]
        counts = [one.first for one in found]
        above = sum(count > 2 for count in counts)
        middle, most = float(np.median(counts)), float(np.quantile(counts, 0.95, method="inverted_cdf"))
        gates.append(Gate(f"incidents per change, median, {case.name}", 1.0, middle, middle))
        # At most one change in twenty may make more than two.
        low = stats.binomtest(above, len(counts)).proportion_ci(method="exact").low
        gates.append(Gate(f"share of changes with more than two incidents, {case.name}", 0.05, above / len(counts), low))
        missed = sum(count == 0 for count in counts)
        gates.append(Gate(f"changes without an incident, {case.name}", 0.0, float(missed), float(missed)))
        told = "-"
        if case.second:
            blamed = sum(one.second_blamed for one in found)
            high = stats.binomtest(blamed, len(found)).proportion_ci(method="exact").high
            gates.append(Gate(f"second change as an incident of its own, {case.name}", 0.95, blamed / len(found), high, least=True))
            told = f"{blamed} of {len(found)}, by {np.mean([one.second for one in found]):.2f} incidents"
        joined = f"{np.median([one.joined for one in found]):.0f}"
        rows.append([case.name, f"{len(found)}", f"{middle:g}", f"{most:g}", joined, told])
    return Section(
        "Incidents per change",
        f"`driftline replay --what incidents` over {FEATURES} features, a score that rests on {_SCORED} of them, outcomes ten minutes "
        f"late and four countries, {ROWS_PER_SECOND} rows a second, `gather` at its 5 minutes and a budget of 1 alarm in 100,000 events; "
        f"{AFTER:,} rows are watched after the last change, and what has changed stays so. The last two lines: other features change "
        f"{APART:,} rows after the first ones, while the first incident is open.",
        ["change", "streams", "incidents, median", "95th percentile", "alerts in the largest", "second change found"],
        rows,
        gates,
    )


def _at(row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return START_MS + row * 1_000 // ROWS_PER_SECOND
