"""The port for counting and measuring; the wiring maps each name to a metric of `metrics.py`.

Counters (``driftline_<name>_total``). Ingest: ``records`` (stream, outcome), ``dead_letters`` (stage, reason),
``invalid_values``, ``time_replaced``, ``features_dropped``, ``classes_dropped``, ``unit_missing`` (model). Join: ``label_join`` (model,
case). Detect: ``versions_shared``, ``rows_unwatched``, ``rows_behind`` (model), ``drift_events`` (monitor, model, kind,
severity).

Gauges (``driftline_<name>``). Join: ``waiting_labels`` (stream, partition). Detect: ``subjects_monitored``,
``subjects_drifted``, ``subjects_suspended`` (model); ``score``, ``threshold``, ``effect_size`` (monitor, model, subject, segment).

Histograms (``driftline_<name>_seconds``). Join: ``label_delay`` (model). Detect: ``detection_delay`` (kind).

Tasks measure once a batch. What an aborted commit had counted is counted again with the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

Labels = Mapping[str, str]
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Counters(Protocol):
    """Where tasks count what they did."""

    def increment(self, name: str, labels: Labels, n: int = 1) -> None:
        """Add to a counter."""

    def set(self, name: str, labels: Labels, value: float) -> None:
        """Set a gauge."""

    def forget(self, name: str, labels: Labels) -> None:
        """A gauge is another worker's to set from now on."""

    def observe(self, name: str, labels: Labels, seconds: npt.NDArray[np.float64]) -> None:
        """Add values to a histogram."""

    def since(self, name: str, labels: Labels, time_ms: int) -> None:
        """Add the seconds from a Unix time to now to a histogram: whoever counts has a clock, tasks have none."""


class MemoryCounters:
    """Counts in dictionaries, for tests and replay."""

    def __init__(self) -> None:
        self.counts: Counter[_Key] = Counter()
        self.gauges: dict[_Key, float] = {}
        self.observed: Counter[_Key] = Counter()

    def increment(self, name: str, labels: Labels, n: int = 1) -> None:
        self.counts[_key(name, labels)] += n

    def set(self, name: str, labels: Labels, value: float) -> None:
        self.gauges[_key(name, labels)] = value

    def forget(self, name: str, labels: Labels) -> None:
        self.gauges.pop(_key(name, labels), None)

    def observe(self, name: str, labels: Labels, seconds: npt.NDArray[np.float64]) -> None:
        self.observed[_key(name, labels)] += len(seconds)

    def since(self, name: str, labels: Labels, time_ms: int) -> None:  # noqa: ARG002 - without a clock
        self.observed[_key(name, labels)] += 1

    def unset(self, name: str, label: str) -> list[str]:
        """The values of a label whose gauges are all 0."""
        held: dict[str, float] = {}
        for (gauge, labels), value in self.gauges.items():
            if gauge == name and (own := dict(labels).get(label)) is not None:
                held[own] = held.get(own, 0.0) + abs(value)
        return sorted(own for own, total in held.items() if not total)

    def value(self, name: str, **labels: str) -> int:
        """The sum of a counter over all label sets that hold `labels`."""
        wanted = set(labels.items())
        return sum(n for (counted, held), n in self.counts.items() if counted == name and wanted <= set(held))


def _key(name: str, labels: Labels) -> _Key:
    return name, tuple(sorted(labels.items()))
