"""Categories of so many values that new ones are no news: session ids, addresses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.detectors.panel import Panel
from driftline.detectors.spec import OTHER, UNSEEN, Column, PanelBudget, PanelRows, PanelSpec, Signal
from tests.detectors.panel_cases import plain_rows, series

LEARN, ROWS = 2_500, 12_000


def texts(values: np.ndarray) -> PanelRows:
    names, codes = np.unique(values, return_inverse=True)
    rows = plain_rows({"x": np.zeros(len(values))})
    return replace(rows, categorical={"ip": (codes.astype(np.int32), [f"v{name}" for name in names.tolist()])})


def spec(budget: float = 1e-5) -> PanelSpec:
    values = series("feature:ip", None, "e_detector", "psi", warning=0.1, run_length=1e6)
    unseen = series("quality:ip:unseen", "unseen", "e_detector", warning=0.2, direction="up")
    constant = series("quality:ip:constant", "constant", direction="up")
    columns = (Column("ip", "categorical", (values, unseen, constant)),)
    return PanelSpec(columns=columns, window=1_000, learn_rows=LEARN, budget=PanelBudget(budget, True, 1_000.0))


def run(values: np.ndarray) -> tuple[Panel, list[Signal]]:
    panel = Panel(spec())
    return panel, [s for s in panel.update(texts(values)) if s.kind != "baseline"]


LAWS = {
    "each once": lambda g: np.arange(LEARN + ROWS),
    "of 100,000": lambda g: g.integers(0, 100_000, LEARN + ROWS),
    "of 3,000": lambda g: g.integers(0, 3_000, LEARN + ROWS),
    "Zipf": lambda g: g.zipf(1.3, LEARN + ROWS),
    "of 20": lambda g: g.integers(0, 20, LEARN + ROWS),
}


@pytest.mark.parametrize("law", LAWS)
def test_without_a_change_nothing_is_said(law: str) -> None:
    """Two streams of 12,000 rows under one in 100,000: a quarter of an alarm is allowed, two in one of 40 laws."""
    found = [s for seed in range(2) for s in run(LAWS[law](np.random.default_rng([1, seed])))[1] if s.kind == "open"]
    assert len(found) <= 1, [(s.series, s.row, s.reason) for s in found]
    assert not any(s.series.endswith("constant") for s in found)


def test_a_value_of_the_reference_that_comes_again_and_again_is_found() -> None:
    generator = np.random.default_rng(2)
    values = LAWS["of 3,000"](generator)
    names, often = np.unique(values[:LEARN], return_counts=True)
    values[8_000:] = np.where(generator.random(len(values) - 8_000) < 0.3, names[often.argsort()[-5]], values[8_000:])
    opened = [s for s in run(values)[1] if s.kind == "open"]
    assert 8_000 <= opened[0].row < 8_500


@pytest.mark.parametrize("law", ["each once", "of 100,000"])
def test_what_is_new_in_nearly_every_row_has_no_distribution(law: str) -> None:
    panel, _ = run(LAWS[law](np.random.default_rng(6)))
    assert panel._watch is not None
    assert panel._watch.tables.watched[0].tolist() == [0, 1, 1]


def test_rare_and_new_values_are_one_group_of_many_and_two_of_few() -> None:
    for law, merged in (("of 3,000", True), ("of 20", False)):
        panel, _ = run(LAWS[law](np.random.default_rng(3)))
        assert panel._watch is not None
        group = panel._watch.tables.group[0, 0]
        assert (group[OTHER] == group[UNSEEN]) == merged


def test_a_value_never_seen_among_few_is_found_at_once() -> None:
    values = LAWS["of 20"](np.random.default_rng(4))
    values[8_000::10] = 99
    opened = [s for s in run(values)[1] if s.kind == "open"]
    assert 8_000 <= opened[0].row < 8_200


def test_a_run_of_one_value_is_constant_and_one_of_new_values_is_not() -> None:
    generator = np.random.default_rng(5)
    values = generator.integers(0, 3, LEARN + ROWS)
    values[8_000:9_000] = np.arange(10_000, 11_000)
    assert not any(s.series.endswith("constant") for s in run(values)[1])
    values[8_000:9_000] = 1
    assert any(s.series.endswith("constant") for s in run(values)[1])
