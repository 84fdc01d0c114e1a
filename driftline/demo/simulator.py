"""A fraud stream with known changes: predictions, late labels, and the truth about what was changed when.

The simulator shares nothing with the detectors but Kafka. Its clock is its own: record `i` happens `i / rate`
seconds after the start, so a seed gives the same stream on any machine, however slowly it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

MODEL: Final = "fraud"
COUNTRIES: Final = ("BR", "MX", "US")
COUNTRY_SHARES: Final = (0.3, 0.3, 0.4)
CHANNELS: Final = ("web", "app", "phone")
NULL_RATE: Final = 0.01
LABEL_DELAY_S: Final = 0.6
"""Mean of the exponential delay; one label in 150 is later than the 3 s at which outcomes are formed."""
CHUNK: Final = 500

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """An injected change: rows `start` to `stop` of the predictions are affected.

    Attributes
    ----------
    series : prefixes of the series that truly change.
    segment : the only segment affected, or None for all of them.
    """

    name: str
    start: int
    stop: int
    series: tuple[str, ...]
    segment: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """A record to publish: `labels` or predictions, at `time_ms`."""

    label: bool
    key: str
    value: bytes
    time_ms: int


def changes(rows: int) -> tuple[Change, ...]:
    """The three changes of a stream of `rows` predictions; each is taken back so that recovery shows."""
    at = [round(rows * share) for share in (0.28, 0.43, 0.48, 0.62, 0.66, 0.80)]
    return (
        Change("feature_shift", at[0], at[1], ("feature:amount", "quality:amount"), "BR", "amount grows by 80 % in BR"),
        Change("concept", at[2], at[3], ("outcome:",), None, "fraud moves to transactions the model scores low"),
        Change("nulls", at[4], at[5], ("feature:merchant_risk", "quality:merchant_risk"), None, "merchant_risk is null in 20 % of rows"),
    )


class FraudStream:
    """A reproducible stream.

    Parameters
    ----------
    rate : predictions per second of the stream's own time.
    changed : False for a stream without changes (a null stream).
    """

    def __init__(self, *, seed: int, rows: int, rate: float, start_ms: int, changed: bool = True) -> None:
        self.changes = changes(rows) if changed else ()
        self._generator = np.random.default_rng([20_261_101, seed])
        self._rows = rows
        self._rate = rate
        self._start_ms = start_ms

    def messages(self) -> Iterator[list[Message]]:
        """Chunks of predictions and of the labels that are due by then, in order of time."""
        pending: list[Message] = []
        for first in range(0, self._rows, CHUNK):
            count = min(CHUNK, self._rows - first)
            predictions, labels = self._chunk(first, count)
            pending += labels
            now_ms = predictions[-1].time_ms
            due = [m for m in pending if m.time_ms <= now_ms]
            pending = [m for m in pending if m.time_ms > now_ms]
            yield sorted([*predictions, *due], key=lambda m: m.time_ms)
        yield sorted(pending, key=lambda m: m.time_ms)

    def _active(self, name: str, index: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        for change in self.changes:
            if change.name == name:
                return (index >= change.start) & (index < change.stop)
        return np.zeros(len(index), np.bool_)

    def _chunk(self, first: int, count: int) -> tuple[list[Message], list[Message]]:
        draw = self._generator
        index = np.arange(first, first + count)
        country = draw.choice(len(COUNTRIES), count, p=COUNTRY_SHARES)
        amount = draw.lognormal(3.5 + 0.2 * country, 0.8)
        amount[self._active("feature_shift", index) & (country == 0)] *= 1.8
        risk = draw.beta(2, 8, count)
        risk_null = draw.random(count) < np.where(self._active("nulls", index), 0.20, NULL_RATE)
        columns = {
            "amount": amount,
            "merchant_risk": risk,
            "account_age_days": draw.exponential(400, count),
            "velocity_1h": draw.poisson(1.5, count).astype(np.float64),
            "distance_km": draw.lognormal(1.0, 1.2, count),
            "hour": draw.integers(0, 24, count).astype(np.float64),
        }
        channel = draw.choice(len(CHANNELS), count, p=(0.5, 0.4, 0.1))
        # The score does not depend on `amount`: what changes there is the feature alone, so the truth is known.
        score = draw.beta(0.6, 5.4, count)
        truth = np.where(self._active("concept", index), draw.beta(1.2, 5.4, count)[::-1], score)
        label = draw.random(count) < truth
        delay = draw.exponential(LABEL_DELAY_S, count)
        latency = draw.gamma(4.0, 3.0, count)
        time_ms = self._start_ms + (index * (1000 / self._rate)).astype(np.int64)
        predictions, labels = [], []
        for i in range(count):
            key = f"tx-{first + i:08d}"
            features: dict[str, float | str | None] = {name: round(float(column[i]), 4) for name, column in columns.items()}
            features["merchant_risk"] = None if risk_null[i] else features["merchant_risk"]
            features["channel"] = CHANNELS[channel[i]]
            features["country"] = COUNTRIES[country[i]]
            now = int(time_ms[i])
            event = {
                "id": key, "time": now, "model": MODEL, "version": "3.4.1", "features": features,
                "score": round(float(score[i]), 5), "latency_ms": round(float(latency[i]), 2),
            }  # fmt: skip
            predictions.append(Message(False, key, orjson.dumps(event), now))
            due = now + int(delay[i] * 1000)
            labels.append(Message(True, key, orjson.dumps({"id": key, "time": due, "label": int(label[i])}), due))
        return predictions, labels
