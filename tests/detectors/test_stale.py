"""Episodes of scopes without rows: ended by time, judged anew when rows come again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from driftline.detectors.panel import Panel
from driftline.detectors.spec import Column, PanelRows, PanelSpec, RingState, Signal
from tests.detectors.panel_cases import plain_rows, series

WINDOW, LEARNED = 200, 1_000
HOUR = 3_600_000
SECOND = 1_000


def spec(*detectors: str) -> PanelSpec:
    watched = series("x", None, *(detectors or ("psi", "adwin", "page_hinkley")), window=WINDOW, run_length=1e7)
    columns = (Column("x", "numeric", (watched,)),)
    return PanelSpec(columns=columns, segments={"s": 2}, window=WINDOW, learn_rows=LEARNED, stale_ms=HOUR)


def rows(values: np.ndarray, segments: np.ndarray, *, first: int) -> PanelRows:
    return replace(plain_rows({"x": values}, first=first), segments={"s": (segments.astype(np.int32), ["a", "b"])})


def drifted(panel: Panel) -> int:
    """A panel in which segment `a` has drifted and then stopped; the time of its last row."""
    rng = np.random.default_rng(5)
    quiet = (rng.normal(size=2_000), rng.integers(0, 2, 2_000))
    first = 0
    for values, segments in (quiet, (rng.normal(2, 1, 600), np.zeros(600)), (rng.normal(size=600), np.ones(600))):
        part = rows(values, segments, first=first)
        panel.update(part, part.time_ms)
        first += len(values)
    return 2_599 * SECOND


def opened(panel: Panel) -> set[int]:
    return {scope for scope in range(len(panel.scope_names)) if any(level.open for level in panel.levels(scope))}


def test_an_episode_ends_when_its_segment_had_no_rows_for_the_limit() -> None:
    panel = Panel(spec())
    last_ms = drifted(panel)
    scope = panel.scope_names.index(("s", "a"))
    assert scope in opened(panel)
    assert panel.due_ms() == last_ms + HOUR
    assert panel.expire(last_ms + HOUR) == []
    ((at_ms, signal),) = panel.expire(last_ms + HOUR + 1)
    assert (at_ms, signal.scope) == (last_ms + HOUR, scope)
    assert (signal.kind, signal.detector, signal.statistic, signal.episode.exact) == ("recovery", "stale", 3600.0, True)
    assert signal.reason == "closed because nothing came for 1h, not because it recovered"
    assert scope not in opened(panel)
    assert panel.expire(last_ms + HOUR + 1) == []


def test_without_a_limit_or_without_a_clock_nothing_is_due() -> None:
    forever = Panel(replace(spec(), stale_ms=None))
    drifted(forever)
    assert forever.due_ms() is None
    assert forever.expire(10**15) == []
    timeless = Panel(spec())
    rng = np.random.default_rng(5)
    timeless.update(rows(rng.normal(size=2_000), np.zeros(2_000), first=0))
    timeless.update(rows(rng.normal(2, 1, 600), np.zeros(600), first=2_000))
    assert opened(timeless)
    assert timeless.expire(10**15) == []


def back(panel: Panel, mean: float, n: int = 100) -> list[Signal]:
    rng = np.random.default_rng(6)
    part = rows(rng.normal(mean, 1, n), np.zeros(n), first=20_000)
    return [signal for signal in panel.update(part, part.time_ms) if panel.scope_names[signal.scope] == ("s", "a")]


def test_a_change_that_lasts_opens_anew_when_rows_come_again() -> None:
    # Page-Hinkley alone: it starts anew after its alarm, and a lasting level is no change to it.
    panel = Panel(spec("page_hinkley"))
    panel.expire(drifted(panel) + HOUR + 1)
    again = back(panel, 2.0)
    assert [(signal.kind, signal.detector, signal.direction) for signal in again][:1] == [("open", "level", "up")]
    assert again[0].row < 32
    assert again[0].episode.offset == 20_000 + again[0].row
    assert again[0].reason is not None
    assert "rows have come again" in again[0].reason


def test_a_change_that_is_over_by_then_stays_closed() -> None:
    panel = Panel(spec("page_hinkley"))
    rng = np.random.default_rng(8)
    first = rows(rng.normal(size=2_000), np.zeros(2_000), first=0)
    panel.update(first, first.time_ms)
    step = rows(rng.normal(2, 1, 60), np.zeros(60), first=2_000)
    panel.update(step, step.time_ms)
    calm = rows(rng.normal(size=230), np.zeros(230), first=2_060)
    panel.update(calm, calm.time_ms)
    assert opened(panel)
    panel.expire(2_289 * SECOND + HOUR + 1)
    assert back(panel, 0.0, 600) == []
    assert not opened(panel)


def test_what_is_due_and_what_ended_outlive_a_restart() -> None:
    panel = Panel(spec("page_hinkley"))
    last_ms = drifted(panel)
    blobs: dict[str, bytes] = {}
    rings: dict[str, RingState] = {}

    def restored() -> Panel:
        changed, written = panel.export()
        blobs.update({name: blob for name, blob in changed.items() if blob is not None})
        rings.update({ring.name: ring for ring in written})
        return Panel.restore(spec("page_hinkley"), blobs, rings)

    again = restored()
    assert again.due_ms() == panel.due_ms()
    assert again.expire(last_ms + HOUR + 1) == panel.expire(last_ms + HOUR + 1)
    ended = restored()
    assert opened(ended) == opened(panel)
    assert back(ended, 2.0) == back(panel, 2.0) != []
