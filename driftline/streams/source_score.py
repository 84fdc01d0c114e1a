"""A small model for files that have labels but no score: ridge logistic regression on the first rows.

It is there so that a stream of features and labels can be tried as a user with a model would; it is no advice on models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from driftline.streams.source_file import RowBatch, SourceFileError, column_type, numbers

Float64 = npt.NDArray[np.float64]

_RIDGE: Final = 1.0
_CATEGORIES_MAX: Final = 10
_STEPS: Final = 25
_CLIP: Final = 5.0  # standard deviations: a linear model must not run away on values its training rows never had


@dataclass(frozen=True, slots=True)
class ScoreFrom:
    """``logistic:LABEL:ROWS``: fit to the label on the first `rows` rows, score the rest."""

    label: str
    rows: int


def parse_score_from(text: str) -> ScoreFrom:
    """Raises ValueError, naming the form, when `text` is not ``logistic:LABEL:ROWS``."""
    parts = text.split(":")
    if len(parts) != 3 or parts[0] != "logistic" or not parts[1] or not parts[2].isdigit() or int(parts[2]) < 10:
        raise ValueError(f'"{text}": expected logistic:LABEL_COLUMN:ROWS with at least 10 rows, e.g. logistic:y:5000')
    return ScoreFrom(parts[1], int(parts[2]))


class Logistic:
    """Probability of the larger of two labels from standardised numbers and the commonest categories.

    Scores are rounded to six decimals, so that the last bits of a linear algebra library do not reach a topic.
    """

    def __init__(self, features: tuple[str, ...]) -> None:
        self._features = features
        self._means: dict[str, tuple[float, float]] = {}
        self._categories: dict[str, list[str]] = {}
        self._weights: Float64 = np.empty(0)

    def fit(self, batches: list[RowBatch], label: str) -> None:
        """Fit on all rows whose label is known.

        Raises
        ------
        SourceFileError : there is no such label, or it does not have exactly two values in these rows.
        """
        if label not in batches[0].columns:
            raise SourceFileError(f'no column "{label}"; the file has {", ".join(sorted(batches[0].columns))}')
        labels = [value for batch in batches for value in batch.columns[label].to_pylist()]
        kinds = sorted({value for value in labels if value is not None}, key=lambda value: (str(type(value)), value))
        if len(kinds) != 2:
            shown = ", ".join(str(kind) for kind in kinds[:5])
            raise SourceFileError(f'column "{label}": a score needs two labels in the training rows, found {len(kinds)}: {shown}')
        for name in self._features:
            self._learn(name, batches)
        known = np.array([value is not None for value in labels])
        target = np.array([value == kinds[1] for value in labels], np.float64)[known]
        self._weights = _ridge_logistic(np.concatenate([self._matrix(batch) for batch in batches])[known], target)

    def score(self, batch: RowBatch) -> Float64:
        """Probabilities, shape (rows,)."""
        z = np.clip(self._matrix(batch) @ self._weights, -30, 30)
        return np.round(1 / (1 + np.exp(-z)), 6)

    def _learn(self, name: str, batches: list[RowBatch]) -> None:
        columns = [batch.columns[name] for batch in batches]
        if column_type(columns[0]) in ("int", "float"):
            values = np.concatenate([numbers(column) for column in columns])
            values = values[np.isfinite(values)]
            spread = float(values.std()) if len(values) else 0.0
            self._means[name] = (float(values.mean()) if len(values) else 0.0, spread if spread > 0 else 1.0)
            return
        counts: dict[str, int] = {}
        for column in columns:
            for value in column.to_pylist():
                counts[_text(value)] = counts.get(_text(value), 0) + 1
        self._categories[name] = sorted(counts, key=lambda value: (-counts[value], value))[:_CATEGORIES_MAX]

    def _matrix(self, batch: RowBatch) -> Float64:
        parts: list[Float64] = [np.ones((batch.rows, 1))]
        for name, (mean, spread) in self._means.items():
            z = (numbers(batch.columns[name]) - mean) / spread
            parts.append(np.nan_to_num(np.clip(z, -_CLIP, _CLIP), nan=0.0)[:, None])
        for name, categories in self._categories.items():
            place = {value: i for i, value in enumerate(categories)}
            codes = np.array([place.get(_text(value), -1) for value in batch.columns[name].to_pylist()])
            parts.append((codes[:, None] == np.arange(len(categories))).astype(np.float64))
        return np.concatenate(parts, axis=1)


def _ridge_logistic(x: Float64, y: Float64) -> Float64:
    """Newton's method on the penalised log likelihood; the intercept (column 0) is not penalised."""
    penalty = np.full(x.shape[1], _RIDGE)
    penalty[0] = 1e-9
    w = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (y - p) - penalty * w
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        w = w + step
        if np.abs(step).max() < 1e-10:
            break
    return w


def _text(value: Any) -> str:
    return "" if value is None else str(value)
