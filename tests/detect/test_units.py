"""Units: which rows are watched, by a plain loop, by any cut and restart, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.schemas.config import Model
from driftline.streams.detect.gather import gather
from driftline.streams.detect.units import HeldUnits, Units
from driftline.streams.observation import NO_UNIT, Observations, decode, encode
from driftline.streams.task import MemoryRecord, Output, RestoredState
from tests.detect.test_changed_configuration import Store
from tests.detect.test_task import CONFIG, TOPIC, events, open_task, run, stream

HOUR = 3_600_000
MODEL = Model(unit="card", unit_window=HOUR)
UNIT_CONFIG = CONFIG.replace("    window: 300\n", "    unit: card\n    unit_window: 10s\n    window: 300\n")


def plain(units: Sequence[int], times: Sequence[int], generation: int) -> list[int]:
    """The watched rows by the words of the documentation."""
    older: dict[int, int] = {}
    newer: dict[int, int] = {}
    taken, out = 0, []
    for row, (unit, time) in enumerate(zip(units, times, strict=True)):
        warm = time >= times[0] + HOUR
        if unit == NO_UNIT:
            if warm:
                out.append(row)
            continue
        last = newer.get(unit, older.get(unit))
        if last is not None and time - last < HOUR:
            continue
        newer[unit] = time
        taken += 1
        if warm:
            out.append(row)
        if taken == generation:
            older, newer, taken = newer, {}, 0
    return out


def in_cuts(units: list[int], times: list[int], cuts: Sequence[int], generation: int, *, restart: bool) -> list[int]:
    """The same through `Units`, in pieces, with a restart from what a checkpoint holds after each."""
    held = Units(MODEL, generation)
    ring, out, start = b"", [], 0
    for stop in sorted({*cuts, len(units)}):
        own = np.array(units[start:stop], np.int64)
        out += (held.watched(own, np.array(times[start:stop], np.int64)) + start).tolist()
        if (written := held.ring("units")) is not None:
            ring = (b"" if written.full else ring) + written.rows
            ring = ring[-written.record_bytes * written.window :]
        if restart:
            state = msgspec.convert(msgspec.json.decode(msgspec.json.encode(held.export())), HeldUnits)
            held = Units.restore(MODEL, state, ring, generation)
        start = stop
    return out


rows = st.lists(st.tuples(st.integers(-3, 12), st.integers(0, 5 * HOUR)), min_size=1, max_size=120)


@given(rows, st.lists(st.integers(0, 120), max_size=6), st.integers(1, 9), st.booleans(), st.booleans())
def test_watched_rows_are_those_of_a_plain_loop_however_cut_and_restarted(
    found: list[tuple[int, int]], cuts: list[int], generation: int, ordered: bool, restart: bool
) -> None:
    units, times = [unit for unit, _ in found], [time for _, time in found]
    times = sorted(times) if ordered else times
    within = [cut for cut in cuts if cut <= len(units)]
    assert in_cuts(units, times, within, generation, restart=restart) == plain(units, times, generation)


def test_tables_grow_and_no_two_watched_rows_of_a_unit_are_within_the_window() -> None:
    rng = np.random.default_rng(3)
    pool = rng.integers(1, 2**62, 30_000) * rng.choice([-1, 1], 30_000)
    units, times = rng.choice(pool, 200_000), np.sort(rng.integers(0, 12 * HOUR, 200_000))
    watched = Units(MODEL).watched(units, times)
    last: dict[int, int] = {}
    for row in watched.tolist():
        unit, time = int(units[row]), int(times[row])
        assert time - last.get(unit, -HOUR) >= HOUR
        last[unit] = time
    # Not less than it may: every unit whose last row was an hour ago is watched at its next one.
    assert watched.tolist() == plain(units.tolist(), times.tolist(), 1 << 16)


def test_the_first_window_is_left_out_as_its_rows_are_of_those_who_come_most() -> None:
    """Half of the cards come every two minutes, half every four hours; the share of each among watched rows is steady from the start."""
    rng = np.random.default_rng(8)
    busy, rare = 200, 200
    span = 40 * HOUR
    found = [(card + 1, t) for card in range(busy) for t in np.cumsum(rng.exponential(HOUR / 30, 1_400)).astype(int).tolist()]
    found += [(busy + card + 1, t) for card in range(rare) for t in np.cumsum(rng.exponential(4 * HOUR, 30)).astype(int).tolist()]
    found = sorted((t, unit) for unit, t in found if t < span)
    units, times = np.array([unit for _, unit in found]), np.array([t for t, _ in found])
    watched = Units(MODEL).watched(units, times)
    share = [float(np.mean(units[part] <= busy)) for part in np.array_split(watched, 10)]
    law = (1 / (HOUR + HOUR / 30)) / (1 / (HOUR + HOUR / 30) + 1 / (5 * HOUR))   # renewals: one row a window and wait
    assert share == pytest.approx([law] * 10, abs=4 * np.sqrt(law * (1 - law) / (len(watched) / 10)))
    first = np.unique(units, return_index=True)[1]
    assert np.mean(units[np.sort(first)[:200]] <= busy) > 0.9   # what a reference would have begun with


def test_of_another_unit_or_window_nothing_is_remembered() -> None:
    units = Units(MODEL, 4)
    units.watched(np.array([1, 2, 3]), np.array([0, 1, 2 * HOUR]))
    state = msgspec.convert(units.export(), HeldUnits)
    written = units.ring("units")
    assert written is not None
    for other in (Model(unit="user", unit_window=HOUR), Model(unit="card", unit_window=2 * HOUR)):
        again = Units.restore(other, state, written.rows, 4)
        assert again.export()["first_ms"] is None
        assert again.watched(np.array([9]), np.array([5 * HOUR])).tolist() == []
        ring = again.ring("units")
        assert ring is not None
        assert (ring.head, ring.full) == (1, True)


@pytest.mark.parametrize(("sizes", "held"), [((0, 3), 2), ((2, 2), 3), ((0, 5), 5)])
def test_a_state_without_its_rows_is_refused(sizes: tuple[int, int], held: int) -> None:
    state = HeldUnits(("card", HOUR), 0, sizes, sum(sizes))
    with pytest.raises(ValueError, match="the units have"):
        Units.restore(MODEL, state, bytes(16 * held), 4)


def with_units(sizes: Sequence[int], *, change_at: int = 1_500) -> list[MemoryRecord]:
    """The stream of the task's tests in bursts: each row comes three times, and every tenth does not say what it is of."""
    records, seen = [], 0
    for record in stream(sizes, change_at=change_at):
        batch = decode(record.value() or b"")
        unit = (np.arange(seen, seen + len(batch)) // 3 + 1).astype(np.int64)
        unit[np.arange(seen, seen + len(batch)) % 10 == 9] = NO_UNIT
        seen += len(batch)
        batch.unit = unit
        records.append(MemoryRecord(TOPIC, 0, record.offset(), b"m", encode(batch), 0))
    return records


def restarted(records: Sequence[MemoryRecord], text: str) -> list[Output]:
    """The outputs of a task that is opened anew for every record from what it kept."""
    store, state, outputs = Store(), RestoredState(), []
    for record in records:
        task = open_task(state, text)
        outputs += run(task, [record])
        state = store.take(task)
    return outputs


def test_panels_see_watched_rows_only_and_say_the_same_however_cut_and_restarted() -> None:
    whole = run(open_task(text=UNIT_CONFIG), with_units([6_000], change_at=4_500))
    assert run(open_task(text=UNIT_CONFIG), with_units([700, 1, 1_299, 4_000], change_at=4_500)) == whole
    assert restarted(with_units([500] * 12, change_at=4_500), UNIT_CONFIG) == whole
    first = next(e for e in events(whole) if e["series"] == "feature:a" and e["kind"] == "drift")
    assert 4_500 <= first["position"]["offset"] < 4_700
    # Ten seconds at ten rows a second are left out, then the first of three rows, and those that say nothing.
    learned = next(e for e in events(whole) if e["kind"] == "baseline" and e["series"] == "panel:features")
    in_thirty = len({row // 3 for row in range(30) if row % 10 != 9}) + 3
    assert learned["position"]["offset"] == pytest.approx(100 + 600 * 30 / in_thirty, abs=5)


def test_without_the_key_a_stream_with_units_is_that_without() -> None:
    records = [MemoryRecord(TOPIC, 0, r.offset(), b"m", r.value(), 0) for r in stream([3_000])]
    assert run(open_task(), with_units([3_000])) == run(open_task(), records)


def test_a_unit_that_is_given_begins_all_series_anew_and_one_that_is_taken_away_is_forgotten() -> None:
    store, state, said = Store(), RestoredState(), []
    for text, record in zip((UNIT_CONFIG, CONFIG), with_units([2_000, 2_000]), strict=True):
        task = open_task(state, text)
        said.append(events(run(task, [record])))
        state = store.take(task)
        assert ("m/units/predictions" in state.rings) == (text == UNIT_CONFIG)
    assert [e["series"] for e in said[1] if e["kind"] == "baseline"] == ["panel:features", "panel:scores"]


def test_rows_that_ingest_wrote_before_it_knew_of_the_unit_are_no_reference_for_those_after() -> None:
    """Detect is restarted first; what waits in the topic, and outcomes of an age of weeks, have no units yet."""
    without_units, known = stream([500] * 12, change_at=4_500), with_units([500] * 12, change_at=4_500)
    records = without_units[:4] + known[4:]
    whole = run(open_task(text=UNIT_CONFIG), records)
    assert restarted(records, UNIT_CONFIG) == whole
    offset = next(e["position"]["offset"] for e in events(whole) if e["kind"] == "baseline" and e["series"] == "panel:features")
    from_the_start = events(run(open_task(text=UNIT_CONFIG), known))
    own = next(e["position"]["offset"] for e in from_the_start if e["kind"] == "baseline" and e["series"] == "panel:features")
    assert offset == pytest.approx(2_000 + own, abs=5)
    # An older worker of ingest beside newer ones: its rows say nothing, and are watched as such.
    mixed = Units(MODEL)
    assert mixed.watched(None, np.array([0, 2 * HOUR])).tolist() == []
    assert mixed.watched(np.array([7, 7]), np.array([3 * HOUR, 4 * HOUR])).tolist() == [1]
    assert mixed.watched(None, np.array([4 * HOUR, 4 * HOUR])).tolist() == [0, 1]


def test_batches_are_gathered_with_their_units() -> None:
    parts = [Observations("predictions", "m", "t", 1, [("p", 0)], unit=np.array([n])) for n in range(2)]
    for n, part in enumerate(parts):
        part.offset, part.source = np.array([n]), np.zeros(1, np.uint16)
        part.time_ms = part.record_ms = np.array([n])
    (one,) = gather(parts)
    assert one.batch.unit is not None
    assert one.batch.unit.tolist() == [0, 1]


SALE = """    expected:
      - {from: "1970-01-01T00:02:30Z", to: "1970-01-01T00:03:20Z", reason: sale}
    window: 300
"""


def test_rows_of_an_expected_time_are_in_no_series_and_what_stays_is_found_after_it() -> None:
    """`a` moves at row 1,500, ten rows a second; the next 500 rows were announced."""
    text = CONFIG.replace("    window: 300\n", SALE)
    whole = run(open_task(text=text), stream([3_000]))
    found = [e for e in events(whole) if e["kind"] == "drift"]
    assert not [e for e in found if 1_500 <= e["position"]["offset"] < 2_000]
    first = next(e for e in found if e["series"] == "feature:a" and e["segment"] is None)
    assert 2_000 <= first["position"]["offset"] < 2_060
    assert restarted(stream([250] * 12), text) == whole
    over = text.replace("00:03:20", "00:10:00")
    assert not [e for e in events(run(open_task(text=over), stream([3_000]))) if e["kind"] == "drift" and e["position"]["offset"] >= 1_500]
    # Rows beside it are watched as ever: what was found before the sale is what is found without one.
    without = [e for e in events(run(open_task(), stream([3_000]))) if e["position"]["offset"] < 1_500]
    assert [e for e in events(whole) if e["position"]["offset"] < 1_500] == without
