"""What the series are made of: losses against scikit-free arithmetic, and what does not count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftline.detectors.spec import PanelRows
from driftline.schemas.config import Model
from driftline.streams.detect.rows import binary_log_loss, feature_rows, outcome_rows, score_rows, take
from driftline.streams.observation import IMPLICIT, LABELLED, UNLABELLED, Observations, code


def batch(n: int, **columns: object) -> Observations:
    positions = {"offset": np.arange(n), "source": np.zeros(n, np.uint16), "time_ms": np.arange(n), "record_ms": np.arange(n)}
    return Observations("outcomes", "m", "t", 1, [("p", 0)], **positions, **columns)  # type: ignore[arg-type]


def column(rows: PanelRows, name: str) -> list[float]:
    values: list[float] = rows.numeric[:, list(rows.numeric_names).index(name)].tolist()
    return values


def test_log_loss_is_minus_the_log_of_the_probability_given_to_the_truth() -> None:
    losses = binary_log_loss(np.array([0.9, 0.9, 0.5]), np.array([1.0, 0.0, 1.0]))
    assert losses.tolist() == pytest.approx([-math.log(0.9), -math.log(0.1), math.log(2)])


def test_log_loss_is_clipped_so_that_one_confident_mistake_is_finite() -> None:
    losses = binary_log_loss(np.array([0.0, 1.0, np.nan]), np.array([1.0, 0.0, 1.0]))
    assert losses[:2].tolist() == pytest.approx([-math.log(1e-6)] * 2)
    assert math.isnan(losses[2])


def test_a_miss_counts_among_positives_only_and_a_false_alarm_among_flagged_only() -> None:
    observed = batch(
        4,
        score=np.array([0.9, 0.2, 0.9, 0.2]),
        label=np.array([1.0, 1.0, 0.0, 0.0]),
        label_state=np.array([LABELLED] * 4, np.int8),
    )
    rows = outcome_rows(observed, Model(), [])
    assert column(rows, "outcome:miss")[:2] == [0.0, 1.0]
    assert rows.not_applicable["outcome:miss"].tolist() == [False, False, True, True]
    assert column(rows, "outcome:false_alarm")[::2] == [0.0, 1.0]
    assert rows.not_applicable["outcome:false_alarm"].tolist() == [False, True, False, True]


def test_unlabelled_rows_have_no_loss_and_implicit_negatives_have_one_but_no_label() -> None:
    observed = batch(
        3,
        score=np.array([0.4, 0.4, 0.4]),
        label=np.array([1.0, 0.0, np.nan]),
        label_state=np.array([LABELLED, IMPLICIT, UNLABELLED], np.int8),
    )
    rows = outcome_rows(observed, Model(), [])
    assert rows.not_applicable["outcome:log_loss"].tolist() == [False, False, True]
    assert column(rows, "stream:labelled") == [1.0, 0.0, 0.0]


def test_regression_outcomes_are_signed_and_absolute_errors() -> None:
    observed = batch(2, score=np.array([3.0, 1.0]), label=np.array([1.0, 4.0]), label_state=np.array([0, 0], np.int8))
    rows = outcome_rows(observed, Model(task="regression"), [])
    assert column(rows, "outcome:error") == [-2.0, 3.0]
    assert column(rows, "outcome:absolute_error") == [2.0, 3.0]


def test_multiclass_answers_are_compared_by_name_not_by_code() -> None:
    observed = batch(
        3,
        class_=code(["cat", "dog", "dog"]),
        label_class=code(["dog", "dog", None]),
        label_probability=np.array([0.1, 0.8, np.nan]),
        label_state=np.array([0, 0, 0], np.int8),
    )
    rows = outcome_rows(observed, Model(task="multiclass"), [])
    assert column(rows, "outcome:wrong")[:2] == [1.0, 0.0]
    assert rows.not_applicable["outcome:wrong"].tolist() == [False, False, True]


def test_the_decision_is_the_share_of_scores_from_the_threshold_on() -> None:
    rows = score_rows(batch(3, score=np.array([0.5, 0.49, np.nan])), Model(decision=0.5), [])
    assert column(rows, "decision")[:2] == [1.0, 0.0]
    assert rows.not_applicable["decision"].tolist() == [False, False, True]


def test_an_invalid_categorical_value_keeps_its_index_beside_our_own_column() -> None:
    observed = batch(
        2,
        numeric_names=["a"],
        numeric=np.array([[1.0], [2.0]]),
        categorical={"c": code(["x", None])},
        invalid=np.array([[1, 1]], np.int32),
    )
    rows = feature_rows(observed, [])
    assert list(rows.numeric_names) == ["a", "stream:invalid"]
    assert rows.invalid is not None
    assert rows.invalid.tolist() == [[1, 2]]
    assert column(rows, "stream:invalid") == [0.0, 1.0]


def test_a_vector_of_another_length_than_declared_is_invalid_where_there_is_one() -> None:
    vector = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]], np.float32)
    observed = batch(
        3, numeric_names=["a"], numeric=np.zeros((3, 1)), categorical={"c": code(["x", None, "x"])}, vectors={"v": vector, "w": vector},
        invalid=np.array([[1, 1]], np.int32),
    )  # fmt: skip
    rows = feature_rows(observed, [], {"v": 3, "w": 2})
    assert list(rows.numeric_names) == ["a", "v", "w", "stream:invalid"]
    assert rows.vectors["v"].shape == (3, 3)
    assert np.isnan(rows.vectors["v"]).all()
    assert rows.vectors["w"] is vector
    assert rows.invalid is not None
    # The text's index comes after the numbers, the vector's is that of its own column.
    assert rows.invalid.tolist() == [[1, 4], [0, 1], [2, 1]]
    assert column(rows, "stream:invalid") == [1.0, 1.0, 1.0]


def test_taking_rows_keeps_every_column_a_score_panel_needs() -> None:
    observed = batch(3, score=np.array([0.1, 0.2, 0.3]), version=code(["a", "b", "a"]), segments={"k": code(["x", "y", "x"])})
    part = take(observed, np.array([0, 2]))
    assert part.offset.tolist() == [0, 2]
    assert part.score is not None
    assert part.score.tolist() == [0.1, 0.3]
    assert [part.segments["k"].values[c] for c in part.segments["k"].codes] == ["x", "x"]


