"""Drift events as detect would send them, in transactions: lives of alerts, duplicates, poison, and what is taken back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from driftline.schemas.contracts import cloud_event_headers, encode_event
from driftline.schemas.events import DriftEvent, Effect, Position, Severity

MODELS: Final = ("fraud", "ads", "churn", "bids", "credit", "ranking", "search", "pricing", "abuse")
"""Keys of the drift topic; over three partitions each gets some."""
SERIES: Final = ("feature:amount", "feature:age", "score", "quality:amount:invalid")
_SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")
_TRANSACTION_EVENTS: Final = (1, 8)
_ABORTED, _REPEATED, _POISON, _NOTES, _RECOVERIES = 0.12, 0.08, 0.04, 0.03, 0.25


@dataclass(frozen=True, slots=True)
class Sent:
    """One record of the drift topic."""

    key: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction of detect; an aborted one must leave no trace."""

    records: tuple[Sent, ...]
    aborted: bool


@dataclass(slots=True)
class _Life:
    episodes: list[str] = field(default_factory=list)


class DriftStream:
    """An endless stream; the same seed, the same events."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._lives: dict[tuple[str, str], _Life] = {}
        self._number = 0
        self._last: dict[str, Sent] = {}

    def __iter__(self) -> Iterator[Batch]:
        while True:
            aborted = self._draw.random() < _ABORTED
            many = self._draw.randint(*_TRANSACTION_EVENTS)
            yield Batch(tuple(self._lie() if aborted else self._next() for _ in range(many)), aborted)

    def _next(self) -> Sent:
        model, chance = self._draw.choice(MODELS), self._draw.random()
        if chance < _REPEATED and model in self._last:
            return self._last[model]
        if chance < _REPEATED + _POISON:
            self._number += 1
            return Sent(model, b"{poison %d" % self._number)
        if chance < _REPEATED + _POISON + _NOTES:
            return self._sent(self._event(model, "stream", kind="version_seen", episode="none", reason="2"))
        self._last[model] = sent = self._sent(self._living(model, self._draw.choice(SERIES)))
        return sent

    def _living(self, model: str, series: str) -> DriftEvent:
        """What happens next to a series: an episode opens, a second one beside it, evidence comes, an episode ends."""
        life = self._lives.setdefault((model, series), _Life())
        if life.episodes and self._draw.random() < _RECOVERIES:
            return self._event(model, series, kind="recovery", episode=life.episodes.pop(0), reason="back_in_band")
        if not life.episodes or (len(life.episodes) == 1 and self._draw.random() < 0.1):
            life.episodes.append(f"{model}-{series}-{self._number}")
            return self._event(model, series, kind="drift", episode=life.episodes[-1])
        return self._event(model, series, kind="evidence", episode=self._draw.choice(life.episodes))

    def _lie(self) -> Sent:
        """What a reader of uncommitted records would believe: an alert that never was, or the end of one that goes on."""
        model, series = self._draw.choice(MODELS), self._draw.choice(SERIES)
        life = self._lives.get((model, series))
        if life is not None and life.episodes:
            return self._sent(self._event(model, series, kind="recovery", episode=life.episodes[0], reason="aborted"))
        return self._sent(self._event(model, f"{series}:aborted", kind="drift", episode=f"aborted-{self._number}"))

    def _event(self, model: str, series: str, **fields: Any) -> DriftEvent:
        self._number += 1
        size = round(self._draw.uniform(0.05, 0.9), 3)
        given: dict[str, Any] = {
            "version": "1", "environment": "chaos", "monitor": "all", "segment": None, "detector": "psi", "statistic": size,
            "threshold": 0.1, "value": size * 40, "baseline_value": 10.0, "effect": Effect("psi", size), "direction": "up", "n": 500,
            "severity": self._draw.choice(_SEVERITIES), "window": 5_000, "baseline": "b1", "since": None, "bins": [],
            "time_ms": 1_000 * self._number, "record_time_ms": 1_000 * self._number + 5,
        }  # fmt: skip
        position = Position("predictions", 0, self._number)
        return DriftEvent(id=f"e{self._number}", model=model, series=series, position=position, **given | fields)

    def _sent(self, event: DriftEvent) -> Sent:
        headers = cloud_event_headers(event, id=event.id, source="/driftline/chaos", subject=event.model, time_ms=event.time_ms)
        return Sent(event.model, encode_event(event), tuple(headers))
