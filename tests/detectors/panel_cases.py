"""Streams and specifications that the panel's tests share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, PanelRows, PanelSpec, Series, Signal

SMALL_WINDOW = 200


def detectors(*names: str) -> tuple[ColumnDetector, ...]:
    return tuple(ColumnDetector(name) for name in names)


def series(name: str, flag: str | None, *names: str, window: int = SMALL_WINDOW, run_length: float = 1e4, **more: Any) -> Series:
    return Series(name, flag, detectors(*names), window, run_length, **more)


def small_spec(*, segments: dict[str, int] | None = None, learn_rows: int = 400, run_length: float = 1e4) -> PanelSpec:
    """Every kind of column and flag, at run lengths short enough for alarms to happen."""
    both = ("psi", "adwin", "page_hinkley")

    def flags(column: str, *names: str) -> tuple[Series, ...]:
        return tuple(series(f"quality:{column}:{flag}", flag, "rate", run_length=run_length, direction="up", warning=0.2) for flag in names)

    return PanelSpec(
        columns=(
            Column(
                "amount",
                "numeric",
                (
                    series("feature:amount", None, *both, run_length=run_length),
                    *flags("amount", "missing", "invalid", "out_of_range", "constant"),
                ),
            ),
            Column(
                "country",
                "categorical",
                (series("feature:country", None, "psi", run_length=run_length), *flags("country", "missing", "unseen")),
            ),
            Column(
                "loss",
                "numeric",
                (
                    series("loss", None, *both, run_length=run_length, direction="up"),
                    series("loss:p90", "tail:0.9", "rate", window=100, run_length=run_length),
                ),
                tails=(0.9,),
            ),
            Column("flagged", "binary", (series("flagged", "one", "rate", "adwin", "page_hinkley", run_length=run_length),)),
        ),
        segments={} if segments is None else segments,
        window=SMALL_WINDOW,
        learn_rows=learn_rows,
    )


def stream(n: int, seed: int, *, first: int = 0, shift: float = 0.0, missing: float = 0.02) -> PanelRows:
    """Rows of `small_spec`'s columns; `shift` moves amount, loss, country and flagged."""
    rng = np.random.default_rng(seed)
    amount = rng.lognormal(size=n) * np.exp(shift)
    amount[rng.random(n) < missing] = np.nan
    loss = rng.exponential(1 + 2 * shift, size=n)
    flagged = (rng.random(n) < 0.1 + 0.3 * shift).astype(float)
    country = rng.choice(8, size=n, p=_weights(shift)).astype(np.int32)
    country[rng.random(n) < 0.01] = -1
    bad = np.flatnonzero(rng.random(n) < 0.005)
    return PanelRows(
        n=n,
        numeric=np.column_stack([loss, amount, flagged, rng.normal(size=n)]),
        numeric_names=["loss", "amount", "flagged", "unwatched"],
        categorical={"country": (country, [f"c{i}" for i in range(8)])},
        invalid=np.column_stack([bad, np.full(len(bad), 1)]).astype(np.int32),
        not_applicable={"loss": rng.random(n) < 0.3},
        segments={"shop": (rng.choice(5, size=n, p=[0.5, 0.3, 0.1, 0.06, 0.04]).astype(np.int32), [f"s{i}" for i in range(5)])},
        source=rng.integers(0, 3, n).astype(np.uint16),
        offset=np.arange(first, first + n),
        time_ms=np.arange(first, first + n) * 1_000,
    )


def _weights(shift: float) -> np.ndarray[Any, Any]:
    weights = np.array([0.4, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.0]) + shift * np.arange(8) / 28
    scaled: np.ndarray[Any, Any] = weights / weights.sum()
    return scaled


def joined(parts: Sequence[PanelRows]) -> PanelRows:
    """One stream of several with the same columns and dictionaries."""
    first = parts[0]
    starts = np.cumsum([0, *(part.n for part in parts)])
    invalid = [part.invalid + np.array([start, 0]) for part, start in zip(parts, starts, strict=False) if part.invalid is not None]
    return PanelRows(
        n=int(starts[-1]),
        numeric=np.concatenate([part.numeric for part in parts]),
        numeric_names=first.numeric_names,
        categorical={k: (np.concatenate([p.categorical[k][0] for p in parts]), v[1]) for k, v in first.categorical.items()},
        invalid=np.concatenate(invalid).astype(np.int32) if invalid else None,
        not_applicable={k: np.concatenate([p.not_applicable[k] for p in parts]) for k in first.not_applicable},
        segments={k: (np.concatenate([p.segments[k][0] for p in parts]), v[1]) for k, v in first.segments.items()},
        source=np.concatenate([part.source for part in parts]),
        offset=np.concatenate([part.offset for part in parts]),
        time_ms=np.concatenate([part.time_ms for part in parts]),
    )


def changing_stream() -> PanelRows:
    """Quiet, shifted, quiet again, a storm of missing values, quiet."""
    plan = [(1_000, 0.0, 0.02), (700, 0.6, 0.02), (1_300, 0.0, 0.02), (250, 0.0, 0.7), (750, 0.0, 0.02)]
    parts, first = [], 0
    for seed, (n, shift, missing) in enumerate(plan):
        parts.append(stream(n, seed, first=first, shift=shift, missing=missing))
        first += n
    return joined(parts)


def run(panel: Panel, rows: PanelRows, cuts: Sequence[int] = ()) -> list[tuple[int, Signal]]:
    """Signals with their row in the whole stream."""
    edges = [0, *sorted(cuts), rows.n]
    out = []
    for a, b in pairwise(edges):
        out += [(a + signal.row, signal) for signal in panel.update(rows.slice(a, b))]
    return out


def plain_rows(columns: dict[str, Any], *, first: int = 0) -> PanelRows:
    """Rows of numeric columns alone."""
    matrix = np.column_stack([np.asarray(values, float) for values in columns.values()])
    n = len(matrix)
    return PanelRows(
        n=n,
        numeric=matrix,
        numeric_names=list(columns),
        categorical={},
        source=np.zeros(n, np.uint16),
        offset=np.arange(first, first + n),
        time_ms=np.arange(first, first + n) * 1_000,
    )
