"""Checkpoints: going on as if never stopped, and bytes that are not what they should be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors.panel import Panel
from driftline.detectors.panel_spec import describe
from driftline.detectors.spec import PanelRows, PanelSpec, RingState, Signal, StateError
from tests.detectors.panel_cases import changing_stream, run, small_spec

STREAM = changing_stream()
SPEC = small_spec(segments={"shop": 2}, learn_rows=600)


class Store:
    """What a checkpoint store does with exports."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.rings: dict[str, RingState] = {}

    def take(self, panel: Panel) -> None:
        blobs, rings = panel.export()
        for name, blob in blobs.items():
            if blob is None:
                assert self.blobs.pop(name, None) or self.rings.pop(name, None)
            else:
                self.blobs[name] = blob
        for ring in rings:
            old = self.rings.get(ring.name)
            rows = ring.rows if ring.full or old is None else old.rows + ring.rows
            kept = min(ring.head, ring.window) * ring.record_bytes
            self.rings[ring.name] = replace(ring, rows=rows[len(rows) - kept :], full=False)

    def load(self, spec: PanelSpec = SPEC) -> Panel:
        return Panel.restore(spec, self.blobs, self.rings)


def placed(found: list[tuple[int, Signal]], start: int = 0) -> list[tuple[int, Signal]]:
    return [(start + row, replace(signal, row=0)) for row, signal in found]


def restarted(spec: PanelSpec, rows: PanelRows, cuts: Collection[int]) -> tuple[list[tuple[int, Signal]], Store]:
    """The signals of a panel that is read before each piece of the rows and written after it, and what is then stored."""
    store, found = Store(), []
    for a, b in pairwise([0, *sorted(cuts), rows.n]):
        panel = store.load(spec)
        found += placed(run(panel, rows.slice(a, b)), a)
        store.take(panel)
    return found, store


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(1, STREAM.n - 1), min_size=1, max_size=8, unique=True))
def test_restoring_at_every_commit_equals_never_stopping(cuts: list[int]) -> None:
    expected = placed(run(Panel(SPEC), STREAM))
    found, store = restarted(SPEC, STREAM, cuts)
    assert found == expected
    once, whole = Panel(SPEC), Store()
    run(once, STREAM)
    whole.take(once)
    assert store.blobs == whole.blobs
    assert store.rings == whole.rings


def test_an_export_holds_only_what_changed() -> None:
    panel = Panel(SPEC)
    run(panel, STREAM.slice(0, 500))
    blobs, rings = panel.export()
    assert (set(blobs), rings) == ({"spec", "learn/0"}, [])
    assert panel.export() == ({}, [])
    run(panel, STREAM.slice(500, 700))
    blobs, rings = panel.export()
    assert blobs["learn/0"] is None
    assert {"spec", "baseline", "scope/0"} <= set(blobs)
    assert panel.export() == ({}, [])
    one = STREAM.slice(700, 701)
    run(panel, one)
    blobs, rings = panel.export()
    assert len(blobs) == 2
    assert [(ring.name.partition("/")[0], len(ring.rows)) for ring in rings] == [("ring", 4), ("ring", 4), ("traffic", 2)]
    run(panel, STREAM.slice(701, 1_500))
    _, rings = panel.export()
    assert [ring.full for ring in rings if ring.name == "ring/0"] == [True]


def saved(stop: int = 1_300) -> tuple[dict[str, bytes], dict[str, RingState]]:
    store, panel = Store(), Panel(SPEC)
    run(panel, STREAM.slice(0, stop))
    store.take(panel)
    return store.blobs, store.rings


SAVED = saved()
LEARNING = saved(300)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_blobs_are_refused_by_name(data: st.DataObject) -> None:
    blobs, rings = data.draw(st.sampled_from([SAVED, LEARNING]))
    name = data.draw(st.sampled_from(sorted(blobs)))
    damaged = bytearray(blobs[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    with pytest.raises(StateError, match="checkpoint"):
        Panel.restore(SPEC, {**blobs, name: bytes(damaged)}, rings)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_damaged_rings_never_pass_for_the_window(data: st.DataObject) -> None:
    blobs, rings = SAVED
    name = data.draw(st.sampled_from(sorted(set(rings) - {"traffic"})))   # its rows are counted nowhere else
    rows = bytearray(rings[name].rows)
    at = data.draw(st.integers(0, len(rows) - 1))
    rows[at] = data.draw(st.integers(0, 255).filter(lambda value: value != rings[name].rows[at]))
    in_short_lane = at % 4 == 2 and at // 4 < len(rows) // 4 - 100
    try:
        Panel.restore(SPEC, blobs, {**rings, name: replace(rings[name], rows=bytes(rows))})
    except StateError:
        return
    assert in_short_lane


def test_segment_values_of_another_moment_tell_nothing_and_unknown_ones_are_refused() -> None:
    blobs, rings = saved(1_040)
    whole = run(Panel.restore(SPEC, blobs, rings), STREAM.slice(1_040, 1_300))
    assert any(signal.traffic for _, signal in whole)
    held = rings["traffic"]
    without = {name: ring for name, ring in rings.items() if name != "traffic"}
    for other in (without, {**rings, "traffic": replace(held, head=held.head - 1)}):
        panel = Panel.restore(SPEC, blobs, other)
        found = run(panel, STREAM.slice(1_040, 1_300))
        assert [row for row, _ in found] == [row for row, _ in whole]
        assert any(signal.traffic is None and was.traffic for (_, signal), (_, was) in zip(found, whole, strict=True))
        _, written = panel.export()
        assert [ring.full for ring in written if ring.name == "traffic"] == [True]
    for rows in (held.rows[:-1], b"\xf0\x00" + held.rows[2:]):
        with pytest.raises(StateError, match="traffic"):
            Panel.restore(SPEC, blobs, {**rings, "traffic": replace(held, rows=rows)})


@pytest.mark.parametrize(
    "change",
    [{"head": 7}, {"record_bytes": 3}, {"window": 100}, {"rows": b""}, {"head": -1}],
)
def test_a_ring_of_another_moment_or_shape_is_refused(change: dict[str, int]) -> None:
    blobs, rings = SAVED
    with pytest.raises(StateError, match="scope/0"):
        Panel.restore(SPEC, blobs, {**rings, "ring/0": replace(rings["ring/0"], **change)})  # type: ignore[arg-type]


def test_a_missing_ring_is_refused() -> None:
    with pytest.raises(StateError, match="ring is missing"):
        Panel.restore(SPEC, SAVED[0], {})


@pytest.mark.parametrize("state", [SAVED, LEARNING])
def test_severities_and_run_lengths_may_change_between_two_starts(state: tuple[dict[str, bytes], dict[str, RingState]]) -> None:
    edited = _edited(small_spec(segments={"shop": 2}, learn_rows=600, run_length=2e4), warning=0.3, critical=0.6)
    panel = Panel.restore(edited, *state)
    run(panel, STREAM.slice(panel.learned if panel.baseline is None else 1_300, STREAM.n))
    assert panel.baseline is not None


def test_after_quiet_rows_edited_thresholds_hold_as_if_they_always_had() -> None:
    edited = _edited(SPEC, warning=0.3, critical=0.6)
    always, before, store = Panel(edited), Panel(SPEC), Store()
    run(always, STREAM.slice(0, 700))
    run(before, STREAM.slice(0, 700))
    store.take(before)
    found = run(store.load(edited), STREAM.slice(700, STREAM.n))
    assert found == run(always, STREAM.slice(700, STREAM.n))
    assert found != run(before, STREAM.slice(700, STREAM.n))


def _edited(spec: PanelSpec, *, warning: float, critical: float) -> PanelSpec:
    assert spec.columns is not None
    columns = tuple(
        replace(column, series=tuple(replace(series, warning=warning, critical=critical) for series in column.series))
        for column in spec.columns
    )
    return replace(spec, columns=columns)


def test_no_state_is_a_new_panel() -> None:
    panel = Panel.restore(SPEC, {}, {})
    assert (panel.learned, panel.baseline) == (0, None)


def test_a_panel_from_a_file_restores_with_its_baseline() -> None:
    learned = Panel(SPEC)
    run(learned, STREAM.slice(0, 600))
    store, panel = Store(), Panel(SPEC, learned.baseline)
    store.take(panel)
    again = store.load()
    assert again.baseline is not None
    assert learned.baseline is not None
    assert again.baseline.id == learned.baseline.id
    assert placed(run(again, STREAM.slice(600, 2_000))) == placed(run(panel, STREAM.slice(600, 2_000)))


def test_while_a_panel_learns_its_series_detectors_and_windows_may_be_edited_as_if_they_always_had_been() -> None:
    assert SPEC.columns is not None
    fewer = tuple(replace(column, series=tuple(replace(s, window=60) for s in column.series[:1])) for column in SPEC.columns)
    edited = replace(SPEC, columns=fewer, window=400, learn_rows=500)
    store, panel = Store(), Panel(SPEC)
    run(panel, STREAM.slice(0, 450))
    store.take(panel)
    again = store.load(edited)
    store.take(again)  # the new specification stands in the checkpoint before any row has come
    always = Panel(edited)
    run(always, STREAM.slice(0, 450))
    expected = run(always, STREAM.slice(450, STREAM.n))
    assert run(store.load(edited), STREAM.slice(450, STREAM.n)) == expected
    assert expected


def _hash_only(spec: PanelSpec, blobs: dict[str, bytes]) -> dict[str, bytes]:
    """The state as the release before wrote it: a hash of the specification alone."""
    described = describe(spec, spec.columns)
    del described["whole"]
    for column in described["columns"]:
        for one in column["series"]:
            del one["owner"]
    text = json.dumps(described, sort_keys=True)
    learns = [[column["name"], column["kind"], column["tails"]] for column in described["columns"]]
    taken = json.dumps({"columns": learns, "segments": described["segments"], "sensitive": []}, sort_keys=True)
    hashes = {"spec": hashlib.sha256(text.encode()).hexdigest(), "learns": hashlib.sha256(taken.encode()).hexdigest()}
    return {**blobs, "spec": json.dumps({"version": 2, "outline": {}, **hashes}).encode()}


@pytest.mark.parametrize(("state", "at"), [(SAVED, 1_300), (LEARNING, 300)])
def test_the_state_of_the_release_before_goes_on_and_is_written_anew(state: tuple[dict[str, bytes], dict[str, RingState]], at: int) -> None:
    store = Store()
    store.blobs, store.rings = _hash_only(SPEC, state[0]), dict(state[1])
    panel = store.load()
    expected = Panel.restore(SPEC, *state)
    assert run(panel, STREAM.slice(at, STREAM.n)) == run(expected, STREAM.slice(at, STREAM.n))
    store.take(panel)
    # Once it says what it was made with, it may be edited.
    store.load(small_spec(learn_rows=600))


def test_an_edit_of_the_state_of_the_release_before_is_refused_by_name() -> None:
    assert SPEC.columns is not None
    for blobs, rings in (SAVED, LEARNING):
        with pytest.raises(StateError, match=r"an older release made it, .* start this release once with the old settings"):
            Panel.restore(replace(SPEC, columns=SPEC.columns[1:]), _hash_only(SPEC, blobs), rings)


def test_a_newer_release_is_named() -> None:
    newer = SAVED[0]["spec"].replace(b'"version": 3', b'"version": 4')
    with pytest.raises(StateError, match="version 4, this release reads versions 2 and 3"):
        Panel.restore(SPEC, {**SAVED[0], "spec": newer}, SAVED[1])
