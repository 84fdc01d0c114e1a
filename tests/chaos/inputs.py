"""The stream that every run is fed: seeded, endless, and with all the trouble real streams have in it.

A seed gives the same records in the same partitions in the same order; how fast they are sent is the feeder's doing.
The features and scores of every model move there and back all the time, so that windows of 30 rows raise drift events
by the dozen a second: a transaction that is cut off should hold one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import orjson

Stream = Literal["predictions", "labels"]

PARTITIONS: Final = 3
AGE_MS: Final = 1_500
"""At which outcomes are formed."""

MODELS: Final[tuple[tuple[str, str], ...]] = (("cards", "binary"), ("ads", "binary"), ("churn", "binary"), ("bids", "regression"))
"""Names that the partitioner spreads over three partitions of observations: 0, 1, 2 and 1."""

# Shares of all predictions; none may be below one in twenty.
DUPLICATES: Final = 0.07
NEVER_LABELLED: Final = 0.09
LABEL_FIRST: Final = 0.08
CONTRADICTED: Final = 0.08
REPEATED_LABELS: Final = 0.06
POISON: Final = 0.01
_LEAST_SHARE: Final = 0.05

_REGIME_ROWS: Final = 80
"""Rows of one model between two changes of everything: two windows and more, time to open an episode and to end it."""
FEATURES: Final = ("amount", "speed", "distance", "velocity", "tenure", "risk")
"""All numeric; beside them a category."""
_LABEL_DELAY_MS: Final = 350.0
_LARGE: Final = 5 << 20
_CARDS: Final = 500
"""Few enough that one in several rows is of a card that came within a second: such rows are in no series of a model with a unit."""
_COUNTRIES: Final = ("BR", "MX", "US")

# Refused by any reader of the contract, whoever wrote it.
_BAD_PREDICTIONS: Final = (
    b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"model": "cards", "score": 0.5}', b'{"id": "no-model", "score": 0.5}',
    b'{"id": {"a": 1}, "model": "cards"}', b'"text"', b"{" * 2_000,
)  # fmt: skip
_BAD_LABELS: Final = (b"", b"{", b"[]", b'{"label": 1}', b'{"id": "no-label"}', b'{"id": "x", "label": [1]}', b"\x00\x01")


@dataclass(frozen=True, slots=True)
class Input:
    """One source record.

    Attributes
    ----------
    at_ms : when it is sent, from the stream's start.
    good : False for what must end as a dead letter.
    case : what it is there for.
    """

    at_ms: int
    stream: Stream
    partition: int
    value: bytes
    good: bool
    case: str


class InputStream:
    """An endless stream of inputs in the order in which they are sent.

    Parameters
    ----------
    rate : predictions a second.
    poison : share of predictions with which a bad record comes, and a bad label.

    Attributes
    ----------
    cases : how many of each case were handed out.
    """

    def __init__(self, seed: int, rate: float, poison: float = POISON) -> None:
        self._seed = seed
        self._draw = np.random.default_rng([seed, 4])
        # Bursts come from other threads, and must not change what the stream draws.
        self._burst_draw = np.random.default_rng([seed, 5])
        self._rate = rate
        self._poison = poison
        self._rows = [0] * len(MODELS)
        self.cases: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Input]:
        pending: list[tuple[int, int, Input]] = []
        order = 0
        number = 0
        while True:
            at_ms = round(number * 1000 / self._rate)
            while pending and pending[0][0] <= at_ms:
                yield self._counted(heapq.heappop(pending)[2])
            for record in self._of_prediction(number, at_ms):
                order += 1
                heapq.heappush(pending, (record.at_ms, order, record))
            number += 1

    def burst(self, count: int, at_ms: int) -> Iterator[Input]:
        """Bad records of every kind, all at once."""
        for i in range(count):
            stream: Stream = "labels" if i % 4 == 3 else "predictions"
            yield self._counted(self._bad(at_ms, stream, self._burst_draw))

    def large(self, at_ms: int) -> Iterator[Input]:
        """A prediction and a bad record of 5 MB each; they compress well."""
        identity = f"{self._seed}-large-{at_ms}"
        features = dict.fromkeys(FEATURES, 1.0) | {"country": "BR"}
        event = {"id": identity, "model": "cards", "version": "1", "features": features, "score": 0.5, "latency_ms": 1.0}
        event["note"] = "x" * _LARGE
        yield self._counted(Input(at_ms, "predictions", 0, orjson.dumps(event), True, "large_prediction"))
        yield self._counted(Input(at_ms, "predictions", 1, b"{" + b" " * _LARGE, False, "large_poison"))

    def shares(self) -> dict[str, float]:
        """The share of predictions that each case has had so far."""
        return {case: n / max(1, self.cases["prediction"]) for case, n in sorted(self.cases.items())}

    def _counted(self, record: Input) -> Input:
        self.cases[record.case] += 1
        return record

    def _of_prediction(self, number: int, at_ms: int) -> Iterator[Input]:
        """A prediction, with what belongs to it; none of it is earlier than half a second before."""
        draw = self._draw
        # Half a second is left for labels that come first.
        own_ms = at_ms + 500
        model = int(draw.integers(len(MODELS)))
        identity = f"{self._seed}-{number}"
        value, truth = self._prediction(model, identity)
        yield self._record(own_ms, "predictions", value, "prediction")
        if draw.random() < DUPLICATES:
            again, _ = self._prediction(model, identity)
            yield self._record(own_ms + int(draw.integers(1, 600)), "predictions", again, "duplicate_prediction")
        if draw.random() < self._poison:
            yield self._bad(own_ms, "predictions", draw)
            yield self._bad(own_ms, "labels", draw)
        yield from self._labels(identity, truth, own_ms)

    def _labels(self, identity: str, truth: float, own_ms: int) -> Iterator[Input]:
        draw = self._draw
        if draw.random() < NEVER_LABELLED:
            self.cases["never_labelled"] += 1
            return
        first = draw.random() < LABEL_FIRST / (1 - NEVER_LABELLED)
        delay_ms = -int(draw.integers(20, 500)) if first else int(draw.exponential(_LABEL_DELAY_MS))
        label = orjson.dumps({"id": identity, "label": truth})
        case = "label_first" if first else "label_late" if delay_ms > AGE_MS else "label"
        yield self._record(own_ms + delay_ms, "labels", label, case)
        after_ms = max(own_ms, own_ms + delay_ms) + int(draw.integers(1, 400))
        if draw.random() < CONTRADICTED / (1 - NEVER_LABELLED):
            yield self._record(after_ms, "labels", orjson.dumps({"id": identity, "label": truth + 1 if truth != 1 else 0}), "contradiction")
        if draw.random() < REPEATED_LABELS / (1 - NEVER_LABELLED):
            yield self._record(after_ms, "labels", label, "repeated_label")

    def _prediction(self, model: int, identity: str) -> tuple[bytes, float]:
        """One prediction and its true label, in the regime that the model is in."""
        draw = self._draw
        name, task = MODELS[model]
        row, self._rows[model] = self._rows[model], self._rows[model] + 1
        moved = (row // _REGIME_ROWS) % 2 == 1
        numbers = np.round(draw.normal(2.5 if moved else 0.0, 1.0, len(FEATURES)), 6).tolist()
        latency_ms = draw.exponential(40.0 if moved else 10.0)
        score = float(draw.beta(6, 2) if moved else draw.beta(2, 6))
        country = _COUNTRIES[int(draw.integers(3))]
        if task == "regression":
            truth = score + float(draw.normal(0.8 if moved else 0.0, 0.3))
        else:
            truth = float(draw.random() < (1 - score if moved else score))
        features: dict[str, Any] = dict(zip(FEATURES, numbers, strict=True)) | {"country": country}
        if draw.random() < (0.3 if moved else 0.02):
            features[FEATURES[0]] = None
        scored = {"score": round(score, 9), "latency_ms": round(float(latency_ms), 3)}
        card = f"card-{draw.integers(_CARDS)}"
        event = {"id": identity, "model": name, "version": "1", "card": card, "features": features, **scored}
        return orjson.dumps(event), round(truth, 6)

    def _bad(self, at_ms: int, stream: Stream, draw: np.random.Generator) -> Input:
        choices = _BAD_PREDICTIONS if stream == "predictions" else _BAD_LABELS
        value = choices[int(draw.integers(len(choices)))]
        return Input(at_ms, stream, int(draw.integers(PARTITIONS)), value, False, f"poison_{stream}")

    def _record(self, at_ms: int, stream: Stream, value: bytes, case: str) -> Input:
        return Input(at_ms, stream, int(self._draw.integers(PARTITIONS)), value, True, case)


def missing_cases(shares: dict[str, float]) -> list[str]:
    """The cases of which the stream had less than its share."""
    wanted = ("duplicate_prediction", "label_first", "contradiction", "never_labelled")
    return [case for case in wanted if shares.get(case, 0.0) < _LEAST_SHARE]
