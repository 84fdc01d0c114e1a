"""The port for counting; the wiring maps each name to the metric ``driftline_<name>_total``.

Names used by ingest: ``records`` (stream, outcome), ``dead_letters`` (stage, reason), ``invalid_values`` (model),
``time_replaced`` (model), ``features_dropped`` (model),
``classes_dropped`` (model). By join: ``label_join`` (model, case). Counts are added once a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol


class Counters(Protocol):
    """Where tasks count what they did."""

    def increment(self, name: str, labels: Mapping[str, str], n: int = 1) -> None: ...


class MemoryCounters:
    """Counts in a dictionary, for tests and replay."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def increment(self, name: str, labels: Mapping[str, str], n: int = 1) -> None:
        self.counts[name, tuple(sorted(labels.items()))] += n

    def value(self, name: str, **labels: str) -> int:
        """The sum over all label sets that hold `labels`."""
        wanted = set(labels.items())
        return sum(n for (counted, held), n in self.counts.items() if counted == name and wanted <= set(held))
