"""Categories that come in runs: a memory that the baseline knows must neither hide a change nor raise an alarm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.detectors.test_shares import LEARN, SHARES, moved, psi, run

Array = np.ndarray[Any, Any]


def twice(g: np.random.Generator, law: Array, n: int) -> Array:
    return np.repeat(g.choice(len(law), n // 2, p=law), 2)


def stays(g: np.random.Generator, law: Array, n: int, chance: float = 0.5) -> Array:
    """Each value is the one before it with this chance."""
    begins = np.where(g.random(n) < chance, 0, np.arange(n))
    return np.asarray(g.choice(len(law), n, p=law)[np.maximum.accumulate(begins)])


@pytest.mark.parametrize("draw", [twice, stays], ids=["every value twice", "each stays with a chance of one half"])
def test_a_change_of_values_in_runs_is_found_and_one_that_is_tolerated_is_not(draw: Any) -> None:
    g = np.random.default_rng(21)
    tolerated = moved(6, 0.14)
    assert 0.05 < psi(tolerated, SHARES) < 0.1
    assert run(np.concatenate([draw(g, SHARES, LEARN), draw(g, SHARES, 20_000), draw(g, tolerated, 20_000)])) == []
    at = LEARN + 2_000
    first = run(np.concatenate([draw(g, SHARES, at), draw(g, moved(6, 0.6), 3_000)]))[0]
    assert at < first.row < at + 500
    assert first.bins[0].bin == "v6"
    assert first.since is not None
    assert abs(first.since.offset - at) <= 64
