"""How often the p of each window statistic is small without drift: what an event says, through the whole panel.

    python -m benchmarks.evidence [--repeats 5000] [--window 600] [--seed 20250917]

A baseline of 5,000 rows for every ten windows. Kinds of null streams: independent normal values; the same rounded to whole
numbers; AR(1) of .5 and .8; every value five times in a row; forty words, of which the rarest come once in a thousand.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import signal

from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.episodes import E_OPEN, OPEN
from driftline.detectors.explained import WindowStatistic
from driftline.detectors.panel import Panel
from driftline.detectors.panel_watch import Watch
from driftline.detectors.spec import Column, Kind, PanelRows, PanelSpec, Series

REFERENCE = 5_000
WINDOWS_A_BASELINE = 10
LEVELS = (0.05, 0.01, 0.001)
WORDS = 40
_CHANCES = 1.0 / np.arange(1, WORDS + 1) ** 1.5

Draw = Callable[[np.random.Generator, int], PanelRows]


def numeric_rows(values: np.ndarray) -> PanelRows:
    """Rows of one numeric column, x."""
    n = len(values)
    return PanelRows(
        n=n, numeric=np.asarray(values, np.float64)[:, None], numeric_names=["x"], categorical={}, source=np.zeros(n, np.uint16),
        offset=np.arange(n), time_ms=np.arange(n),
    )  # fmt: skip


def _autoregressive(phi: float) -> Draw:
    def draw(generator: np.random.Generator, n: int) -> PanelRows:
        return numeric_rows(signal.lfilter([math.sqrt(1 - phi * phi)], [1, -phi], generator.normal(size=n + 100))[100:])

    return draw


def _words(generator: np.random.Generator, n: int) -> PanelRows:
    codes = generator.choice(WORDS, size=n, p=_CHANCES / _CHANCES.sum()).astype(np.int32)
    rows = numeric_rows(np.zeros(n))
    return PanelRows(
        n=n, numeric=rows.numeric, numeric_names=["unwatched"], categorical={"x": (codes, [f"w{i}" for i in range(WORDS)])},
        source=rows.source, offset=rows.offset, time_ms=rows.time_ms,
    )  # fmt: skip


NULLS: dict[str, Draw] = {
    "independent": _autoregressive(0.0),
    "rounded": lambda generator, n: numeric_rows(np.round(generator.normal(size=n))),
    "ar_5": _autoregressive(0.5),
    "ar_8": _autoregressive(0.8),
    "clusters": lambda generator, n: numeric_rows(np.repeat(generator.normal(size=n // 5 + 1), 5)[:n]),
    "words": _words,
}


def column(kind: Kind, window: int, flag: str | None = None) -> tuple[Column, ...]:
    """One watched column, x, without detectors."""
    return (Column("x", kind, (Series("x", flag, (), window),)),)


def baseline(rows: PanelRows, columns: tuple[Column, ...]) -> Baseline:
    """What is learned from rows."""
    builder = BaselineBuilder(columns, {})
    builder.add(rows)
    return builder.finish()


def watch_of(panel: Panel) -> Watch:
    """What a panel has once it has a baseline."""
    assert panel._watch is not None
    return panel._watch


def compared(panel: Panel, rows: PanelRows) -> dict[str, WindowStatistic]:
    """What a snapshot would say of the first series after these rows, had an episode been open."""
    panel.update(rows)
    watch_of(panel).windows.episodes[0, 0, E_OPEN] = OPEN
    return {statistic.name: statistic for statistic in panel.levels(0)[0].statistics}


def windows(kind: str, n: int, repeats: int, seed: int) -> Iterator[dict[str, WindowStatistic]]:
    """The statistics of windows without drift."""
    generator = np.random.default_rng([seed, list(NULLS).index(kind)])
    columns = column("categorical" if kind == "words" else "numeric", n)
    for repeat in range(repeats):
        if repeat % WINDOWS_A_BASELINE == 0:
            before = baseline(NULLS[kind](generator, REFERENCE), columns)
        yield compared(Panel(PanelSpec(columns=columns, window=n), before), NULLS[kind](generator, n))


def main() -> None:
    """Print a table a kind."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5_000)
    arguments.add_argument("--window", type=int, default=600)
    arguments.add_argument("--seed", type=int, default=20250917)
    options = arguments.parse_args()
    for kind in NULLS:
        found = list(windows(kind, options.window, options.repeats, options.seed))
        print(f"\n{kind:<18}{'n_eff':>8}{'value / null':>14}" + "".join(f"{f'p <= {level:g}':>12}" for level in LEVELS))
        for name in found[0]:
            every = [one[name] for one in found]
            ratio = np.mean([statistic.value / statistic.null_level for statistic in every])
            shares = [np.mean([statistic.p is not None and statistic.p <= level for statistic in every]) for level in LEVELS]
            n_eff = np.median([statistic.n_eff for statistic in every])
            print(f"{name:<18}{n_eff:>8.0f}{ratio:>14.2f}" + "".join(f"{share:>12.4f}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
