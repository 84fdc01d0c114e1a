"""The outcomes are a function of the two logs: no cut, interleaving, restart or lost cache changes a byte of them."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.streams.task import Output
from tests.join.logs import LABELS, WAITING, Join, Logs, config


def stream(seed: int, *, n: int = 120, mean_delay: float = 4.0) -> Logs:
    """Predictions and labels with at least a twentieth each of duplicates, early, contradicting, late and missing labels."""
    rng = random.Random(seed)
    logs = Logs()
    events: list[tuple[float, str, tuple[object, ...]]] = []
    for i in range(n):
        at = i * 0.5 + rng.random()
        name = f"id-{i if rng.random() > 0.06 else rng.randrange(i + 1)}"
        events.append((at, "waiting", (name,)))
        kind = rng.random()
        if kind > 0.15:
            delay = -rng.random() * 3 if kind < 0.25 else rng.expovariate(1 / mean_delay)
            events.append((at + delay, "labels" if rng.random() < 0.5 else "labels-1", (name, rng.randrange(2))))
        if kind > 0.85:
            events.append((at + rng.random() * 20, "labels", (name, rng.randrange(2))))
    events.append((1.0, "labels", ("orphan", 1)))
    events.sort(key=lambda e: e[0])
    done = 0.0
    for at, log, row in events:
        if log == "waiting":
            logs.predict((str(row[0]), at), score=rng.random())
        else:
            logs.label((str(row[0]), at - rng.choice([0, 0, 1]), row[1]), tick=at, source=log)
        if at - done > 5:
            done = at
            logs.tick(at, source=rng.choice(["labels", "labels-1"]))
            logs.predict(tick=at)
    logs.predict(tick=float("inf"))
    return logs.tick(None).tick(None, source="labels-1")


def finish(join: Join, logs: Logs) -> list[Output]:
    while join.position[WAITING] < len(logs.waiting) or join.position[LABELS] < len(logs.labels):
        join.read(logs).commit()
    return join.outputs


_CONF = config(10_000, sources=2)
_STREAMS = [stream(seed) for seed in range(6)]
_EXPECTED = [finish(Join(_CONF), logs) for logs in _STREAMS]


def test_the_streams_hold_every_case() -> None:
    for logs in _STREAMS:
        join = Join(_CONF)
        finish(join, logs)
        for case in ("joined", "unlabelled", "early", "duplicate", "contradiction", "late", "orphan", "duplicate_prediction"):
            assert join.case(case) > 0, case


steps = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=30)


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 5), cuts=steps)
def test_any_cut_and_interleaving_gives_the_same_outcomes(which: int, cuts: list[tuple[int, int, bool]]) -> None:
    join = Join(_CONF)
    for waiting, labels, commit in cuts:
        join.read(_STREAMS[which], waiting, labels)
        if commit:
            join.commit()
    assert finish(join, _STREAMS[which]) == _EXPECTED[which]


crashes = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["", "commit", "abort", "half", "wipe"])), max_size=30)


def crash(join: Join, kind: str, kept: list[Output]) -> None:
    """A commit, or a crash before it, between commit and removal, or after it with Redis lost; outputs of aborted attempts vanish."""
    if kind == "":
        return
    if kind in ("commit", "half"):
        kept += join.outputs
        join.commit(settle=kind == "commit")
    if kind == "wipe":
        kept += join.outputs
        join.commit()
        join.cache.reset(0)
    join.outputs = []
    if kind != "commit":
        join.open()


def survived(logs: Logs, cuts: list[tuple[int, int, str]], make: Callable[[], Join]) -> list[Output]:
    join = make()
    kept: list[Output] = []
    for waiting, labels, kind in cuts:
        join.read(logs, waiting, labels)
        crash(join, kind, kept)
    join.outputs = kept + join.outputs
    return finish(join, logs)


@settings(max_examples=40, deadline=None)
@given(which=st.integers(0, 5), cuts=crashes)
def test_any_crash_or_loss_of_the_cache_gives_the_same_outcomes(which: int, cuts: list[tuple[int, int, str]]) -> None:
    assert survived(_STREAMS[which], cuts, lambda: Join(_CONF)) == _EXPECTED[which]


def test_a_small_memory_and_a_small_buffer_change_nothing_about_cuts() -> None:
    """No loss of the cache here: a label once taken is there again after a rebuild, for an id repeated beyond the memory."""
    for logs in _STREAMS[:2]:
        expected = finish(Join(_CONF, generation=10, pending_rows_max=5), logs)
        rng = random.Random(3)
        for _ in range(15):
            cuts = [(rng.randrange(12), rng.randrange(12), rng.choice(["", "commit", "abort", "half"])) for _ in range(40)]
            assert survived(logs, cuts, lambda: Join(_CONF, generation=10, pending_rows_max=5)) == expected


_AUTO = config("auto", sources=2)
_SLOW = stream(77, n=1_600, mean_delay=6.0)


def test_a_measured_age_is_the_same_in_any_cut() -> None:
    first = Join(_AUTO)
    expected = finish(first, _SLOW)
    assert first.task._age_ms is not None
    rng = random.Random(5)
    for _ in range(3):
        cuts = [(rng.randrange(400), rng.randrange(400), rng.choice(["", "commit", "abort", "half", "wipe"])) for _ in range(20)]
        assert survived(_SLOW, cuts, lambda: Join(_AUTO)) == expected
