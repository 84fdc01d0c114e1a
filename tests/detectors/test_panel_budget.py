"""A panel under a budget of false alarms: who may open an episode, what is promised, that cuts never show, and what of it an edit keeps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors.budgeted import _alarms_of
from driftline.detectors.kernels.hulls import hull_arrays, hulls_of
from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, ColumnDetector, PanelBudget, PanelRows, PanelSpec, RingState, Signal, SpecError, StateError
from driftline.detectors.tolerances import mean_tolerance, rate_tolerance, scope_shares
from driftline.schemas import budget as schemas_budget
from tests.detectors.panel_cases import changing_stream, plain_rows, series, small_spec
from tests.detectors.test_panel_state import Store

STREAM = changing_stream()
CLOCK = np.cumsum(np.random.default_rng(1).choice([0, 10, 400, 9_000], STREAM.n))
WEEK_MS = 7 * 24 * 3_600_000


def under_budget(spec: PanelSpec, per_unit: float, *, by_rows: bool = True, alert: str | None = None) -> PanelSpec:
    """The same panel with an e-detector on every series that can have one."""
    budget = PanelBudget(per_unit, by_rows, 1.0 / (168 * per_unit))
    columns = []
    for column in spec.columns or ():
        own = []
        for one in column.series:
            others = tuple(replace(d, alert=d.name == alert) for d in one.detectors)
            own.append(replace(one, detectors=(*others, ColumnDetector("e_detector")) if one.flag != "constant" else others))
        columns.append(replace(column, series=tuple(own)))
    return replace(spec, columns=tuple(columns), budget=budget)


SPEC = under_budget(small_spec(segments={"shop": 2}, learn_rows=600), 2e-5, by_rows=False)


def feed(panel: Panel, rows: PanelRows, cuts: list[int], clock: np.ndarray) -> list[tuple[int, Signal]]:
    out = []
    for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), rows.n], strict=True):
        out += [(a + s.row, replace(s, row=0)) for s in panel.update(rows.slice(a, b), clock[a:b])]
    return out


def opened(found: list[tuple[int, Signal]]) -> list[tuple[int, str, str]]:
    return [(row, s.series, s.detector) for row, s in found if s.kind == "open"]


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, STREAM.n - 1), max_size=20, unique=True))
def test_any_cut_of_the_stream_gives_the_same_signals_and_the_same_bytes(cuts: list[int]) -> None:
    whole, cut = Panel(SPEC), Panel(SPEC)
    expected = feed(whole, STREAM, [], CLOCK)
    assert feed(cut, STREAM, cuts, CLOCK) == expected
    assert cut.export() == whole.export()
    assert len({series for _, series, detector in opened(expected) if detector == "e_detector"}) > 2


@pytest.mark.parametrize("stop", [300, 601, 1_700, 2_300])
def test_a_restored_panel_is_one_that_never_stopped(stop: int) -> None:
    whole, running = Panel(SPEC), Panel(SPEC)
    expected = [(row, s) for row, s in feed(whole, STREAM, [], CLOCK) if row >= stop]
    feed(running, STREAM.slice(0, stop), [], CLOCK[:stop])
    blobs, rings = running.export()
    kept = {name: blob for name, blob in blobs.items() if blob is not None}
    panel = Panel.restore(SPEC, kept, {ring.name: ring for ring in rings})
    rest = STREAM.slice(stop, STREAM.n)
    assert [(row + stop, s) for row, s in feed(panel, rest, [], CLOCK[stop:])] == expected


def test_a_blame_in_a_scope_without_rows_is_in_the_next_checkpoint() -> None:
    """An alarm clears monitors of any scope; one that had no rows since the last export must be written all the same."""
    panel = Panel(SPEC)
    kept: dict[str, bytes] = {}
    rings: dict[str, RingState] = {}
    for start in range(0, STREAM.n, 50):
        part = STREAM.slice(start, start + 50)
        panel.update(part, CLOCK[start : start + 50])
        blobs, written = panel.export()
        kept = {**kept, **{k: v for k, v in blobs.items() if v is not None}}
        for ring in written:
            before = b"" if ring.full or ring.name not in rings else rings[ring.name].rows
            rings[ring.name] = replace(ring, rows=(before + ring.rows)[-ring.window * ring.record_bytes :])
        for name, blob in blobs.items():
            if blob is None:
                kept.pop(name, None)
    again = Panel.restore(SPEC, kept, rings)
    assert again._watch is not None
    assert panel._watch is not None
    assert again._watch.budget is not None
    assert panel._watch.budget is not None
    assert again._watch.budget._bank.export() == panel._watch.budget._bank.export()


def test_what_an_alarm_left_above_one_is_in_the_state_and_alarms_on_the_next_row() -> None:
    generator = np.random.default_rng(12)
    values = {name: np.r_[generator.normal(size=2_000), generator.normal(shift, 1.0, 300)] for name, shift in (("a", 8.0), ("b", 8.0))}
    shops = (generator.integers(0, 2, 2_300).astype(np.int32), ["x", "y"])
    rows = replace(plain_rows(values), segments={"shop": shops})
    spec = replace(plain_spec(["a", "b"], 1e-5, "psi"), segments={"shop": 2})
    panel, store, above = Panel(spec), Store(), 0
    expected = feed(Panel(spec), rows, [], np.arange(rows.n))
    found = []
    for start in (0, *range(1_990, rows.n)):
        stop = 1_990 if not start else start + 1
        found += [(start + s.row, replace(s, row=0)) for s in panel.update(rows.slice(start, stop), np.arange(start, stop))]
        store.take(panel)
        panel = store.load(spec)
        budget = panel._watch.budget if panel._watch is not None else None
        above += budget is not None and budget._bank.total > 1.0
    assert above > 0
    assert found == expected


def test_a_sum_that_is_not_the_evidences_is_refused() -> None:
    panel, store = Panel(SPEC), Store()
    feed(panel, STREAM.slice(0, 1_300), [], CLOCK[:1_300])
    assert panel._watch is not None
    assert panel._watch.budget is not None
    panel._watch.budget._bank.state.sums[0] += 0.5
    store.take(panel)
    with pytest.raises(StateError, match="the sum is not that of the evidence"):
        store.load(SPEC)


def plain_spec(names: list[str], per_unit: float, *detectors: str, alert: str | None = None, learn: int = 2_000) -> PanelSpec:
    columns = tuple(Column(name, "numeric", (series(name, None, *detectors, run_length=1e4),)) for name in names)
    return under_budget(PanelSpec(columns=columns, window=200, learn_rows=learn), per_unit, alert=alert)


def run_rows(spec: PanelSpec, columns: dict[str, np.ndarray]) -> list[tuple[int, Signal]]:
    rows = plain_rows(columns)
    return feed(Panel(spec), rows, [], np.arange(rows.n))


def test_episodes_on_a_stream_without_a_change_stay_within_the_budget() -> None:
    names, rows, runs, budget = ["a", "b", "c", "d"], 10_000, 12, 1 / 2_000
    episodes = 0
    for run in range(runs):
        generator = np.random.default_rng([5, run])
        values = {name: generator.lognormal(size=2_000 + rows) for name in names}
        # PSI and ADWIN at a run length of 10,000 fire often here; they are not what opens
        found = opened(run_rows(plain_spec(names, budget, "psi", "adwin", "page_hinkley"), values))
        assert {detector for *_, detector in found} <= {"e_detector"}
        episodes += len(found)
    expected = runs * rows * budget
    assert episodes <= expected + 3 * math.sqrt(expected)


def test_the_e_detector_opens_and_the_others_are_evidence() -> None:
    generator = np.random.default_rng(6)
    values = np.r_[generator.normal(size=6_000), generator.normal(0.8, 1.0, 1_500)]
    found = run_rows(plain_spec(["x"], 1e-5, "psi", "adwin"), {"x": values})
    row, signal = next((row, s) for row, s in found if s.kind == "open")
    assert 6_000 < row < 6_120
    assert (signal.detector, signal.direction, signal.effect_kind, signal.threshold) == ("e_detector", "up", "mean", 1.0)
    assert signal.statistic is not None
    assert signal.statistic >= 1.0
    assert signal.since is not None
    assert abs(signal.since.offset - 6_000) <= 64
    assert "not covered" not in (signal.reason or "")
    assert {s.detector for _, s in found if s.kind == "evidence"} >= {"psi"}


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_interval_of_a_date_is_told_in_times_that_hold_the_change(missing: float) -> None:
    """Of all rows and of each segment value, whose alarms wait for a row of theirs; from 8,192 rows on anchors are 1,024 apart."""
    held, widths = [], []
    for run in range(6):
        generator = np.random.default_rng([10, run])
        values = {name: np.r_[generator.normal(size=6_000), generator.normal(0.5, 1.0, 3_000)] for name in ("a", "b")}
        for column in values.values():
            column[generator.random(9_000) < missing] = np.nan
        shops = (generator.integers(0, 2, 9_000).astype(np.int32), ["x", "y"])
        rows = replace(plain_rows(values), segments={"shop": shops})
        spec = replace(plain_spec(["a", "b"], 1e-5), segments={"shop": 2})
        for _, signal in feed(Panel(spec), rows, [], np.arange(rows.n)):
            if signal.kind != "open":
                continue
            assert signal.between is not None
            assert signal.since is not None
            earliest, latest = signal.between
            assert earliest is not None
            assert earliest <= signal.since.time_ms <= latest
            held.append(earliest <= rows.time_ms[6_000] <= latest)
            widths.append((latest - earliest) // (rows.time_ms[1] - rows.time_ms[0]))
    assert len(held) >= 6 * 4
    assert np.mean(held) >= 0.9
    assert np.median(widths) < 1_000


def test_alarms_that_waited_in_an_older_checkpoint_have_a_date_and_no_interval() -> None:
    held = np.array([1.25, 40.0, -1.0, 0.0, 0.0, 0.0])
    assert _alarms_of(held, 2).tolist() == [[1.25, 40.0, -1.0, 0.0, 0.0], [0.0] * 5]
    assert _alarms_of(np.arange(5.0) / 4, 1).tolist() == [[0.0, 0.25, 0.5, 0.75, 1.0]]
    for damaged in (held[:5], -held, np.where(held == 40.0, np.nan, held)):
        with pytest.raises(ValueError, match="damaged"):
            _alarms_of(damaged, 2)


def test_a_change_of_spread_opens_by_its_distribution() -> None:
    generator = np.random.default_rng(7)
    values = np.r_[generator.normal(size=5_000), generator.normal(0.0, 1.8, 600)]
    signal = next(s for _, s in run_rows(plain_spec(["x"], 1e-5, "psi"), {"x": values}) if s.kind == "open")
    assert (signal.detector, signal.effect_kind) == ("e_detector", "psi")


def test_a_small_lasting_shift_opens_nothing() -> None:
    generator = np.random.default_rng(8)
    values = np.r_[generator.normal(size=5_000), generator.normal(0.05, 1.0, 60_000)]
    assert opened(run_rows(plain_spec(["x"], 1e-5, "psi", "page_hinkley", learn=5_000), {"x": values})) == []


def test_a_detector_that_is_asked_to_alert_opens_and_says_that_it_is_not_covered() -> None:
    generator = np.random.default_rng(9)
    values = np.r_[generator.normal(size=5_000), generator.normal(3.0, 1.0, 100)]
    # a budget so small that the e-detector comes second
    found = run_rows(plain_spec(["x"], 1e-300, "page_hinkley", alert="page_hinkley"), {"x": values})
    signal = next(s for _, s in found if s.kind == "open")
    assert signal.detector == "page_hinkley"
    assert (signal.reason or "").endswith("; not covered by the budget")
    assert opened(run_rows(plain_spec(["x"], 1e-300, "page_hinkley"), {"x": values})) == []


def test_levels_show_the_evidence() -> None:
    panel = Panel(SPEC)
    feed(panel, STREAM, [], CLOCK)
    levels = {level.series: level for level in panel.levels(0)}
    assert levels["feature:country"].threshold is not None
    assert levels["quality:country:unseen"].statistic is not None


def test_the_shares_of_scopes_sum_to_the_budget() -> None:
    assert scope_shares({}) == [1.0]
    shares = scope_shares({"shop": ("a", "b"), "country": ("x",)})
    assert shares == pytest.approx([0.5, 1 / 12, 1 / 12, 1 / 12, 1 / 8, 1 / 8])
    watch = Panel(SPEC)
    feed(watch, STREAM, [], CLOCK)
    assert watch._watch is not None
    assert watch._watch.budget is not None
    # scopes that are too small to be watched keep theirs, unspent
    assert float(watch._watch.budget._bank.rate.sum()) <= 2e-5 * (1 + 1e-12)


def test_tolerances_are_the_warning_level_and_the_references_errors() -> None:
    assert mean_tolerance(0.1, 10_000, has_mean=True, errors=4.0) == 0.1
    assert mean_tolerance(0.1, 400, has_mean=True, errors=4.0) == 0.2
    assert mean_tolerance(0.1, 10_000, has_mean=False, errors=4.0) == pytest.approx(math.sqrt(0.1))
    share = series("quality:a:missing", "missing", "rate", direction="up", warning=0.2)
    assert rate_tolerance(share, 0.1, 10**9, 4.0) == pytest.approx((0.1, 0.2, 0.2), abs=1e-3)
    base, up, down = rate_tolerance(share, 0.0, 1_000, 4.0)
    assert base == 0.0005
    # without a hit in 1,000 the rate may be 1.5 % (Wilson, four errors), and as small as you like
    assert 0.01 < base * (1 + up) < 0.02
    assert base / (1 + down) < 1e-8


def test_a_rate_that_was_never_seen_is_heard_when_it_rises_on_both_sides_as_on_one() -> None:
    """What it tolerates downwards, which is all, is not tolerated upwards."""
    delays = []
    for direction in ("up", "both"):
        generator = np.random.default_rng(11)
        flag = series("decision", "one", "rate", direction=direction, warning=0.2)
        spec = under_budget(PanelSpec(columns=(Column("decision", "binary", (flag,)),), window=200, learn_rows=600), 1e-5)
        values = np.r_[np.zeros(3_000), (generator.random(1_000) < 0.17).astype(float)]
        delays.append(next(row for row, s in run_rows(spec, {"decision": values}) if s.kind == "open") - 3_000)
    assert max(delays) < 100
    assert delays[1] < 2 * delays[0] + 20


def test_a_thousand_small_references_tolerate_their_own_errors() -> None:
    """Each of 1,000 references of 250 values is off by its own error for ever: that is no change in any of them."""
    means = np.abs(np.random.default_rng(2).normal(size=(1_000, 250)).mean(axis=1))
    assert np.count_nonzero(means > 2 / math.sqrt(250)) > 20
    assert np.count_nonzero(means > mean_tolerance(0.1, 250, has_mean=True, errors=PanelBudget(1e-6, True, 1.0).errors)) == 0
    assert PanelBudget(1e-6, True, 1.0).errors == schemas_budget.REFERENCE_ERRORS


@pytest.mark.parametrize("seed", range(3))
def test_categories_without_an_end_are_no_change(seed: int) -> None:
    """A new value of a long-tailed feature was never seen with about the share of those that came once."""
    generator = np.random.default_rng(seed)
    values = generator.geometric(0.02, 20_000)
    unseen = series("quality:c:unseen", "unseen", "e_detector", direction="up")
    columns = (Column("c", "categorical", (series("feature:c", None, "e_detector"), unseen)),)
    spec = PanelSpec(columns=columns, segments={}, window=1_000, learn_rows=3_000, budget=PanelBudget(1e-6, True, 6_000.0))
    names = [f"m{k}" for k in range(values.max() + 1)]
    rows = PanelRows(
        n=20_000, numeric=np.zeros((20_000, 0)), numeric_names=[], categorical={"c": (values.astype(np.int32), names)}, segments={},
        source=np.zeros(20_000, np.uint16), offset=np.arange(20_000), time_ms=np.arange(20_000),
    )  # fmt: skip
    panel = Panel(spec)
    assert opened(feed(panel, rows, [], np.arange(20_000))) == []
    assert panel._watch is not None
    once = np.count_nonzero(np.bincount(values[:3_000]) == 1) / 3_000
    assert once <= float(panel._watch.tables.rate[0, 1]) < 0.1


def test_an_e_detector_without_a_budget_or_a_test_is_refused() -> None:
    spec = plain_spec(["x"], 1e-5)
    with pytest.raises(SpecError, match="needs a budget; the panel has none"):
        run_rows(replace(spec, budget=None), {"x": np.random.default_rng(1).normal(size=3_000)})
    constant = Column("x", "numeric", (series("x:constant", "constant", "e_detector"),))
    with pytest.raises(SpecError, match="a run of equal values"):
        run_rows(replace(spec, columns=(constant,)), {"x": np.random.default_rng(1).normal(size=3_000)})


def e_detectors(panel: Panel) -> dict[tuple[tuple[str, str] | None, str], bytes]:
    """What each e-detector remembers, by scope and series; those that have seen nothing are left out."""
    assert panel._watch is not None
    held = panel._watch.budget
    assert held is not None
    out: dict[tuple[tuple[str, str] | None, str], bytes] = {}
    state = held._bank.state
    for scope, name in enumerate(panel.scope_names):
        for k, q in enumerate(held._series.tolist()):
            place = scope * held._n + k
            if state.seen[place]:
                hull = hull_arrays(hulls_of(state.hulls, slice(place, place + 1)))
                own = [*(array[place] for array in state[:7]), *hull, held._waiting[place]]
                out[name, panel._watch.layout.series[q].name] = b"".join(array.tobytes() for array in own)
    return out


EDITED_AT = 1_300
"""Within the shift: episodes are open, and there is evidence."""


def edited(spec: PanelSpec, *, before: PanelSpec = SPEC) -> tuple[Panel, Panel]:
    """The panel as it stood, and as it is under another specification, which was written and read once more."""
    panel, store = Panel(before), Store()
    feed(panel, STREAM.slice(0, EDITED_AT), [], CLOCK[:EDITED_AT])
    store.take(panel)
    store.take(store.load(spec))
    return panel, store.load(spec)


def of_series(spec: PanelSpec, name: str, **changes: object) -> PanelSpec:
    def change(column: Column) -> Column:
        return replace(column, series=tuple(replace(one, **changes) if one.name == name else one for one in column.series))  # type: ignore[arg-type]

    return replace(spec, columns=tuple(change(column) for column in spec.columns or ()))


@pytest.mark.parametrize("per_unit", [1e-3, 1e-9])
def test_another_number_of_false_alarms_is_a_threshold(per_unit: float) -> None:
    assert SPEC.budget is not None
    before, after = edited(replace(SPEC, budget=replace(SPEC.budget, per_unit=per_unit)))
    assert before.export() == ({}, [])
    assert e_detectors(after) == e_detectors(before)
    assert after.ended() == []


def test_an_edit_beside_the_budget_changes_no_evidence_and_what_follows_is_the_same_to_the_bit() -> None:
    before, after = edited(replace(SPEC, window=300))
    rest, clock = STREAM.slice(EDITED_AT, STREAM.n), CLOCK[EDITED_AT:]
    assert e_detectors(after) == e_detectors(before)
    found, expected = feed(after, rest, [], clock), feed(before, rest, [], clock)
    assert [(row, s.series, s.kind, s.statistic) for row, s in found] == [(row, s.series, s.kind, s.statistic) for row, s in expected]
    assert opened(expected)


@pytest.mark.parametrize("changes", [{"warning": 0.5}, {"direction": "down"}])
def test_an_e_detector_that_bets_on_something_else_begins_anew_and_the_others_go_on(changes: dict[str, object]) -> None:
    before, after = edited(of_series(SPEC, "feature:amount", **changes))
    gone = {key for key in e_detectors(before) if key[1] == "feature:amount"}
    assert len(gone) > 1
    assert e_detectors(after) == {key: held for key, held in e_detectors(before).items() if key not in gone}
    budget = after._watch.budget if after._watch is not None else None
    assert budget is not None
    assert budget._bank.total == pytest.approx(float(budget._bank.state.evidence.sum()))


def test_a_series_that_is_gone_takes_its_evidence_along() -> None:
    fewer = replace(SPEC, columns=tuple(column for column in SPEC.columns or () if column.name != "loss"))
    before, after = edited(fewer)
    assert e_detectors(after) == {key: held for key, held in e_detectors(before).items() if not key[1].startswith("loss")}
    assert [one.series for one in after.ended()] == []


def test_a_budget_that_is_given_or_taken_away_leaves_the_other_detectors_alone() -> None:
    plain = small_spec(segments={"shop": 2}, learn_rows=600)
    before, after = edited(SPEC, before=plain)
    assert e_detectors(after) == {}
    assert before._watch is not None
    assert after._watch is not None
    assert after._watch.changes.export(0) == before._watch.changes.export(0)
    with_budget, without = edited(plain)
    assert with_budget._watch is not None
    assert without._watch is not None
    assert without._watch.budget is None
    assert without._watch.changes.export(0) == with_budget._watch.changes.export(0)


def test_a_budget_by_events_does_not_go_on_from_one_by_time() -> None:
    assert SPEC.budget is not None
    before, after = edited(replace(SPEC, budget=replace(SPEC.budget, by_rows=True)))
    assert e_detectors(before)
    assert e_detectors(after) == {}


def test_a_panel_that_another_one_spares_all_rows_has_its_budget_for_the_segments() -> None:
    assert scope_shares({"shop": ("a", "b")}, whole=False) == pytest.approx([0.0, 1 / 3, 1 / 3, 1 / 3])
    panel = Panel(replace(SPEC, whole=False))
    feed(panel, STREAM, [], CLOCK)
    assert e_detectors(panel)
    assert None not in {scope for scope, _ in e_detectors(panel)}
