"""Every bank on one small stream, cut as asked; prints a digest of all alarms and states.

Run as a script it shows whether another compiler setting gives the same bits.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.evidence import windows
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.coding import RowCoder
from driftline.detectors.kernels import (
    ALARM,
    AdwinBank,
    ConformalBank,
    CusumBank,
    EDetectorBank,
    EwmaBank,
    PageHinkleyBank,
    PsiBank,
    RateBank,
)
from driftline.detectors.kernels.bets import BOUNDED, SCORES
from driftline.detectors.kernels.blame import BLAME
from driftline.detectors.kernels.portable import position_keys
from driftline.detectors.kernels.psi import NO_GROUP, smoothed_shares
from driftline.detectors.spec import Column
from tests.detectors.panel_cases import plain_rows

SCOPES, COLUMNS = 3, 4
FIELDS = ALARM.names or ()
Update = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class PsiWithRing:
    """A PSI bank that owns its ring, so that all banks look alike."""

    def __init__(self) -> None:
        groups = np.full((COLUMNS, 67), NO_GROUP, np.uint8)
        groups[:, :12] = np.arange(12) % 6
        shares = smoothed_shares(np.arange(60, 660, 100))
        active = np.ones((SCOPES, COLUMNS))
        active[1, 2] = 0
        self.bank = PsiBank(SCOPES, COLUMNS, window=[40, 25, 40, 7], groups=groups, expected=shares, threshold=0.35, active=active)
        self.ring, self.heads = self.bank.new_ring()

    def update(self, codes: np.ndarray, scopes: np.ndarray) -> np.ndarray:
        return self.bank.update(codes, scopes, self.ring, self.heads)

    def export(self, scope: int) -> bytes:
        return b"".join([self.bank.export(scope), self.ring[scope].tobytes(), self.heads[scope : scope + 1].tobytes()])

    def restore(self, scope: int, blob: bytes) -> None:
        size = self.ring[scope].size
        self.bank.restore(scope, blob[: -size - 8])
        self.ring[scope] = np.frombuffer(blob[-size - 8 : -8], np.uint8).reshape(self.ring[scope].shape)
        self.heads[scope] = np.frombuffer(blob[-8:], np.int64)[0]


class BudgetChain:
    """Conformal scores into e-detectors that share a budget: a monitor for each (scope, column), the last of zeros and ones."""

    def __init__(self) -> None:
        own = np.arange(SCOPES * COLUMNS, dtype=np.uint64).reshape(SCOPES, COLUMNS)
        share, frozen = np.array([-1.0, -1.0, -1.0, 0.25]), np.array([0.0, 1.0, 0.0, 0.0])
        self.scores = ConformalBank(SCOPES, COLUMNS, counts=np.arange(1, 13), own_keys=own, share=share, frozen=frozen)
        form = np.tile([SCORES, SCORES, SCORES, BOUNDED], SCOPES)
        self.budget = EDetectorBank(
            SCOPES * COLUMNS, rate=2e-4, form=form, base=0.25, tolerance=np.tile([0.1, 0.3, 0.0, 0.2], SCOPES), cap=40.0, first=1.0
        )

    def update(self, codes: np.ndarray, scopes: np.ndarray, first: int) -> np.ndarray:
        """Rows whose first is number `first` of the stream; the clock is uneven, and stands now and then."""
        offset = np.arange(first, first + len(codes))
        scores = self.scores.update(codes, scopes, position_keys(np.full(len(codes), 5, np.uint64), offset))
        # a row that names a scope twice feeds its monitors once
        once = np.where((scopes[:, 1] == scopes[:, 0])[:, None] & (np.arange(2) == 1), -1, scopes)
        monitors = np.where(once[:, :, None] < 0, -1, once[:, :, None] * COLUMNS + np.arange(COLUMNS)).reshape(len(codes), -1)
        found = self.budget.update(scores, monitors.astype(np.int32), offset // 3 * 3 + offset // 100 * 50)
        found["row"] += first
        return found

    def state(self) -> bytes:
        return b"".join([*(self.scores.export(scope) for scope in range(SCOPES)), self.budget.export()])


def blames(stream: tuple[np.ndarray, np.ndarray, np.ndarray], cuts: Iterable[int]) -> tuple[list[Any], bytes]:
    """Everything blamed on a stream, and the state after it."""
    _, codes, scopes = stream
    chain, found = BudgetChain(), []
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(scopes)]):
        found += [tuple(b[name].item() for name in BLAME.names or ()) for b in chain.update(codes[start:stop], scopes[start:stop], start)]
    return found, chain.state()


VALUE_BANKS = ("adwin", "page_hinkley", "cusum", "ewma")


def new_banks() -> dict[str, Any]:
    hits = np.full((3, 67), -1, np.int8)
    hits[:, :12] = 0
    hits[:, 3:6] = 1
    return {
        "adwin": AdwinBank(SCOPES, COLUMNS, delta=[0.9, 0.3, 0.05, 1.0], clock=4),
        "page_hinkley": PageHinkleyBank(SCOPES, COLUMNS, threshold=[3.0, 5.0, 8.0, 4.0], min_instances=5),
        "cusum": CusumBank(SCOPES, COLUMNS, setting=0.25, threshold=[3.0, 5.0, 8.0, 4.0], target=1.0),
        "ewma": EwmaBank(SCOPES, COLUMNS, setting=[0.05, 0.1, 0.3, 1.0], threshold=2.0, target=1.0, scale=1.5),
        "psi": PsiWithRing(),
        "rate": RateBank(SCOPES, column_of=[0, 2, 3], hits=hits, rate_up=0.2, rate_down=0.2, run_length=20.0),
    }


def a_stream(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, codes and scopes with holes, infinities, changes and rows of no scope."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, COLUMNS)) + 2.0 * (np.arange(rows) // 60 % 2)[:, None]
    values[generator.random((rows, COLUMNS)) < 0.05] = np.nan
    values[generator.random((rows, COLUMNS)) < 0.02] = -np.inf
    codes = generator.integers(0, 12, (rows, COLUMNS))
    codes = np.where((np.arange(rows) // 70 % 2)[:, None] == 1, codes % 4, codes).astype(np.uint8)
    codes[generator.random((rows, COLUMNS)) < 0.05] = 66
    return values, codes, generator.integers(-1, SCOPES, (rows, 2)).astype(np.int32)


def feed(banks: dict[str, Any], stream: tuple[np.ndarray, np.ndarray, np.ndarray], cuts: Iterable[int]) -> dict[str, list[Any]]:
    """All alarms of each bank, with rows counted over the whole stream."""
    values, codes, scopes = stream
    alarms: dict[str, list[Any]] = {name: [] for name in banks}
    edges = [0, *sorted(cuts), len(scopes)]
    for start, stop in itertools.pairwise(edges):
        for name, bank in banks.items():
            rows = values if name in VALUE_BANKS else codes
            for alarm in bank.update(rows[start:stop], scopes[start:stop]):
                alarms[name].append((int(alarm["row"]) + start, *(alarm[field].item() for field in FIELDS[1:])))
    return alarms


def state(banks: dict[str, Any]) -> dict[str, list[bytes]]:
    return {name: [bank.export(scope) for scope in range(SCOPES)] for name, bank in banks.items()}


def digest(rows: int, seed: int, cuts: Sequence[int] = ()) -> str:
    banks = new_banks()
    alarms = feed(banks, a_stream(rows, seed), cuts)
    alarms["budget"], chain = blames(a_stream(rows, seed), cuts)
    exact = repr([(name, [tuple(v.hex() if isinstance(v, float) else v for v in a) for a in found]) for name, found in alarms.items()])
    return hashlib.sha256(exact.encode() + b"".join(b"".join(blobs) for blobs in state(banks).values()) + chain).hexdigest()


def multiplied() -> str:
    """The products of a pair, and their reference, which is built from them."""
    values = a_stream(400, 9)[0]
    builder = BaselineBuilder([Column("p", "numeric", factors=("a", "b"))], {})
    builder.add(rows := plain_rows({"a": values[:, 0], "b": values[:, 1]}))
    baseline = builder.finish()
    return hashlib.sha256(baseline.to_json().encode() + RowCoder(baseline.columns).encode(rows)[1].tobytes()).hexdigest()


def explained() -> str:
    """The statistics of a few windows."""
    return hashlib.sha256(repr(list(windows("ar_5", 200, 3, 9))).encode()).hexdigest()


if __name__ == "__main__":
    print(digest(400, 9), explained(), multiplied())
