"""Windows of values that go by the hour: compared with the same hours of the baseline."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.conformal import series_key
from driftline.detectors.kernels.portable import position_keys
from driftline.detectors.layout import Layout, lay_out
from driftline.detectors.matched import MatchedCodes
from driftline.detectors.panel import Panel
from driftline.detectors.season import HOUR_MS, compared
from driftline.detectors.spec import ABOVE, BELOW, INVALID, MISSING, Int32, PanelRows, UInt8
from tests.detectors.panel_cases import series
from tests.detectors.test_portable import fill_uniform
from tests.detectors.test_season import DAY_ROWS, REFERENCE, daily, feed, minutes, reference, spec

ROWS = 10 * DAY_ROWS


def no_matching(self: MatchedCodes, codes: UInt8, scopes: Int32, rows: PanelRows) -> UInt8:
    """As windows were before hours were told apart."""
    return codes[:, None, :]


def laid_out(baseline: Baseline) -> Layout:
    return lay_out(spec(), baseline)


def test_codes_are_ranks_of_the_hour_among_all_hours_by_a_plain_loop() -> None:
    baseline = reference(daily(1, REFERENCE))
    layout, rows = laid_out(baseline), minutes(daily(2, 3_000), REFERENCE)
    codes = Panel(spec(), baseline)._watch.coder.encode(rows)[0]  # type: ignore[union-attr]
    codes[::100, 0] = np.resize(np.array([BELOW, ABOVE, MISSING, INVALID], np.uint8), 30)
    found = MatchedCodes(layout).of(codes, np.zeros((rows.n, 1), np.int32), rows)
    tie = np.empty(rows.n)
    fill_uniform(position_keys(rows.source.astype(np.uint64), rows.offset), np.uint64(series_key("window//x")), tie)
    n_bins = baseline.columns[0].n_bins
    pooled = baseline.counts[0, 0, :n_bins] / baseline.counts[0, 0, :n_bins].sum()
    for i in range(rows.n):
        code = int(codes[i, 0])
        expected = code
        if code < n_bins:
            own = baseline.season[0, 0].by_code("numeric", n_bins)[(REFERENCE + i) // 60 % 24, :n_bins].astype(float)
            rank = (own[:code].sum() + tie[i] * own[code]) / own.sum()
            expected = min(int(np.searchsorted(pooled.cumsum(), rank, side="right")), n_bins - 1)
        assert found[i, 0, 0] == expected


def test_bins_have_the_law_of_the_whole_reference_in_every_hour() -> None:
    """Chi-squared of all bins by quarter of the day, new values against the reference's shares; not so without matching."""
    baseline = reference(daily(3, 4 * REFERENCE))
    layout, rows = laid_out(baseline), minutes(daily(4, 4 * REFERENCE), 4 * REFERENCE)
    codes = Panel(spec(), baseline)._watch.coder.encode(rows)[0]  # type: ignore[union-attr]
    matched = MatchedCodes(layout).of(codes, np.zeros((rows.n, 1), np.int32), rows)[:, 0, 0]
    groups = np.minimum(np.arange(64) // 6, 9)
    shares = np.bincount(groups, baseline.counts[0, 0, :64], 10) / baseline.counts[0, 0, :64].sum()
    hour = rows.time_ms // HOUR_MS % 24
    for quarter in range(4):
        inside = hour // 6 == quarter
        figures = []
        for own in (matched, codes[:, 0]):
            seen = np.bincount(groups[own[inside & (own < 60)]], minlength=10)
            # Two samples: the reference of these hours has as many values as the window.
            figures.append(((seen - shares * seen.sum()) ** 2 / (2 * shares * seen.sum())).sum())
        assert stats.chi2.sf(figures[0], 9) > 1e-4
        assert figures[1] > 500


def shown(values: np.ndarray) -> list[float]:
    """PSI of a window of 200 rows, every 200 rows, after a reference of seven days."""
    panel, out = Panel(spec()), []
    feed(panel, values[:REFERENCE])
    for start in range(REFERENCE, len(values), 200):
        panel.update(minutes(values[start : start + 200], start))
        out.append(panel.levels(0)[0].psi or 0.0)
    return out


def test_a_harmless_day_does_not_show_in_psi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 rows PSI is .05 by chance; of a sine of .5 standard deviations it was above .25 for half of the day."""
    values = daily(5, REFERENCE + 10 * DAY_ROWS)
    matched = np.array(shown(values))
    monkeypatch.setattr(MatchedCodes, "of", no_matching)
    plain = np.array(shown(values))
    assert np.mean(plain > 0.25) > 0.5
    assert np.mean(matched > 0.25) == 0.0
    monkeypatch.undo()
    flat = np.array(shown(np.random.default_rng(5).normal(size=len(values))))
    # As many hours of seven days stand behind a window, and not all of the reference.
    assert matched.mean() == pytest.approx(flat.mean(), rel=0.3)


def episodes(values: np.ndarray) -> list[tuple[str, int]]:
    return [(s.kind, row) for row, s in feed(Panel(spec()), values) if s.kind != "baseline"]


def test_a_change_stays_open_through_the_day_and_ends_once_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days of +1 sd: a window that is held against all hours is back in its band every evening."""
    begins, ends = REFERENCE + 2 * DAY_ROWS, REFERENCE + 5 * DAY_ROWS
    wrong = 0
    for seed in range(10):
        values = daily([6, seed], REFERENCE + 8 * DAY_ROWS, share=0.5)
        values[begins:ends] += math.sqrt(0.5)
        found = episodes(values)
        kinds = [kind for kind, _ in found if kind in ("open", "recovery")]
        assert kinds == ["open", "recovery"], found
        (opened_at, recovered_at) = (row for kind, row in found if kind in ("open", "recovery"))
        assert begins < opened_at < begins + 200
        assert ends < recovered_at < ends + 2_000
        with monkeypatch.context() as patched:
            patched.setattr(MatchedCodes, "of", no_matching)
            before = [row for kind, row in episodes(values) if kind == "recovery"]
        wrong += not before or not ends < before[0] < ends + 2_000
    assert wrong >= 8


def test_a_share_above_an_edge_is_told_as_it_is() -> None:
    """Of a column with a series of a tail the windows hold the values themselves."""
    own = spec()
    assert own.columns is not None
    tail = series("x:p95", "tail:0.95", "rate")
    column = replace(own.columns[0], tails=(0.95,), series=(*own.columns[0].series, tail))
    panel, values = Panel(replace(own, columns=(column,))), daily(12, REFERENCE + 4_000)
    feed(panel, values)
    assert panel.baseline is not None
    assert panel.baseline.season
    edge = panel.baseline.columns[0].tails["0.95"]
    level = next(level for level in panel.levels(0) if level.series == "x:p95")
    assert level.rate == pytest.approx(np.mean(values[-200:] > edge), abs=0.011)


def test_a_mix_that_goes_by_the_hour_is_not_told_for_a_cause() -> None:
    """A fifth to four fifths of the rows are of `b`, by the hour, whose values are larger; then all values move by .5."""
    generator, n = np.random.default_rng(13), 14 * DAY_ROWS
    of_b = generator.random(n) < 0.5 + 0.3 * np.sin(2 * np.pi * np.arange(n) / DAY_ROWS)
    rows = minutes(generator.normal(size=n) + 2.0 * of_b)
    rows.numeric[12 * DAY_ROWS + 360 :] += 0.5
    rows = replace(rows, segments={"shop": (of_b.astype(np.int32), ["a", "b"])})
    panel = Panel(spec(segments={"shop": 2}))
    found = [s for s in panel.update(rows) if s.kind != "baseline"]
    assert panel.baseline is not None
    assert (0, 0) in panel.baseline.season
    opening = [s for s in found if s.kind == "open" and s.scope == 0]
    assert [s.row >= 12 * DAY_ROWS + 360 - REFERENCE for s in opening] == [True]
    assert opening[0].traffic is None


def test_a_window_has_as_many_values_behind_it_as_its_hours_have() -> None:
    baseline = reference(daily(7, REFERENCE))
    season = baseline.season[0, 0]
    assert season.cycles == 7
    assert compared(None, 10_080, 200) == 10_080
    assert compared(season, 10_080, 200) == 1_400
    assert compared(season, 10_080, 10) == 420, "an hour has 60 values in each of seven days"
    assert compared(season, 10_080, 5_000) == 10_080
    tables = Panel(spec(), baseline)._watch.tables  # type: ignore[union-attr]
    assert tables.compared[0, 0] == tables.psi_size[0, 0] == 1_400
    assert tables.size[0, 0] == 10_080


def test_without_a_season_codes_go_as_they_are() -> None:
    values = np.random.default_rng(8).normal(size=REFERENCE)
    layout, rows = laid_out(reference(values)), minutes(values[:100])
    codes = np.random.default_rng(9).integers(0, 60, (100, 1)).astype(np.uint8)
    found = MatchedCodes(layout).of(codes, np.zeros((100, 2), np.int32), rows)
    assert found.shape == (100, 1, 1)
    assert np.shares_memory(found, codes)


def test_an_hour_without_a_reference_is_compared_with_all_of_it() -> None:
    values = daily(10, 4 * REFERENCE)
    rows = minutes(values)
    kept = np.flatnonzero((rows.time_ms // HOUR_MS % 24 != 3) | (np.arange(rows.n) % 60 == 0))
    builder = BaselineBuilder(None, {}, grouping="auto")
    builder.add(rows.take(kept))
    baseline = builder.finish()
    assert baseline.season[0, 0].counts[3] is None
    later = minutes(daily(11, DAY_ROWS), 4 * REFERENCE)
    codes = np.full((DAY_ROWS, 1), 5, np.uint8)
    found = MatchedCodes(laid_out(baseline)).of(codes, np.zeros((DAY_ROWS, 1), np.int32), later)[:, 0, 0]
    assert (found[180:240] == 5).all()
    assert not (found == 5).all()
