"""State under another specification: what did not change is as if nothing had, the rest begins, ends or is counted again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from driftline.detectors.panel import Panel
from driftline.detectors.spec import NOT_APPLICABLE, Column, ColumnDetector, PanelSpec, Series, Signal, StateError
from tests.detectors.panel_cases import changing_stream, run, small_spec
from tests.detectors.test_panel_state import Store, placed

STREAM = changing_stream()
SPEC = small_spec(segments={"shop": 2}, learn_rows=600)
OPEN_AT = 1_300
"""Within the shift: episodes are open."""

Edit = Callable[[PanelSpec], PanelSpec]


def columns(spec: PanelSpec, change: Callable[[Column], Column | None]) -> PanelSpec:
    assert spec.columns is not None
    return replace(spec, columns=tuple(new for column in spec.columns if (new := change(column)) is not None))


def series(spec: PanelSpec, change: Callable[[Series], Series | None]) -> PanelSpec:
    return columns(spec, lambda column: replace(column, series=tuple(new for old in column.series if (new := change(old)) is not None)))


def of(name: str, **changes: object) -> Edit:
    """A change of one series."""
    return lambda spec: series(spec, lambda one: replace(one, **changes) if one.name == name else one)  # type: ignore[arg-type]


def detectors(*names: str) -> tuple[ColumnDetector, ...]:
    return tuple(ColumnDetector(name) for name in names)


NEW = Series("amount:tail", "out_of_range", detectors("adwin"), 50)

EDITS: dict[str, tuple[Edit, set[str]]] = {
    "a column is gone": (lambda s: columns(s, lambda c: None if c.name == "country" else c), {"country"}),
    "a series is gone": (lambda s: series(s, lambda o: None if o.name == "quality:amount:missing" else o), {"quality:amount:missing"}),
    "a series is new": (lambda s: columns(s, lambda c: replace(c, series=(*c.series, NEW)) if c.name == "amount" else c), {NEW.name}),
    "a detector is gone": (of("loss", detectors=detectors("psi", "page_hinkley")), {"loss"}),
    "a detector is new": (of("flagged", detectors=detectors("adwin", "rate", "page_hinkley", "river.DDM")), {"flagged"}),
    "a window is shorter": (of("feature:amount", window=70), {"feature:amount"}),
    "all rows kept are fewer": (lambda s: replace(s, window=200), set()),
    "all rows kept are more": (lambda s: replace(s, window=900), set()),
    "columns in another order": (lambda s: replace(s, columns=tuple(reversed(s.columns or ()))), set()),
    "a segment key is gone": (lambda s: replace(s, segments={}), set()),
    "another owner of a series without an episode": (of("quality:country:unseen", owner="b"), {"quality:country:unseen"}),
}


def untouched(found: list[tuple[int, Signal]], edited: set[str], *, whole_only: bool) -> list[tuple[int, str, Signal]]:
    """Signals of series that the edit does not speak of; places of columns and scopes are not part of what is said."""
    out = []
    for row, signal in found:
        if any(signal.series == name or name in signal.series.split(":") for name in edited) or (whole_only and signal.scope):
            continue
        signal = replace(signal, column=0, window=0)
        if whole_only:
            # The parts of an effect are told by the segment values.
            signal = replace(signal, traffic=None, reason=None)
        out.append((row, signal.series, signal))
    return sorted(out, key=lambda item: (item[0], item[2].scope, item[1], item[2].detector))


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("at", [900, OPEN_AT, 2_999])
def test_what_an_edit_does_not_speak_of_goes_on_to_the_bit(name: str, at: int) -> None:
    edit, edited = EDITS[name]
    spec = replace(SPEC, window=400) if name == "all rows kept are fewer" else SPEC
    always, before, store = Panel(spec), Panel(spec), Store()
    run(always, STREAM.slice(0, at))
    run(before, STREAM.slice(0, at))
    store.take(before)
    panel = store.load(edit(spec))
    store.take(panel)
    # Whatever the edit made of the state, it is a state: open it again.
    panel = store.load(edit(spec))
    gone = name == "a segment key is gone"
    expected = untouched(placed(run(always, STREAM.slice(at, STREAM.n)), at), edited, whole_only=gone)
    found = untouched(placed(run(panel, STREAM.slice(at, STREAM.n)), at), edited, whole_only=gone)
    assert found == expected
    assert found


def test_an_edit_and_its_opposite_leave_the_bytes_of_what_was_not_in_it() -> None:
    store, panel = Store(), Panel(SPEC)
    run(panel, STREAM.slice(0, OPEN_AT))
    store.take(panel)
    first = dict(store.blobs)
    store.take(store.load(replace(SPEC, window=900)))
    store.take(store.load(SPEC))
    assert store.blobs == first


def windows(panel: Panel) -> dict[tuple[str, int], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """What the windows hold: codes by series and scope."""
    watch = panel._watch
    assert watch is not None
    lanes = watch.tables.series_lane.tolist()
    return {
        (one.name, scope): watch.psi.arrays.counts[scope, lanes[q]].astype(np.int64)
        for q, one in enumerate(watch.layout.series)
        for scope in range(len(panel.scope_names))
    }


class Naive:
    """The codes of all rows since the baseline, by scope and column, and what the panel has of them."""

    def __init__(self, panel: Panel) -> None:
        assert panel._watch is not None
        self._watch = panel._watch
        self.rows: list[list[list[int]]] = [[] for _ in panel.scope_names]
        self.kept = [0 for _ in panel.scope_names]

    def take(self, first: int, stop: int) -> None:
        part = STREAM.slice(first, stop)
        codes, scopes = self._watch.coder.encode(part)[0], self._watch.scopes.encode(part)
        for row in range(part.n):
            for scope in scopes[row].tolist():
                self.rows[scope].append(codes[row].tolist())

    def forget(self, length: int) -> None:
        """No more rows are kept than these."""
        self.kept = [max(kept, len(rows) - length) for kept, rows in zip(self.kept, self.rows, strict=True)]

    def counts(self, scope: int, column: int, window: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        rows, kept = self.rows[scope], self.kept[scope]
        first = max(0, len(rows) - window)
        out: np.ndarray[tuple[int], np.dtype[np.int64]] = np.zeros(67, np.int64)
        for index in range(first, len(rows)):
            out[rows[index][column] if index >= kept else NOT_APPLICABLE] += 1
        return out


@pytest.mark.parametrize("sizes", [(70, 200), (130, 300), (200, 900), (60, 100)])
def test_resized_windows_hold_what_a_naive_count_of_the_kept_rows_holds(sizes: tuple[int, int]) -> None:
    """Once smaller and once larger than what was kept, in the order given and back."""
    panel, store = Panel(SPEC), Store()
    run(panel, STREAM.slice(0, 600))
    naive, at, ring = Naive(panel), 600, SPEC.window
    for window in (*sizes, SPEC.window, *reversed(sizes)):
        naive.take(at, at + 331)
        run(panel, STREAM.slice(at, at + 331))
        at += 331
        store.take(panel)
        edited = series(replace(SPEC, window=window), lambda one, w=window: replace(one, window=w))  # type: ignore[misc]
        panel = store.load(edited)
        naive.forget(ring)
        ring = window
        assert panel._watch is not None
        for (name, scope), counts in windows(panel).items():
            column = next(c for c, held in enumerate(panel.columns) if any(one.name == name for one in held.series))
            np.testing.assert_array_equal(counts, naive.counts(scope, column, window), err_msg=f"{name} {scope} {window}")


def test_a_larger_window_speaks_of_psi_again_once_it_is_half_full_of_rows_it_has() -> None:
    store, panel = Store(), Panel(SPEC)
    run(panel, STREAM.slice(0, 850))
    store.take(panel)
    larger = series(replace(SPEC, window=600), lambda one: replace(one, window=600))
    panel = store.load(larger)
    shown = []
    for at in range(850, 1_000):
        run(panel, STREAM.slice(at, at + 1))
        level = next(level for level in panel.levels(0) if level.series == "feature:amount")
        held = windows(panel)["feature:amount", 0]
        shown.append((int(held[:NOT_APPLICABLE].sum()), level.psi is not None))
    # 200 rows were kept of the 250 there were.
    assert [n for n, _ in shown] == list(range(201, 351))
    assert all(known == (n >= 300) for n, known in shown)
    assert {known for _, known in shown} == {True, False}


def test_removals_end_open_episodes_once_with_their_reason() -> None:
    store, panel = Store(), Panel(of("feature:amount", owner="first")(SPEC))
    run(panel, STREAM.slice(0, OPEN_AT))
    store.take(panel)
    assert panel.subjects()[1] > 3
    fewer = columns(SPEC, lambda column: None if column.name == "amount" else column)
    again = Panel.restore(fewer, store.blobs, store.rings, reasons={"amount": "closed because x was edited"})
    ended = again.ended()
    assert {(one.series, one.segment) for one in ended} >= {("feature:amount", None)}
    assert all("amount" in one.series for one in ended)
    assert {one.reason for one in ended} == {"closed because x was edited"}
    assert {one.owner for one in ended if one.series == "feature:amount"} == {"first"}
    assert again.ended() == []
    store.take(again)
    assert store.load(fewer).ended() == []


def test_segment_values_that_are_gone_end_their_episodes_and_leave_nothing_behind() -> None:
    store, panel = Store(), Panel(SPEC)
    run(panel, STREAM.slice(0, OPEN_AT))
    store.take(panel)
    again = store.load(replace(SPEC, segments={}))
    ended = again.ended()
    assert ended
    assert all(one.segment is not None and one.segment[0] == "shop" for one in ended)
    store.take(again)
    assert {name for name in (*store.blobs, *store.rings) if "/" in name} == {"scope/0", "ring/0"}


def test_another_owner_ends_an_episode_and_what_still_lasts_opens_anew() -> None:
    store, panel = Store(), Panel(of("feature:amount", owner="first")(SPEC))
    run(panel, STREAM.slice(0, OPEN_AT))
    store.take(panel)
    again = store.load(of("feature:amount", owner="second")(SPEC))
    (ended,) = [one for one in again.ended() if one.segment is None]
    assert (ended.series, ended.owner) == ("feature:amount", "first")
    assert 'monitor "second" watches it now' in ended.reason
    rest = [signal for _, signal in run(again, STREAM.slice(OPEN_AT, OPEN_AT + 40)) if not signal.scope]
    kinds = [signal.kind for signal in rest if signal.series == "feature:amount"]
    assert kinds[0] == "open"
    assert set(kinds[1:]) <= {"evidence"}


def test_an_episode_that_goes_on_keeps_who_has_spoken_where_detectors_moved() -> None:
    store, panel = Store(), Panel(SPEC)
    run(panel, STREAM.slice(0, OPEN_AT))
    store.take(panel)
    moved = of("feature:amount", detectors=detectors("page_hinkley", "adwin", "psi"))(SPEC)
    rest = STREAM.slice(OPEN_AT, STREAM.n)
    found = untouched(run(store.load(moved), rest), set(), whole_only=False)
    assert found == untouched(run(panel, rest), set(), whole_only=False)


def test_a_scope_of_all_rows_that_is_another_panels_is_silent() -> None:
    panel = Panel(replace(SPEC, whole=False))
    found = run(panel, STREAM)
    scopes = {signal.scope for _, signal in found if signal.kind != "baseline"}
    assert scopes
    assert 0 not in scopes
    assert set(panel.shown_scopes()) == {("shop", "s0"), ("shop", "s1"), ("shop", "other")}


def test_the_segments_of_a_panel_without_all_rows_are_those_of_one_with_them() -> None:
    whole, part = run(Panel(SPEC), STREAM), run(Panel(replace(SPEC, whole=False)), STREAM)
    assert [item for item in part if item[1].kind != "baseline"] == [item for item in whole if item[1].scope]


def test_rows_to_learn_from_that_lack_a_column_are_refused_by_its_name() -> None:
    store, panel = Store(), Panel(columns(SPEC, lambda column: None if column.name == "loss" else column))
    run(panel, STREAM.slice(0, 300))
    store.take(panel)
    with pytest.raises(StateError, match='the rows learned so far have no numeric column "loss"'):
        store.load()


def test_fewer_rows_to_learn_from_than_were_learned_end_with_the_next() -> None:
    store, panel = Store(), Panel(SPEC)
    run(panel, STREAM.slice(0, 300))
    store.take(panel)
    again = store.load(replace(SPEC, learn_rows=100))
    (found,) = run(again, STREAM.slice(300, 301))
    assert (found[1].kind, found[1].n) == ("baseline", 301)
    expected = Panel(replace(SPEC, learn_rows=301))
    run(expected, STREAM.slice(0, 301))
    assert again.baseline is not None
    assert expected.baseline is not None
    assert again.baseline.id == expected.baseline.id


def memory(panel: Panel, series_name: str, detector: str) -> list[bytes]:
    """What each scope's detector of a series remembers, as bytes that equal memories share."""
    watch = panel._watch
    assert watch is not None
    names = [one.name for one in watch.layout.series]
    for (q, shape, _), (bank, column) in watch.changes._members().items():
        if names[q] == series_name and f'"{detector}"' in shape:
            alone = type(bank).__name__
            scopes = range(len(panel.scope_names))
            if alone in ("PageHinkleyBank", "CusumBank", "EwmaBank"):
                return [bank.sums[scope * bank.n_columns + column].tobytes() for scope in scopes]
            if alone == "AdwinBank":
                return [bank.moments[scope * bank.n_columns + column].tobytes() for scope in scopes]
            if alone == "RateBank":
                return [bank.stakes[scope, column].tobytes() + bank.seen[scope, column].tobytes() for scope in scopes]
            return [b"" if (held := bank._detectors[scope][column]) is None else held.export() for scope in scopes]
    raise AssertionError(f"{series_name} has no {detector}")


@pytest.mark.parametrize(
    ("name", "params", "kept"),
    [
        ("page_hinkley", {"threshold": 9.0}, True),
        ("page_hinkley", {"mode": "up"}, True),
        ("page_hinkley", {"min_instances": 5}, True),
        ("page_hinkley", {"delta": 0.5}, False),
        ("page_hinkley", {"alpha": 0.99}, False),
        ("cusum", {"threshold": 9.0}, True),
        ("cusum", {"allowance": 0.5}, False),
        ("ewma", {"threshold": 3.5, "mode": "up"}, True),
        ("ewma", {"weight": 0.1}, False),
        ("adwin", {"delta": 0.01}, True),
        ("adwin", {"clock": 16}, False),
        ("river.ADWIN", {}, True),
        ("river.ADWIN", {"clock": 8}, False),
    ],
)
def test_another_threshold_goes_on_and_another_parameter_begins_anew(name: str, params: dict[str, object], *, kept: bool) -> None:
    before = of("loss", detectors=detectors(name))(SPEC)
    store, panel = Store(), Panel(before)
    run(panel, STREAM.slice(0, 900))
    store.take(panel)
    edited = of("loss", detectors=(ColumnDetector("psi"), ColumnDetector(name, params=params)))(SPEC)
    again, new = memory(store.load(edited), "loss", name), memory(Panel(edited, panel.baseline), "loss", name)
    assert memory(panel, "loss", name) != new
    assert again == (memory(panel, "loss", name) if kept else new)


def test_a_side_of_a_rate_that_was_not_watched_has_no_evidence() -> None:
    store, panel = Store(), Panel(of("flagged", direction="up")(SPEC))
    run(panel, STREAM.slice(0, 900))
    store.take(panel)
    watch = store.load(of("flagged", direction="both")(SPEC))._watch
    assert watch is not None
    place = [one.name for one in watch.layout.series].index("flagged")
    bank, column = next(found for (q, shape, _), found in watch.changes._members().items() if q == place and '"rate"' in shape)
    assert (bank.stakes[0, column, 0] > 0).all()
    assert (bank.stakes[0, column, 1] == 0).all()
