"""Baselines: bins against numpy, hashes, damage."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.quantiles import mean_and_sd, numeric_reference
from driftline.detectors.spec import ABOVE, BELOW, INVALID, MISSING, NOT_APPLICABLE, OTHER, UNSEEN, BaselineError, PanelRows
from tests.detectors.panel_cases import plain_rows, small_spec, stream


def build(rows: PanelRows, *, cuts: tuple[int, ...] = (), exact_rows: int = 10_000, segments: dict[str, int] | None = None) -> Baseline:
    builder = BaselineBuilder(small_spec().columns, segments or {}, exact_rows=exact_rows)
    edges = [0, *cuts, rows.n]
    for a, b in pairwise(edges):
        builder.add(rows.slice(a, b))
    return builder.finish()


def of_numbers(values: list[float]) -> Baseline:
    builder = BaselineBuilder(None, {})
    builder.add(plain_rows({"x": values}))
    return builder.finish()


def test_every_row_is_counted_once_in_each_of_its_scopes() -> None:
    rows = stream(2_000, 1)
    baseline = build(rows, segments={"shop": 2})
    counts = baseline.counts
    assert counts[0].sum(axis=1).tolist() == [2_000] * 4
    assert (counts[1:].sum(axis=0) == counts[0]).all()
    assert baseline.scope_names == [None, ("shop", "s0"), ("shop", "s1"), ("shop", "other")]
    assert counts[1, 0].sum() == np.count_nonzero(rows.segments["shop"][0] == 0)
    amount = rows.numeric[:, 1].copy()
    assert rows.invalid is not None
    wrong = rows.invalid[:, 0]
    assert counts[0, 0, INVALID] == len(wrong)
    amount[wrong] = 0
    assert counts[0, 0, MISSING] == np.isnan(amount).sum()
    assert counts[0, 2, NOT_APPLICABLE] == rows.not_applicable["loss"].sum()


def test_bins_of_a_continuous_column_hold_equal_mass() -> None:
    baseline = of_numbers(np.random.default_rng(0).normal(size=6_000).tolist())
    counts = baseline.counts[0, 0]
    assert baseline.columns[0].n_bins == 60
    assert counts[:60].tolist() == [100] * 60
    assert counts[60:].sum() == 0


def test_edges_are_order_statistics() -> None:
    values = np.random.default_rng(1).exponential(size=1_200)
    edges = of_numbers(values.tolist()).columns[0].edges
    expected = np.sort(values)[[20 * j - 1 for j in range(1, 60)]]
    assert list(edges) == expected.tolist()


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, 1e308])), min_size=1, max_size=200))
def test_any_numbers_give_a_baseline_that_survives_its_file(values: list[float]) -> None:
    baseline = of_numbers(values)
    again = Baseline.from_json(baseline.to_json())
    column = baseline.columns[0]
    assert again.id == baseline.id
    assert (again.counts == baseline.counts).all()
    assert again.columns == baseline.columns
    assert column.n_bins <= 60
    assert baseline.counts.sum() == len(values)
    finite = [x for x in values if math.isfinite(x)]
    assert baseline.counts[0, 0, :60].sum() == len(finite)
    assert baseline.counts[0, 0, MISSING] == sum(math.isnan(x) for x in values)
    assert baseline.counts[0, 0, ABOVE] == values.count(math.inf)
    assert baseline.counts[0, 0, BELOW] == values.count(-math.inf)


def test_heavy_ties_get_bins_of_their_own_and_mass_sums_to_one() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([np.zeros(500), np.full(300, 7.0), rng.uniform(0, 10, 200)])
    rng.shuffle(values)
    baseline = of_numbers(values.tolist())
    column, counts = baseline.columns[0], baseline.counts[0, 0]
    assert sorted(counts[:60].tolist())[-2:] == [300, 500]
    assert counts.sum() == 1_000
    assert [column.bin_name(int(code)) for code in np.argsort(counts)[-2:]] == ["7", "0"]


def test_one_giant_outlier_leaves_the_other_bins_alone() -> None:
    values = np.random.default_rng(3).normal(size=1_000).tolist()
    clean, dirty = of_numbers(values).columns[0], of_numbers([*values[:-1], 1e300]).columns[0]
    assert np.abs(np.array(clean.edges) - np.array(dirty.edges)).max() < 0.2
    assert dirty.high == 1e300
    assert dirty.sd is not None
    assert math.isfinite(dirty.sd)


def test_a_constant_column_has_one_bin() -> None:
    baseline = of_numbers([3.25] * 50)
    assert baseline.columns[0].edges == ()
    assert (baseline.columns[0].low, baseline.columns[0].high, baseline.columns[0].sd) == (3.25, 3.25, 0.0)
    assert baseline.counts[0, 0, 0] == 50


def test_mean_and_sd_do_not_depend_on_order_and_do_not_overflow() -> None:
    values = np.random.default_rng(4).normal(size=10_001) * 10.0 ** np.random.default_rng(5).integers(-8, 8, 10_001)
    assert mean_and_sd(values) == mean_and_sd(values[::-1].copy())
    assert mean_and_sd(values)[0] == pytest.approx(values.mean(), rel=1e-9)
    assert mean_and_sd(values)[1] == pytest.approx(values.std(), rel=1e-9)
    mean, sd = mean_and_sd(np.array([1.7e308, -1.7e308]))
    assert mean == 0.0
    assert sd == pytest.approx(1.7e308)


def test_quantiles_of_negative_zero_do_not_depend_on_arrival() -> None:
    assert of_numbers([0.0, -0.0, 1.0]).id == of_numbers([-0.0, 0.0, 1.0]).id


def test_categories_are_ranked_by_count_with_ties_by_value() -> None:
    texts = ["b"] * 3 + ["a"] * 3 + ["z"] * 5 + ["q"]
    values = sorted(set(texts), reverse=True)
    rows = PanelRows(
        n=len(texts),
        numeric=np.zeros((len(texts), 0)),
        numeric_names=[],
        categorical={"c": (np.array([values.index(t) for t in texts], np.int32), values)},
        source=np.zeros(len(texts), np.uint16),
        offset=np.arange(len(texts)),
        time_ms=np.arange(len(texts)),
    )
    builder = BaselineBuilder(None, {})
    builder.add(rows)
    assert builder.finish().columns[0].categories == ("z", "a", "b", "q")


def test_rare_known_values_are_other_and_a_capped_list_never_says_unseen() -> None:
    n = 10_200
    codes = np.concatenate([np.arange(n), np.repeat(np.arange(60), 5)]).astype(np.int32)
    rows = PanelRows(
        n=len(codes),
        numeric=np.zeros((len(codes), 0)),
        numeric_names=[],
        categorical={"c": (codes, [f"v{i:05d}" for i in range(n)])},
        source=np.zeros(len(codes), np.uint16),
        offset=np.arange(len(codes)),
        time_ms=np.arange(len(codes)),
    )
    builder = BaselineBuilder(None, {})
    builder.add(rows)
    baseline = builder.finish()
    column = baseline.columns[0]
    assert (len(column.categories), len(column.others), column.complete) == (60, 10_000, False)
    assert baseline.counts[0, 0, OTHER] == n - 60
    assert baseline.counts[0, 0, UNSEEN] == 0


def test_sensitive_values_appear_only_as_keyed_hashes() -> None:
    rows = stream(500, 3)
    ids = []
    for key in (b"one", b"two"):
        builder = BaselineBuilder(small_spec().columns, {"shop": 2}, sensitive=frozenset({"country", "shop"}), hash_key=key)
        builder.add(rows)
        baseline = builder.finish()
        text = baseline.to_json()
        assert '"c0"' not in text
        assert '"s0"' not in text
        assert all(value.startswith("h:") for value in baseline.columns[1].categories)
        ids.append(baseline.id)
    assert ids[0] != ids[1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 1_500), max_size=6), st.sampled_from([200, 500, 10_000]))
@example([1_398], 500)
def test_the_cut_of_the_input_never_shows_in_the_id(cuts: list[int], exact_rows: int) -> None:
    rows = stream(1_500, 5)
    assert build(rows, cuts=tuple(sorted(cuts)), exact_rows=exact_rows).id == build(rows, exact_rows=exact_rows).id


def test_thinning_keeps_every_kth_row() -> None:
    rows = stream(1_500, 5)
    baseline = build(rows, exact_rows=400)
    assert (baseline.thinning, baseline.rows) == (4, 375)
    kept = rows.numeric[::4, 0][~rows.not_applicable["loss"][::4]]
    assert baseline.columns[2].low == kept.min()
    assert baseline.counts[0, 2, :60].sum() == len(kept)


def test_a_tail_edge_is_the_quantile_even_between_the_bins() -> None:
    values = np.random.default_rng(6).normal(size=1_000)
    reference = numeric_reference("x", values, (0.99,))
    assert reference.tails == {"0.99": np.sort(values)[989]}
    assert reference.tails["0.99"] in reference.edges


def test_an_edited_file_is_refused_by_its_id(tmp_path: Path) -> None:
    baseline = build(stream(300, 6))
    baseline.save(tmp_path / "b.json")
    assert Baseline.load(tmp_path / "b.json").id == baseline.id
    whole = json.loads((tmp_path / "b.json").read_text())
    whole["body"]["counts"][0][0][3] += 1
    (tmp_path / "b.json").write_text(json.dumps(whole))
    with pytest.raises(BaselineError, match="edited or damaged"):
        Baseline.load(tmp_path / "b.json")


@settings(deadline=None)
@given(st.data())
def test_damaged_files_give_a_clear_error_and_never_another(data: st.DataObject) -> None:
    text = bytearray(of_numbers([1.0, 2.0, 3.0]).to_json().encode())
    for _ in range(data.draw(st.integers(1, 5))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    text = text[: data.draw(st.integers(0, len(text)))]
    try:
        Baseline.from_json(bytes(text))
    except BaselineError:
        return
    assert bytes(text) == of_numbers([1.0, 2.0, 3.0]).to_json().encode()


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "null", '{"format": "driftline-baseline", "version": 2}', '{"format": "driftline-baseline", "version": 1}', "[" * 10_000],
)
def test_files_that_are_no_baseline_are_refused(text: str) -> None:
    with pytest.raises(BaselineError):
        Baseline.from_json(text)


def test_no_rows_are_no_baseline() -> None:
    with pytest.raises(BaselineError, match="no rows"):
        BaselineBuilder(None, {}).finish()
