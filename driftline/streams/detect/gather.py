"""Observation batches of one ledger as one: a call of the detectors costs the same for 10 rows and for 1,000.

At low rates, with many models and with many join partitions batches are small; read together they are worked on
together. Detectors do not see cuts, so this changes no output (a test holds it to that).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from driftline.streams.observation import Observations, several
from driftline.streams.task import Output

CELLS_MAX: Final = 1 << 20
"""Rows times columns of all ledgers together: beyond this little is saved, and memory would follow the backlog."""
_OTHER_COLUMNS: Final = 12
"""Beside a batch's features: position, times, score, version and the like."""

Ledger = tuple[str, str, int | None]
"""Model, kind, age."""

Placed = tuple[int, Output]
"""A row of the batch, or a batch, and what it caused."""

_ARRAYS: Final = (
    "offset", "source", "time_ms", "record_ms", "score", "confidence", "entropy", "latency_ms", "error", "weight", "unit",
    "label", "label_probability", "delay_ms", "label_state", "numeric",
)  # fmt: skip
_TEXTS: Final = ("version", "class_", "label_class")


@dataclass(frozen=True, slots=True)
class Gathered:
    """Batches of one ledger as one.

    Attributes
    ----------
    starts : the first row of each batch in it.
    places : where each of them stood among all batches; what it causes is published in that order.
    """

    batch: Observations
    starts: list[int]
    places: list[int]

    def place(self, row: int) -> int:
        """Where the batch stood that a row came in."""
        return self.places[bisect_right(self.starts, row) - 1]


def gather(batches: Iterable[Observations]) -> Iterator[Gathered]:
    """The same rows in fewer batches, in their order within each ledger: a model's predictions, or its outcomes at one age.

    Ledgers know nothing of each other, so that predictions and outcomes that alternate, and models that share a
    partition, are worked on in large pieces too. Only batches with equal columns are joined; what has no rows (a tick)
    keeps its place in its ledger. `source` must already index one table.
    """
    held: dict[Ledger, list[tuple[int, Observations]]] = {}
    cells = 0
    for place, batch in enumerate(batches):
        ledger = (batch.model, "predictions" if batch.kind == "tick" else batch.kind, batch.age_ms)
        own = held.get(ledger)
        if own and (not len(batch) or _shape(batch) != _shape(own[0][1])):
            yield _joined(held.pop(ledger))
            own = None
        if not len(batch):
            yield Gathered(batch, [0], [place])
            continue
        if own is None:
            own = held[ledger] = []
        own.append((place, batch))
        cells += len(batch) * (len(batch.numeric_names) + len(batch.categorical) + len(batch.segments) + _wide(batch) + _OTHER_COLUMNS)
        if cells >= CELLS_MAX:
            yield from map(_joined, held.values())
            held, cells = {}, 0
    yield from map(_joined, held.values())


def _wide(batch: Observations) -> int:
    return sum(vector.shape[1] for vector in batch.vectors.values())


def _shape(batch: Observations) -> tuple[object, ...]:
    """What must be equal for two batches to be one; a batch without rows is equal to none."""
    if not len(batch):
        return (id(batch),)
    columns = tuple(name for name in (*_ARRAYS, *_TEXTS) if getattr(batch, name) is not None)
    widths = tuple((name, vector.shape[1]) for name, vector in batch.vectors.items())
    about = (batch.kind, batch.model, batch.age_ms, batch.generation)
    return (*about, columns, tuple(batch.numeric_names), tuple(batch.categorical), tuple(batch.segments), widths)


def _joined(placed: Sequence[tuple[int, Observations]]) -> Gathered:
    held = [batch for _, batch in placed]
    starts = list(accumulate(map(len, held), initial=0))[:-1]
    return Gathered(held[0] if len(held) == 1 else _concatenated(held), starts, [place for place, _ in placed])


def _concatenated(held: Sequence[Observations]) -> Observations:
    first = held[0]
    out = Observations(first.kind, first.model, first.task, held[-1].seq, first.sources, first.tick_ms, first.age_ms)
    out.numeric_names, out.generation = first.numeric_names, first.generation
    for name in _ARRAYS:
        if getattr(first, name) is not None:
            setattr(out, name, np.concatenate([getattr(batch, name) for batch in held]))
    for name in _TEXTS:
        if getattr(first, name) is not None:
            setattr(out, name, several([getattr(batch, name) for batch in held]))
    out.categorical = {name: several([batch.categorical[name] for batch in held]) for name in first.categorical}
    out.vectors = {name: np.concatenate([batch.vectors[name] for batch in held]) for name in first.vectors}
    out.segments = {key: several([batch.segments[key] for batch in held]) for key in first.segments}
    out.invalid = _invalid(held)
    return out


def _invalid(held: Sequence[Observations]) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]] | None:
    parts = []
    start = 0
    for batch in held:
        if batch.invalid is not None and len(batch.invalid):
            parts.append(batch.invalid + np.array([start, 0], np.int32))
        start += len(batch)
    return np.concatenate(parts) if parts else None


def in_order(placed: Iterable[Placed]) -> list[Output]:
    """What rows, or batches, caused, in their order."""
    return [output for _, output in sorted(placed, key=placing)]


def placing(item: Placed) -> int:
    """The key of an order by place."""
    return item[0]
