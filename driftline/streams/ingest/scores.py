"""Score, class, confidence and entropy of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from driftline.streams.ingest.names import LearnedNames
from driftline.streams.ingest.plan import RowPlan
from driftline.streams.ingest.values import number, numbers, short, texts
from driftline.streams.observation import Coded

Float64 = npt.NDArray[np.float64]


@dataclass(slots=True)
class Scores:
    """A column that no row has is None.

    `dropped` : probabilities of classes that are no columns, as the model has too many.
    """

    score: Float64 | None = None
    class_: Coded | None = None
    confidence: Float64 | None = None
    entropy: Float64 | None = None
    classes: list[str] = field(default_factory=list)
    probabilities: Float64 | None = None
    dropped: int = 0


def read_scores(plan: RowPlan, scores: list[Any] | None, classes: list[Any] | None, learned: LearnedNames) -> Scores:
    """The columns of scores as decoded; a multi-class score may be one number, a map by class, or a list.

    Parameters
    ----------
    learned : the classes that are columns. Confidence, entropy and the most probable class are of all that was sent.
    """
    out = Scores()
    if scores is not None and plan.model.task == "multiclass":
        classes = _read_vectors(plan, scores, classes, out, learned)
    elif scores is not None:
        out.score = numbers([_spelled(v) for v in scores] if str in set(map(type, scores)) else scores)
    if classes is not None and classes.count(None) < len(classes):
        out.class_ = texts(classes)
    return out


def _read_vectors(plan: RowPlan, scores: list[Any], classes: list[Any] | None, out: Scores, learned: LearnedNames) -> list[Any] | None:
    """Fill in what score vectors say; returns the classes, with the most probable one where a row states none."""
    vectors = [_vector(v, plan.model.classes) for v in scores]
    confidence = [max(v.values(), default=math.nan) if v else _scalar(s) for v, s in zip(vectors, scores, strict=True)]
    out.confidence = np.array(confidence, np.float64)
    if not any(vectors):
        return classes
    kept = learned.admit(vectors)
    if kept is not vectors:
        out.dropped = sum(map(len, vectors)) - sum(map(len, kept))
    _from_vectors(kept, plan.model.classes, out)
    out.entropy = np.array([_entropy(v) for v in vectors], np.float64)
    stated = classes if classes is not None else [None] * len(scores)
    return [max(v, key=v.__getitem__) if c is None and v else c for c, v in zip(stated, vectors, strict=True)]


def _vector(value: Any, names: list[str] | None) -> dict[str, float]:
    """Finite probabilities by class; empty when the score is no vector. A list without configured names is numbered."""
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = list(zip(names if names is not None else map(str, range(len(value))), value, strict=False))
    else:
        return {}
    return {short(name): p for name, raw in pairs if (p := number(raw)) is not None and math.isfinite(p)}


def _from_vectors(vectors: list[dict[str, float]], names: list[str] | None, out: Scores) -> None:
    """Classes the configuration does not name follow, sorted, so that the order does not depend on the batch's first row."""
    known = list(names or ())
    out.classes = known + sorted({name for v in vectors for name in v} - set(known))
    out.probabilities = np.array([[v.get(name, math.nan) for name in out.classes] for v in vectors], np.float64)


def _entropy(vector: dict[str, float]) -> float:
    """In nats. `math.log` and not NumPy's, whose vectorised form gives other last bits on other processors."""
    if not vector:
        return math.nan
    return -sum(p * math.log(p) for p in vector.values() if p > 0)


def _scalar(value: Any) -> float:
    found = number(_spelled(value))
    return math.nan if found is None else found


def _spelled(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return None
