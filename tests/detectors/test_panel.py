"""The panel against naive loops, and against itself cut otherwise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.coding import RowCoder
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, Kind, PanelRows, PanelSpec, Signal, SpecError
from tests.detectors.panel_cases import SMALL_WINDOW, changing_stream, detectors, joined, plain_rows, run, series, small_spec, stream

STREAM = changing_stream()


def whole_run() -> tuple[list[tuple[int, Signal]], Panel]:
    panel = Panel(small_spec(segments={"shop": 2}, learn_rows=600))
    return run(panel, STREAM), panel


def placed(found: list[tuple[int, Signal]]) -> list[tuple[int, Signal]]:
    return [(row, replace(signal, row=0)) for row, signal in found]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, STREAM.n - 1), max_size=30, unique=True))
def test_any_cut_of_the_stream_gives_the_same_signals_and_the_same_bytes(cuts: list[int]) -> None:
    expected, once = whole_run()
    panel = Panel(small_spec(segments={"shop": 2}, learn_rows=600))
    assert placed(run(panel, STREAM, cuts)) == placed(expected)
    assert panel.export() == once.export()


def test_one_row_at_a_time_equals_one_batch() -> None:
    expected, once = whole_run()
    panel = Panel(small_spec(segments={"shop": 2}, learn_rows=600))
    assert placed(run(panel, STREAM, range(1, STREAM.n))) == placed(expected)
    assert panel.export() == once.export()


def test_learning_takes_exactly_the_first_rows_and_gives_the_files_baseline() -> None:
    builder = BaselineBuilder(small_spec().columns, {"shop": 2})
    builder.add(STREAM.slice(0, 600))
    found, panel = whole_run()
    row, signal = found[0]
    assert (row, signal.kind, signal.n) == (599, "baseline", 600)
    assert panel.baseline is not None
    assert panel.baseline.id == builder.finish().id
    assert panel.rows == STREAM.n - 600
    assert sum(signal.kind == "baseline" for _, signal in found) == 1


def test_levels_equal_a_naive_count_of_the_last_window() -> None:
    spec = small_spec()
    panel = Panel(spec)
    rows = STREAM.slice(0, 1_555)
    run(panel, rows)
    assert panel.baseline is not None
    codes, _ = RowCoder(panel.baseline.columns).encode(rows.slice(rows.n - SMALL_WINDOW, rows.n))
    levels = {level.series: level for level in panel.levels(0)}
    amount, loss = codes[:, 0], codes[:, 2]
    assert levels["quality:amount:missing"].rate == pytest.approx(np.mean(amount == 64))
    assert levels["quality:amount:invalid"].rate == pytest.approx(np.mean(amount == 65))
    assert levels["feature:amount"].n == np.sum(amount < 64)
    assert levels["loss"].n == np.sum(loss < 64)
    assert levels["flagged"].rate == pytest.approx(codes[:, 3].mean())
    tail = loss[-100:][loss[-100:] < 64]
    edge = panel.baseline.columns[2].tails["0.9"]
    values = rows.numeric[rows.n - 100 :, 0][loss[-100:] < 64]
    assert len(tail) == len(values)
    assert levels["loss:p90"].rate == pytest.approx(np.mean(values > edge))


def naive_psi(reference: list[int], window: list[int], merge: list[int]) -> float:
    """PSI by its definition, with half a count added to every group of both sides."""
    groups = max(merge) + 1
    before, now = [0.5] * groups, [0.5] * groups
    for code in reference:
        before[merge[code]] += 1
    for code in window:
        now[merge[code]] += 1
    p = [k / sum(now) for k in now]
    q = [k / sum(before) for k in before]
    return math.fsum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_psi_alarms_at_the_row_where_a_naive_loop_passes_the_threshold() -> None:
    learned = 1_800
    spec = PanelSpec(
        columns=(Column("x", "numeric", (series("x", None, "psi", run_length=1e5),)),), window=SMALL_WINDOW, learn_rows=learned
    )
    rng = np.random.default_rng(11)
    values = np.concatenate([rng.normal(size=4_000), rng.normal(0.5, 1, 1_500)])
    opened, signal = next((row, signal) for row, signal in run(Panel(spec), plain_rows({"x": values})) if signal.kind == "open")
    # Deciles of 1,800 values are exact unions of sixtieths; missing and invalid, here empty, are two more groups.
    deciles = np.sort(values[:learned])[[180 * j - 1 for j in range(1, 10)]]
    groups = np.searchsorted(deciles, values).tolist()
    crossed = []
    for row in range(opened - 300, opened + 1):
        psi = naive_psi(groups[:learned], groups[row + 1 - SMALL_WINDOW : row + 1], [*range(12)])
        if psi > signal.threshold:  # type: ignore[operator]
            crossed.append(row)
    assert crossed == [opened]
    assert signal.statistic == pytest.approx(psi, rel=1e-9)


def test_a_segment_sees_its_own_rows_alone_and_other_takes_the_rest() -> None:
    spec = replace(small_spec(run_length=1e6), segments={"shop": 2}, learn_rows=4_000)
    quiet, rest = stream(8_000, 20), stream(3_000, 21, first=8_000)
    shop = rest.segments["shop"][0]
    moved = rest.numeric.copy()
    moved[shop == 1, 1] *= 4
    panel = Panel(spec)
    found = run(panel, joined([quiet, replace(rest, numeric=moved)]))
    opened = {(signal.series, signal.scope) for _, signal in found if signal.kind == "open" and signal.series == "feature:amount"}
    assert panel.scope_names == [None, ("shop", "s0"), ("shop", "s1"), ("shop", "other")]
    assert opened == {("feature:amount", 0), ("feature:amount", 2)}


def test_a_segment_value_never_seen_goes_to_other() -> None:
    panel = Panel(small_spec(segments={"shop": 2}), None)
    run(panel, STREAM.slice(0, 500))
    before = panel.scope_rows(3)
    new = STREAM.slice(500, 600)
    run(panel, replace(new, segments={"shop": (np.zeros(100, np.int32), ["a new shop"])}))
    run(panel, replace(new, segments={}))
    assert panel.scope_rows(3) == before + 200


def test_a_scope_with_a_tiny_reference_does_not_watch_the_column() -> None:
    panel = Panel(small_spec(segments={"shop": 2}))
    found = run(panel, STREAM)
    assert {signal.scope for _, signal in found} <= {0, 1}
    assert all(level.psi is None for level in panel.levels(3))


def test_a_storm_of_nan_and_inf_silences_nothing() -> None:
    spec = PanelSpec(
        columns=(
            Column(
                "x",
                "numeric",
                (
                    series("x", None, "psi", "adwin", "page_hinkley", run_length=1e6),
                    series("nulls", "missing", "rate", run_length=1e6, direction="up"),
                ),
            ),
        ),
        window=SMALL_WINDOW,
        learn_rows=1_000,
    )
    rng = np.random.default_rng(5)
    storm = rng.choice([np.nan, np.inf, -np.inf], size=1_000)
    values = np.concatenate([rng.normal(size=3_000), storm, rng.normal(size=2_000), rng.normal(2, 1, 1_000)])
    panel = Panel(spec)
    found = run(panel, plain_rows({"x": values}))
    assert any(signal.series == "nulls" and signal.kind == "open" and 3_000 <= row < 3_100 for row, signal in found)
    assert any(signal.series == "nulls" and signal.kind == "recovery" for row, signal in found)
    late = {signal.detector for row, signal in found if row >= 6_000 and signal.series == "x" and signal.kind in ("open", "evidence")}
    assert {"page_hinkley", "adwin"} <= late | {"severity"} or "psi" in late
    assert all(math.isfinite(signal.value or 0) and math.isfinite(signal.statistic or 0) for _, signal in found)


def test_a_constant_column_alarms_when_another_value_comes() -> None:
    spec = PanelSpec(
        columns=(Column("x", "numeric", (series("x", None, "psi", "adwin", "page_hinkley"),)),), window=SMALL_WINDOW, learn_rows=500
    )
    panel = Panel(spec)
    assert [signal.kind for _, signal in run(panel, plain_rows({"x": np.full(3_000, 7.0)}))] == ["baseline"]
    found = run(panel, plain_rows({"x": np.full(300, 7.5)}))
    assert found[0][1].kind == "open"
    assert found[0][1].bins[0].bin == "> 7"


def test_a_column_that_gets_stuck_is_named_with_the_length_of_its_run() -> None:
    spec = PanelSpec(
        columns=(Column("x", "numeric", (series("stuck", "constant", "rate", direction="up"),)),), window=SMALL_WINDOW, learn_rows=500
    )
    rng = np.random.default_rng(6)
    values = np.concatenate([rng.normal(size=2_000), np.full(400, 0.5), rng.normal(size=2_000)])
    found = run(Panel(spec), plain_rows({"x": values}))
    assert [(row, signal.kind) for row, signal in found[1:]] == [
        (2_099, "open"),
        *[(row, "evidence") for row, s in found[2:-1]],
        (found[-1][0], "recovery"),
    ]
    assert found[1][1].reason == "100 equal values in a row; too few values yet to be sure of more than info"
    assert found[1][1].since is not None
    assert found[1][1].since.offset <= 2_000
    assert found[1][1].since.offset > 2_000 - 32


def test_an_unseen_category_raises_its_own_series() -> None:
    spec = PanelSpec(
        columns=(
            Column(
                "c",
                "categorical",
                (series("c", None, "psi", run_length=1e6), series("unseen", "unseen", "rate", run_length=1e6, direction="up")),
            ),
        ),
        window=SMALL_WINDOW,
        learn_rows=1_000,
    )
    rng = np.random.default_rng(8)
    codes = rng.integers(0, 3, 3_000).astype(np.int32)
    codes[2_000:][rng.random(1_000) < 0.1] = 3
    rows = PanelRows(
        n=3_000,
        numeric=np.zeros((3_000, 0)),
        numeric_names=[],
        categorical={"c": (codes, ["a", "b", "c", "new"])},
        source=np.zeros(3_000, np.uint16),
        offset=np.arange(3_000),
        time_ms=np.arange(3_000),
    )
    found = [(row, signal) for row, signal in run(Panel(spec), rows) if signal.kind == "open"]
    first = min(row for row, signal in found if signal.series == "unseen")
    assert 2_000 <= first < 2_300
    shift = next(signal for _, signal in found if signal.series == "c")
    assert shift.bins[0].bin == "unseen"


def test_discovered_columns_come_in_order_of_name_from_the_factory() -> None:
    def made(name: str, kind: Kind) -> Column:
        return Column(name, kind, (series(f"feature:{name}", None, "psi"),))

    spec = PanelSpec(columns=None, column_factory=made, window=SMALL_WINDOW, learn_rows=300)
    panel = Panel(spec)
    before = panel.columns
    run(panel, STREAM.slice(0, 400))
    assert before == ()
    assert [(column.name, column.kind) for column in panel.columns] == [
        ("amount", "numeric"),
        ("country", "categorical"),
        ("flagged", "numeric"),
        ("loss", "numeric"),
        ("unwatched", "numeric"),
    ]


def test_columns_that_never_apply_stay_silent() -> None:
    rows = replace(STREAM, not_applicable={"loss": np.ones(STREAM.n, bool)})
    found = run(Panel(small_spec()), rows)
    assert not any(signal.series.startswith("loss") for _, signal in found)
    codes = RowCoder(()).encode(rows)[0]
    assert codes.shape == (rows.n, 0)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Column("x", "numeric", (series("s", "unseen", "rate"),)), 'flag "unseen" does not fit a numeric column'),
        (Column("x", "numeric", (series("s", "tail:0.5", "rate"),)), "not in the tails"),
        (Column("x", "numeric", (series("s", None, "magic"),)), 'unknown detector "magic"'),
        (Column("x", "numeric", (series("s", None, window=201),)), "window: expected 30 to 200"),
        (Column("x", "categorical", (series("s", None, "psi"),)), "build it anew"),
        (Column("x", "numeric", (series("s", None), series("r", None))), "at most one series of values"),
    ],
)
def test_a_specification_that_cannot_be_names_its_fault(column: Column, message: str) -> None:
    builder = BaselineBuilder(None, {})
    builder.add(plain_rows({"x": np.arange(300.0)}))
    with pytest.raises(SpecError, match=message):
        Panel(PanelSpec(columns=(column,), window=SMALL_WINDOW), builder.finish())


def test_rivers_detectors_run_by_name_and_survive_any_cut() -> None:
    named = (*detectors("river.ADWIN", "river.PageHinkley"),)
    column = Column("x", "numeric", (replace(series("x", None), detectors=named),))
    spec = PanelSpec(columns=(column,), window=SMALL_WINDOW, learn_rows=500)
    rng = np.random.default_rng(9)
    rows = plain_rows({"x": np.concatenate([rng.normal(size=1_500), rng.normal(2, 1, 500)])})
    once = Panel(spec)
    found = run(once, rows)
    assert {signal.detector for _, signal in found if signal.kind in ("open", "evidence")} >= {"river.ADWIN", "river.PageHinkley"}
    cut = Panel(spec)
    assert placed(run(cut, rows, [3, 700, 1_503, 1_504])) == placed(found)
    assert cut.export() == once.export()
