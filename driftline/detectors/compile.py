"""Compile every kernel into numba's cache, so that no process has to when its first rows come.

    python -m driftline.detectors.compile

Tiny panels of every kind run through learning, alarms, levels and a checkpoint, and a tiny budget through alarms. A second
run finds everything in the cache and takes seconds. The cache stands next to the modules, or below `NUMBA_CACHE_DIR`,
which a read-only installation needs, with the same value at install and at run time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from driftline.detectors import null_laws as laws
from driftline.detectors.autoregression import Autoregression
from driftline.detectors.autoregression_fit import VALUES_MIN
from driftline.detectors.budget import AlarmBudget
from driftline.detectors.focus import FOCuS
from driftline.detectors.kernels.bets import BOUNDED
from driftline.detectors.kernels.compiling import compiling_told
from driftline.detectors.kernels.e_detector import EDetectorBank
from driftline.detectors.kernels.post_change import begin, bet_on_rate, new_followed
from driftline.detectors.openers import E_DETECTOR
from driftline.detectors.panel import Panel
from driftline.detectors.runs_fit import find
from driftline.detectors.season import DAY, WAYS
from driftline.detectors.season_fit import differ
from driftline.detectors.spec import Column, ColumnDetector, PanelBudget, PanelRows, PanelSpec, Series, UInt8

_ROWS = 300
_LEARN_ROWS = 100
_WINDOW = 60
_RUN_LENGTH = 1e4


def _series(name: str, flag: str | None, *detectors: str) -> Series:
    return Series(name, flag, tuple(ColumnDetector(detector) for detector in detectors), _WINDOW, _RUN_LENGTH)


def _columns() -> tuple[Column, ...]:
    values = ("psi", "adwin", "page_hinkley", "cusum", "ewma")
    flags = tuple(_series(f"amount:{flag}", flag, "rate") for flag in ("missing", "invalid", "out_of_range", "constant"))
    return (
        Column("amount", "numeric", (_series("amount", None, *values), *flags)),
        Column("country", "categorical", (_series("country", None, "psi"), _series("country:unseen", "unseen", "rate"))),
        Column("flagged", "binary", (_series("flagged", "one", "rate", "adwin", "page_hinkley"),)),
        Column("block:both", "numeric", (_series("block:both", None, "adwin"),), factors=("amount", "flagged"), joint=True),
    )


def _rows(first: int, shift: float) -> PanelRows:
    generator = np.random.default_rng(first)
    countries = generator.integers(0, 4, _ROWS).astype(np.int32)
    return PanelRows(
        n=_ROWS,
        numeric=np.column_stack([generator.normal(size=_ROWS) + shift, generator.random(_ROWS) < 0.2 + 0.2 * shift]),
        numeric_names=["amount", "flagged"],
        categorical={"country": (countries, ["a", "b", "c", "d"])},
        invalid=np.array([[3, 0]], np.int32),
        segments={"shop": (generator.integers(0, 3, _ROWS).astype(np.int32), ["x", "y", "z"])},
        source=np.zeros(_ROWS, np.uint16),
        offset=np.arange(first, first + _ROWS),
        time_ms=np.arange(first, first + _ROWS),
    )


def specs() -> Iterator[PanelSpec]:
    """Panels that between them call every kernel in every way a worker does."""
    columns = _columns()
    yield PanelSpec(columns=columns, segments={}, window=_WINDOW, learn_rows=_LEARN_ROWS, stale_ms=1)
    yield PanelSpec(columns=columns, segments={"shop": 2}, window=_WINDOW, learn_rows=_LEARN_ROWS)
    covered = tuple(replace(column, series=tuple(_covered(one) for one in column.series if one.flag != "constant")) for column in columns)
    # Enough to learn from for a fit of the values' memory, and for an hour.
    budget = PanelBudget(1.0 / _RUN_LENGTH, by_rows=True, cap=_RUN_LENGTH)
    learn = VALUES_MIN + 50
    yield PanelSpec(columns=covered, segments={"shop": 2}, window=_WINDOW, learn_rows=learn, budget=budget, grouping="hour_of_day")


def _covered(series: Series) -> Series:
    return replace(series, detectors=(*series.detectors, ColumnDetector(E_DETECTOR)))


def compile_budget() -> int:
    """Run a budget over scores and zeros and ones, and a dating; the number of alarms."""
    generator = np.random.default_rng(1)
    reference = np.column_stack([generator.normal(size=_ROWS), generator.random(_ROWS) < 0.2])
    rows = np.column_stack([generator.normal(2.0, size=_ROWS), generator.random(_ROWS) < 0.6])
    dated = FOCuS(_RUN_LENGTH, mean=0.0).update_many(rows[:, 0])
    return len(AlarmBudget(reference, per=_RUN_LENGTH).update_many(rows)) + len(dated)


def compile_references() -> None:
    """Learn what a rate is since a change, and read it back."""
    bank = EDetectorBank(1, rate=1e-4, form=BOUNDED, base=0.1)
    bank.followed = new_followed(1, 1)
    begin(0, bank.followed)
    bank.followed.share[:] = 0.2
    bet_on_rate(0, bank.followed, bank.bets)
    bank.begin_anew(0)


def compile_runs() -> bool:
    """Look whether categories come in runs, as is done where they have a memory; whether they do."""
    codes: UInt8 = np.repeat(np.random.default_rng(1).integers(0, 4, 4 * VALUES_MIN), 3)[:, None].astype(np.uint8)
    pieces = [(codes, np.zeros((len(codes), 1), np.int32), np.zeros((len(codes), len(WAYS)), np.int64))]
    found, _ = find(pieces, {(0, 0): 4}, {(0, 0): Autoregression((0.5,), 1.0, (0.0,), (1, 1))}, {})
    return bool(found[0, 0].runs)


def compile_laws() -> float:
    """Call what only rare values, dependent ones and days of them lead to."""
    differ(np.zeros(4 * DAY), DAY)
    return laws.combined(laws.binomial_two_sided(1.0, 3.0, 0.1), laws.chi_squared_tail(4.0, 2.5))


def compile_kernels() -> int:
    """Run the panels; the number of signals they gave, which shows that alarms were reached."""
    compile_laws()
    compile_runs()
    compile_references()
    found = compile_budget()
    for spec in specs():
        panel = Panel(spec)
        for batch, shift in enumerate((0.0, 0.0, 2.0, 0.0)):
            found += len(panel.update(_rows(batch * _ROWS, shift)))
        for scope in range(len(panel.scope_names)):
            panel.levels(scope)
        panel.due_ms()
        blobs, rings = panel.export()
        Panel.restore(spec, {name: blob for name, blob in blobs.items() if blob is not None}, {ring.name: ring for ring in rings})
    return found


def main() -> None:
    """Compile, and say in one line before it, where nothing is cached, and in one after it what is done."""
    with compiling_told(lambda words: print(f"driftline: {words}", flush=True)):  # noqa: T201 - what the Makefile shows
        compile_kernels()
    sys.stdout.write("driftline: kernels compiled and cached\n")


if __name__ == "__main__":
    main()
