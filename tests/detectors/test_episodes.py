"""Episodes: one for a change, open as long as it lasts, ended by the level and never by silence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, PanelSpec, Signal
from tests.detectors.panel_cases import plain_rows, run, series

WINDOW = 500
LEARNED = 2_000


def spec(*names: str, run_length: float = 1e7, **more: float) -> PanelSpec:
    watched = series("x", None, *(names or ("psi", "adwin", "page_hinkley")), window=WINDOW, run_length=run_length, **more)
    return PanelSpec(columns=(Column("x", "numeric", (watched,)),), window=WINDOW, learn_rows=LEARNED)


def signals(values: np.ndarray, panel_spec: PanelSpec | None = None) -> list[tuple[int, Signal]]:
    return run(Panel(panel_spec or spec()), plain_rows({"x": values}))[1:]


def test_a_permanent_step_opens_once_and_stays_open_for_a_million_rows() -> None:
    rng = np.random.default_rng(1)
    panel = Panel(spec())
    found = run(panel, plain_rows({"x": rng.normal(size=10_000)}))
    for part in range(10):
        found += run(panel, plain_rows({"x": rng.normal(0.5, 1, 100_000)}, first=10_000 + 100_000 * part))
    kinds = [signal.kind for _, signal in found]
    assert kinds.count("open") == 1
    assert kinds.count("recovery") == 0
    assert kinds.count("evidence") <= 4
    assert panel.levels(0)[0].open


def test_a_step_that_goes_back_is_one_episode_with_a_reason_for_its_end() -> None:
    rng = np.random.default_rng(2)
    found = signals(np.concatenate([rng.normal(size=6_000), rng.normal(1, 1, 3_000), rng.normal(size=6_000)]))
    opened = [(row, signal) for row, signal in found if signal.kind == "open"]
    ended = [(row, signal) for row, signal in found if signal.kind == "recovery"]
    assert (len(opened), len(ended)) == (1, 1)
    assert 6_000 <= opened[0][0] < 6_200
    # One window until the level is back, one more of hysteresis, and up to 31 rows to the next look.
    assert 9_000 + WINDOW <= ended[0][0] <= 9_000 + 2 * WINDOW + 100
    assert ended[0][1].reason is not None
    assert ended[0][1].reason.startswith(f"level back in its band for a full window of {WINDOW} rows")
    assert ended[0][1].episode == opened[0][1].episode
    assert ended[0][1].episode.offset == opened[0][0]


def test_a_severity_that_rises_names_the_side_its_level_is_on() -> None:
    """Page-Hinkley speaks once, while the level is up; the level then falls, and only the window says so."""
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(size=5_000), rng.normal(0.16, 1, 1_200), rng.normal(-1.0, 1, 1_000)])
    opened, raised = (signal for _, signal in signals(values, spec("page_hinkley")))
    assert (opened.kind, opened.direction, opened.severity) == ("open", "up", "warning")
    assert (raised.detector, raised.direction, raised.severity) == ("severity", "down", "critical")
    assert raised.effect_size is not None
    assert raised.effect_size < 0


def test_each_detector_adds_one_evidence_and_severity_only_rises() -> None:
    rng = np.random.default_rng(3)
    found = signals(np.concatenate([rng.normal(size=5_000), rng.normal(0.6, 1, 20_000)]))
    named = [signal.detector for _, signal in found if signal.detector != "severity"]
    assert sorted(named) == ["adwin", "page_hinkley", "psi"]
    order = ["info", "warning", "critical"]
    ranks = [order.index(signal.severity) for _, signal in found]
    assert ranks == sorted(ranks)
    assert sum(signal.detector == "severity" for _, signal in found) <= 2


def test_since_is_the_last_anchor_at_or_before_the_change() -> None:
    rng = np.random.default_rng(4)
    for change in (5_000, 5_001, 5_037):
        found = signals(np.concatenate([rng.normal(size=change), rng.normal(1.5, 1, 500)]))
        dated = [signal.since for _, signal in found if signal.detector in ("adwin", "page_hinkley")]
        assert dated
        for since in dated:
            assert since is not None
            # Anchors stand on every 32nd row after the learned ones; the estimate itself errs by some rows.
            assert (since.offset - LEARNED) % 32 == 0
            assert change - 160 <= since.offset <= change + 32
            assert since.time_ms == since.offset * 1_000


def test_effect_is_measured_since_the_change_in_standard_deviations() -> None:
    effects: list[float] = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = signals(np.concatenate([rng.normal(10, 3, 5_000), rng.normal(10 + 0.5 * 3, 3, 3_000)]))
        effects.append(found[0][1].effect_size or 0.0)
        assert found[0][1].direction == "up"
        assert found[0][1].severity in ("warning", "critical")
    # An alarm comes at a crest of the noise, so the estimate is biased upwards: by about a third for .5 sd here.
    assert 0.45 < float(np.mean(effects)) < 0.8


def test_a_small_certain_shift_is_one_info_record() -> None:
    rng = np.random.default_rng(6)
    big = replace(spec("page_hinkley", run_length=1e6, warning=0.6, critical=1.2))
    found = signals(np.concatenate([rng.normal(size=5_000), rng.normal(0.3, 1, 20_000)]), big)
    assert [signal.severity for _, signal in found if signal.kind == "open"] == ["info"]
    assert all(signal.kind in ("open", "recovery") for _, signal in found)


def loudest_of_nulls(*, before: float, after: float, seed: int) -> str | None:
    """The highest severity of a share of nulls that changes, under the levels of the default monitor for data quality."""
    nulls = series("nulls", "missing", "rate", window=5_000, run_length=1e8, direction="up", warning=0.2, critical=1.0)
    panel = Panel(PanelSpec(columns=(Column("x", "numeric", (nulls,)),), window=5_000, learn_rows=5_000))
    rng = np.random.default_rng(seed)
    values = rng.normal(size=20_000)
    values[rng.random(20_000) < np.where(np.arange(20_000) < 8_000, before, after)] = np.nan
    found = [signal.severity for _, signal in run(panel, plain_rows({"x": values}))[1:]]
    return max(found, key=["info", "warning", "critical"].index, default=None)


@pytest.mark.parametrize(("before", "after", "expected"), [
    (0.0, 0.001, {None, "info"}),        # 10 percent of the floor of 1 %
    (0.0, 0.004, {"info", "warning"}),   # 40 percent of the floor, not "+2,000 %" of a rate that is none
    (0.0, 0.05, {"critical"}),
    (0.001, 0.05, {"critical"}),
    (0.05, 0.15, {"critical"}),          # above the floor the baseline's own rate counts
    (0.3, 0.4, {"warning"}),
])  # fmt: skip
def test_how_loud_a_rate_is_does_not_explode_where_the_baseline_has_hardly_any(
    before: float, after: float, expected: set[str | None]
) -> None:
    assert {loudest_of_nulls(before=before, after=after, seed=seed) for seed in range(4)} <= expected


def test_the_size_of_a_rates_change_is_relative_to_the_floor() -> None:
    for floor in (0.01, 0.1):
        nulls = series("nulls", "missing", "rate", window=WINDOW, run_length=1e4, direction="up", rate_floor=floor)
        panel = Panel(PanelSpec(columns=(Column("x", "numeric", (nulls,)),), window=WINDOW, learn_rows=LEARNED))
        rng = np.random.default_rng(3)
        values = rng.normal(size=6_000)
        values[4_000::20] = np.nan
        first = run(panel, plain_rows({"x": values}))[1][1]
        assert first.effect_size == pytest.approx((first.value or 0.0) / floor)


def test_a_series_watched_upwards_ignores_a_fall_and_its_return() -> None:
    rng = np.random.default_rng(7)
    up = spec()
    column = up.columns[0]  # type: ignore[index]
    up = replace(up, columns=(replace(column, series=(replace(column.series[0], direction="up"),)),))
    assert signals(np.concatenate([rng.normal(size=4_000), rng.normal(-1, 1, 3_000), rng.normal(size=4_000)]), up) == []
    assert signals(np.concatenate([rng.normal(size=4_000), rng.normal(1, 1, 500)]), up) != []


def test_a_drift_in_the_first_window_is_seen() -> None:
    rng = np.random.default_rng(8)
    found = signals(np.concatenate([rng.normal(size=LEARNED), rng.normal(1, 1, WINDOW)]))
    assert [signal.kind for _, signal in found if signal.detector == "psi"] == ["open"]
    assert found[0][0] <= LEARNED + WINDOW


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_scale_and_offset_of_the_values_do_not_matter(scale: float) -> None:
    rng = np.random.default_rng(9)
    values = np.concatenate([rng.normal(size=4_000), rng.normal(0.7, 1, 1_000)])
    plain = [(row, signal.kind, signal.detector) for row, signal in signals(values)]
    assert [(row, signal.kind, signal.detector) for row, signal in signals(values * scale + 3 * scale)] == plain


def test_false_alarms_keep_to_the_run_length_asked_for() -> None:
    """Poisson bounds at 5 in 1,000: 20 columns of 60,000 rows, run length 1e5 a detector, three kinds of law."""
    rng = np.random.default_rng(10)
    n, each = 60_000, 8
    laws = [rng.normal(size=(n, each)), rng.lognormal(size=(n, each)), rng.standard_t(3, size=(n, each))]
    matrix = np.concatenate(laws, axis=1)
    names = [f"x{i:02d}" for i in range(matrix.shape[1])]
    for detector, least, most in (("psi", 3, 40), ("page_hinkley", 0, 30), ("adwin", 0, 30)):
        columns = tuple(Column(name, "numeric", (series(name, None, detector, window=WINDOW, run_length=1e5),)) for name in names)
        panel = Panel(PanelSpec(columns=columns, window=WINDOW, learn_rows=10_000))
        found = run(panel, plain_rows(dict(zip(names, matrix.T, strict=True))))
        opened = sum(signal.kind == "open" for _, signal in found)
        # 24 columns x 50,000 rows / 1e5 = 12 expected; an episode that is open hides further ones.
        assert least <= opened <= most, (detector, opened)
