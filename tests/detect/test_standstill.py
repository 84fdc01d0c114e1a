"""Rows far behind their model's time are counted, and each standstill is told once, however the stream is cut."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.streams.counters import MemoryCounters
from driftline.streams.detect.ledger import Ledger
from driftline.streams.detect.sources import SourceTable
from driftline.streams.detect.standstill import BEHIND_MS, ROWS_LEAST, Standstill
from driftline.streams.observation import Observations

T0 = 1_700_000_000_000
DAY = 86_400_000


def looked(times: list[int], cuts: list[int], caplog: pytest.LogCaptureFixture) -> tuple[int, list[str]]:
    """Rows behind, and the records that are said to have stopped the time."""
    counters = MemoryCounters()
    ledger, still = Ledger(), Standstill("m", "predictions", SourceTable([("in", 0)]), counters)
    caplog.clear()
    for part in np.split(np.arange(len(times)), cuts):
        record_ms = np.array(times, np.int64)[part]
        source = np.zeros(len(part), np.uint16)
        batch = Observations("predictions", "m", "ingest/in/0", 1, [("in", 0)], offset=part, source=source, record_ms=record_ms)
        still.look(batch, ledger.rows(record_ms, source))
    words = [record.getMessage().split() for record in caplog.records]
    return counters.value("rows_behind", model="m"), [word for line in words for word in line if word.startswith("record=")]


def naive(times: list[int]) -> tuple[int, list[str]]:
    reached, at, since, behind, told = -1, -1, 0, 0, []
    for i, time in enumerate(times):
        if time > reached:
            reached, at, since = time, i, 0
        if reached - time >= BEHIND_MS:
            behind, since = behind + 1, since + 1
            if since == ROWS_LEAST:
                told.append(f"record=in[0]@{at}")
    return behind, told


@pytest.mark.parametrize("seed", range(6))
def test_no_cut_changes_what_is_counted_or_told(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(seed)
    jumps = np.where(rng.random(3_000) < 0.004, rng.integers(0, 2 * DAY, 3_000), 0)
    times = (T0 + np.arange(3_000) * 60_000 + rng.integers(-600_000, 600_000, 3_000) + jumps).tolist()
    expected = naive(times)
    assert expected[0] > ROWS_LEAST
    assert expected[1]
    for cuts in ([], [1], list(range(1, 3_000)), sorted(rng.choice(np.arange(1, 3_000), 40, replace=False).tolist())):
        assert looked(times, cuts, caplog) == expected


def test_rows_some_minutes_out_of_order_are_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    times = (T0 + np.random.default_rng(1).integers(0, BEHIND_MS - 1, 1_000)).tolist()
    assert looked(times, [10, 500], caplog) == (0, [])
