"""Streams without a change, and streams with one at a known place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

Values = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]

SEASON_ROWS = 1440
"""Rows of a day; the season carries a quarter of the variance."""


@dataclass(frozen=True, slots=True)
class Law:
    """How values are drawn, and their true mean and standard deviation, which the peers are told."""

    draw: Draw
    mean: float = 0.0
    sd: float = 1.0
    binary: bool = False


def bernoulli(rate: float) -> Law:
    return Law(lambda g, n: (g.random(n) < rate).astype(np.float64), rate, math.sqrt(rate * (1.0 - rate)), binary=True)


def _zipf(g: np.random.Generator, n: int) -> Values:
    return np.minimum(g.zipf(1.7, n), 1_000).astype(np.float64)


def autoregressive(phi: float) -> Law:
    def draw(g: np.random.Generator, n: int) -> Values:
        noise = g.normal(size=n) * math.sqrt(1.0 - phi * phi)
        noise[0] = g.normal()
        return np.asarray(signal.lfilter([1.0], [1.0, -phi], noise))

    return Law(draw)


def season(period: int) -> Law:
    def draw(g: np.random.Generator, n: int) -> Values:
        wave = math.sqrt(0.5) * np.sin(2 * np.pi * (np.arange(n) + g.integers(period)) / period)
        return np.asarray(wave + math.sqrt(0.75) * g.normal(size=n))

    return Law(draw)


def _clusters(g: np.random.Generator, n: int) -> Values:
    sizes = g.integers(2, 501, n // 100 + 10)
    return np.repeat(g.normal(size=len(sizes)), sizes)[:n]


COVERED: dict[str, Law] = {
    "normal": Law(lambda g, n: g.normal(size=n)),
    "t, 3 degrees": Law(lambda g, n: g.standard_t(3, n), 0.0, math.sqrt(3.0)),
    "lognormal": Law(lambda g, n: g.lognormal(size=n), math.exp(0.5), math.sqrt((math.e - 1.0) * math.e)),
    "uniform": Law(lambda g, n: g.random(n), 0.5, math.sqrt(1.0 / 12.0)),
    "rate .1": bernoulli(0.1),
    "rate .01": bernoulli(0.01),
    "rate 0": Law(lambda _, n: np.zeros(n), 0.0, 1.0, binary=True),
    "atom at 0 (70 %)": Law(lambda g, n: np.where(g.random(n) < 0.7, 0.0, g.exponential(size=n)), 0.3, math.sqrt(0.6 - 0.09)),
    "categories, Zipf": Law(_zipf),
}
"""Independent values: what the promise is about."""

NOT_COVERED: dict[str, Law] = {
    "AR(1), .3": autoregressive(0.3),
    "AR(1), .5": autoregressive(0.5),
    "AR(1), .8": autoregressive(0.8),
    "daily season": season(SEASON_ROWS),
    "weekly season": season(7 * SEASON_ROWS),
    "clusters of 2 to 500 equal rows": Law(_clusters),
}
"""Values with a memory, on which every detector here raises false alarms; shown, not hidden."""


@dataclass(frozen=True, slots=True)
class Change:
    """A law before, and the values after; `gate` the most mean delay at c = 1e5 and a reference of 5,000."""

    name: str
    law: str
    after: Draw
    gate: float | None = None

    @property
    def before(self) -> Law:
        return COVERED[self.law]


def shift(law: str, sds: float, gate: float | None = None) -> Change:
    base = COVERED[law]
    return Change(f"{law}, mean +{sds:g} sd", law, lambda g, n: base.draw(g, n) + sds * base.sd, gate)


def _rate(before: float, after: float, gate: float | None = None, name: str = "rate") -> Change:
    return Change(f"{name} {before:g} to {after:g}", f"rate {before:g}".replace("0.", "."), bernoulli(after).draw, gate)


def _scale(factor: float, gate: float) -> Change:
    return Change(f"normal, sd x{factor:g}", "normal", lambda g, n: factor * g.normal(size=n), gate)


def _ramp(sds: float, rows: int) -> Change:
    return Change(
        f"normal, ramp to {sds:g} sd in {rows:,}",
        "normal",
        lambda g, n: g.normal(size=n) + sds * np.minimum(np.arange(n) / rows, 1.0),
    )


def _steps(g: np.random.Generator, n: int) -> Values:
    return np.asarray(g.normal(size=n) + 0.1 * np.minimum(np.arange(n) // 500 + 1, 10))


def _recurring(g: np.random.Generator, n: int) -> Values:
    return np.asarray(g.normal(size=n) + 0.5 * (np.arange(n) // 2_000 % 2 == 0))


CHANGES: tuple[Change, ...] = (
    shift("normal", 0.25, 290),
    shift("normal", 0.5, 87),
    shift("normal", 1.0, 25),
    shift("t, 3 degrees", 0.5, 58),
    shift("lognormal", 0.5, 35),
    _scale(1.25, 370),
    _scale(1.5, 82),
    _scale(2.0, 35),
    _rate(0.1, 0.15, 660),
    _rate(0.1, 0.2, 215),
    _rate(0.1, 0.3, 70),
    _rate(0.01, 0.05, None, "missing"),
    Change("never seen to 2 % (a new category)", "rate 0", bernoulli(0.02).draw),
    _ramp(0.5, 1_000),
    _ramp(0.5, 5_000),
    Change("normal, steps of .1 sd every 500", "normal", _steps),
    Change("normal, +.5 sd, 2,000 on and off", "normal", _recurring),
)

RIVALRY: tuple[Change, ...] = (
    shift("normal", 0.25),
    shift("normal", 0.5),
    shift("normal", 1.0),
    shift("t, 3 degrees", 0.5),
    shift("lognormal", 0.5),
    _scale(1.5, 82),
    _rate(0.1, 0.15),
    _rate(0.1, 0.2),
    _rate(0.1, 0.3),
)
"""On which the peers are run too."""
