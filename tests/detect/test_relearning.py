"""`after_change: {relearn_after: N}`: what has stayed since a change is what is normal, whatever the cuts and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from driftline.detectors.spec import PanelBudget
from driftline.streams.detect.publish import PanelName
from driftline.streams.detect.rescaled import rescaled
from driftline.streams.detect.rows import take
from driftline.streams.detect.task import DetectTask
from driftline.streams.observation import Coded, code, decode, encode
from driftline.streams.task import MemoryRecord, Output
from tests.detect.test_changed_configuration import Store
from tests.detect.test_task import TOPIC, events, open_task, run, stream

LEARN = 600
CHANGE = 1_500
AFTER = 800
CONFIG = f"""
version: 1
predictions: p
models:
  m:
    features: {{a: numeric, b: numeric, c: categorical}}
    segments: [s]
    window: 300
    snapshot_every: 500
    baseline: {{learn: {LEARN}, settle: 0s}}
    false_alarms: 1 per 10000 events
    after_change: {{relearn_after: {AFTER}}}
    monitors:
      - {{id: all, series: ["*"], detectors: [psi, adwin, page_hinkley, rate], run_length: 1.0e+6, severity: {{warning: 0.2}}}}
"""
KEEP = CONFIG.replace(f"{{relearn_after: {AFTER}}}", "keep")
WITHOUT_BUDGET = CONFIG.replace("    false_alarms: 1 per 10000 events\n", "")
DISCOVERED = CONFIG.replace("    features: {a: numeric, b: numeric, c: categorical}\n", "    correlations: [[a, b]]\n")
JOINED = CONFIG.replace("    segments:", "    correlations: [[a, b]]\n    blocks: {ab: [a, b]}\n    segments:")
ROWS = 6_000


def numbers(rows: int, *steps: tuple[int, float], seed: int = 5, scores: tuple[int, float] = (10**9, 0.0)) -> list[MemoryRecord]:
    """One batch of `test_task.stream` whose `a` has these levels, each from its row on, and whose scores move once; `b` is whole."""
    (record,) = stream([rows], change_at=10**9)
    batch = decode(record.value() or b"")
    draw = np.random.default_rng(seed)
    level = np.zeros(rows)
    for at, value in steps:
        level[at:] = value
    assert batch.numeric is not None
    score = draw.beta(1, 9, rows)
    score[scores[0] :] += scores[1]
    numeric = np.column_stack([draw.normal(size=rows) + level, draw.normal(size=rows)])
    return [MemoryRecord(TOPIC, 0, 0, b"m", encode(replace(batch, numeric=numeric, score=score)), 0)]


def in_turns(records: Sequence[MemoryRecord], since: int) -> list[MemoryRecord]:
    """The same rows, of two versions in turns from a row on."""
    (record,) = records
    batch = decode(record.value() or b"")
    batch.version = code([f"v{int(row >= since and row % 2)}" for row in range(len(batch))])
    return [MemoryRecord(TOPIC, 0, 0, b"m", encode(batch), 0)]


def cut(records: Sequence[MemoryRecord], sizes: Sequence[int]) -> list[MemoryRecord]:
    """The rows of one batch in batches of these sizes."""
    (record,) = records
    whole, out, start = decode(record.value() or b""), [], 0
    assert whole.numeric is not None
    for seq, size in enumerate(sizes, 1):
        rows = np.arange(start, start + size)
        part = take(whole, rows)
        part.seq, part.numeric_names, part.numeric = seq, whole.numeric_names, whole.numeric[rows]
        part.categorical = {name: Coded(text.codes[rows], text.values) for name, text in whole.categorical.items()}
        out.append(MemoryRecord(TOPIC, 0, seq - 1, b"m", encode(part), 0))
        start += size
    return out


def of(found: Sequence[Output], series: str, *kinds: str) -> list[dict[str, Any]]:
    return [e for e in events(found) if e["series"] == series and e["segment"] is None and e["kind"] in kinds]


def ends(found: Sequence[Output], series: str = "feature:a") -> list[tuple[int, str]]:
    return [(e["position"]["offset"], e["detector"]) for e in of(found, series, "recovery")]


def learned(found: Sequence[Output], panel: str = "features") -> list[int]:
    return [e["position"]["offset"] for e in of(found, f"panel:{panel}", "baseline")]


def test_a_step_that_stays_is_one_episode_and_what_comes_after_it_is_judged_against_the_new_level() -> None:
    found = run(open_task(text=CONFIG), numbers(9_000, (CHANGE, 1.5), (5_500, 0.0)))
    ((at, detector),) = ends(found)[:1]
    assert detector == "relearned"
    # A thousand values are learned from after the alarm, the next 800 judged, and a look is every hundred rows.
    assert CHANGE + 1_000 + AFTER < at < CHANGE + 1_000 + AFTER + 400
    assert learned(found) == [LEARN - 1, at + LEARN, *learned(found)[2:]]
    opened = of(found, "feature:a", "drift")
    assert [CHANGE <= e["position"]["offset"] < CHANGE + 200 for e in opened] == [True, False]
    back = opened[1]
    assert 5_500 <= back["position"]["offset"] < 5_700
    assert back["direction"] == "down"
    assert back["baseline_median"] == pytest.approx(1.5, abs=0.15)
    assert back["episode"] != opened[0]["episode"]


def test_the_reason_says_what_was_judged() -> None:
    found = run(open_task(text=CONFIG), numbers(ROWS, (CHANGE, 1.5)))
    (end,) = of(found, "feature:a", "recovery")
    judged = "taken as what is normal after 800 values without a further change (after_change): the reference is learned anew"
    assert end["reason"] == judged
    found = run(open_task(text=WITHOUT_BUDGET), numbers(ROWS, (CHANGE, 1.5)))
    assert "after 800 rows without another alarm (after_change)" in of(found, "feature:a", "recovery")[0]["reason"]


def test_segment_values_follow_all_rows() -> None:
    found = events(run(open_task(text=CONFIG), numbers(ROWS, (CHANGE, 1.5))))
    ended = [(e["segment"], e["position"]["offset"]) for e in found if e["detector"] == "relearned" and e["series"] == "feature:a"]
    assert [segment for segment, _ in ended] == [None, {"s": "BR"}, {"s": "MX"}]
    assert len({at for _, at in ended}) == 1


def test_where_all_rows_are_as_before_each_segment_value_has_to_have_stayed() -> None:
    """Two segment values change places: over all rows nothing changes."""
    (record,) = numbers(ROWS)
    batch = decode(record.value() or b"")
    assert batch.numeric is not None
    side = np.where(np.array(batch.segments["s"].values)[batch.segments["s"].codes] == "BR", 1.0, -1.0)
    numeric = batch.numeric.copy()
    numeric[:, 0] += side * np.where(np.arange(ROWS) >= CHANGE, -1.0, 1.0)
    found = events(run(open_task(text=CONFIG), [MemoryRecord(TOPIC, 0, 0, b"m", encode(replace(batch, numeric=numeric)), 0)]))
    own = [(e["kind"], e["segment"], e["position"]["offset"]) for e in found if e["series"] == "feature:a" and e["detector"] != "severity"]
    assert None not in [segment for _, segment, _ in own]
    ended = [(segment, at) for kind, segment, at in own if kind == "recovery"]
    assert [segment for segment, _ in ended] == [{"s": "BR"}, {"s": "MX"}]
    # Of every other row: twice as long as all rows take.
    assert CHANGE + 2 * (1_000 + AFTER) < ended[0][1] < CHANGE + 2 * (1_000 + AFTER) + 700


def test_a_further_change_starts_the_count_anew() -> None:
    once = ends(run(open_task(text=CONFIG), numbers(ROWS, (CHANGE, 1.5))))
    twice = run(open_task(text=CONFIG), numbers(9_000, (CHANGE, 1.5), (once[0][0] - 200, 3.0)))
    assert [e["again"]["number"] for e in of(twice, "feature:a", "evidence") if e["again"]] == [2]
    (second,) = [e["position"]["offset"] for e in of(twice, "feature:a", "evidence") if e["again"]]
    # A level that has not held for long is followed by twice as many values before it is judged.
    (end,) = ends(twice)
    assert end[0] > second + 2_000 + AFTER


def test_a_change_that_is_back_before_is_a_recovery() -> None:
    found = run(open_task(text=CONFIG), numbers(ROWS, (CHANGE, 1.5), (CHANGE + 1_200, 0.0)))
    assert [detector for _, detector in ends(found)] == ["level"]
    assert learned(found) == [LEARN - 1]


def test_without_a_change_nothing_differs_from_keep() -> None:
    rows = numbers(ROWS)
    assert run(open_task(text=CONFIG), rows) == run(open_task(text=KEEP), rows)


def test_until_it_is_learned_anew_nothing_differs_from_keep() -> None:
    rows = numbers(ROWS, (CHANGE, 1.5))
    found, kept = (events(run(open_task(text=text), rows)) for text in (CONFIG, KEEP))
    at = next(i for i, event in enumerate(found) if event["detector"] == "relearned")
    assert found[:at] == kept[:at]
    others = [[e for e in each if e["series"].split(":")[0] in ("score", "decision", "class")] for each in (found, kept)]
    assert others[0] == others[1]


def test_a_fault_is_never_normal() -> None:
    """`b` is invalid in a fifth of the rows from the change on, at any age; `a` is another column."""
    found = run(open_task(text=CONFIG), stream([ROWS], change_at=CHANGE))
    assert ends(found, "feature:a")[0][1] == "relearned"
    assert of(found, "quality:b:invalid", "drift")
    assert not ends(found, "quality:b:invalid")


def test_what_is_watched_to_both_sides_is_no_fault() -> None:
    own = '    monitors:\n      - {id: bad, series: ["quality:b:*"], direction: SIDE, run_length: 1.0e+3, severity: {warning: 0.2}}\n'
    for side, expected in (("both", ["relearned"]), ("up", [])):
        text = WITHOUT_BUDGET.replace("    monitors:\n", own.replace("SIDE", side))
        found = run(open_task(text=text), stream([ROWS], change_at=CHANGE))
        assert of(found, "quality:b:invalid", "drift")
        assert [detector for _, detector in ends(found, "quality:b:invalid")][:1] == expected


def test_a_feature_may_say_otherwise() -> None:
    rows = numbers(ROWS, (CHANGE, 1.5), scores=(CHANGE, 0.4))
    own = CONFIG.replace("{a: numeric", "{a: {kind: numeric, after_change: keep}")
    found = run(open_task(text=own), rows)
    assert not ends(found)
    assert [detector for _, detector in ends(found, "score")] == ["relearned"]
    own = KEEP.replace("{a: numeric", f"{{a: {{kind: numeric, after_change: {{relearn_after: {AFTER}}}}}")
    found = run(open_task(text=own), rows)
    assert [detector for _, detector in ends(found)] == ["relearned"]
    assert not ends(found, "score")


def test_what_is_made_of_a_feature_goes_with_it() -> None:
    found = run(open_task(text=JOINED), numbers(ROWS, (CHANGE, 1.5)))
    ((at, _),) = ends(found)
    of_block = of(found, "block:ab", "recovery")
    assert [(e["position"]["offset"], e["detector"]) for e in of_block] == [(at, "relearned")]
    assert of_block[0]["reason"] == 'closed because its feature "a" is learned anew (after_change), not because it recovered'


def restarted(text: str, records: Sequence[MemoryRecord]) -> tuple[list[Output], DetectTask]:
    """A run that is started again after every batch."""
    store, outputs = Store(), []
    task = open_task(text=text)
    for record in records:
        outputs += run(task, [record])
        task = open_task(store.take(task), text)
        assert task.opened() == []
    return outputs, task


SHIFTS = ((CHANGE, 1.5), (4_600, 0.0), (8_200, 1.0))
ALL_ROWS = 9_500


@pytest.mark.parametrize("text", [CONFIG, WITHOUT_BUDGET, DISCOVERED, JOINED], ids=["budget", "no budget", "discovered", "joined"])
def test_cuts_and_restarts_change_nothing(text: str) -> None:
    rows = numbers(ALL_ROWS, *SHIFTS, scores=(2_000, 0.4))
    whole = run(open_task(text=text), rows)
    assert [detector for _, detector in ends(whole)].count("relearned") >= 2
    assert [detector for _, detector in ends(whole, "score")] == ["relearned"]
    for sizes in ([777] * 12 + [176], [1, 99, 3_000, 400, 6_000]):
        assert run(open_task(text=text), cut(rows, sizes)) == whole, sizes
    outputs, _ = restarted(text, cut(rows, [250] * 38))
    assert outputs == whole


def test_versions_keep_their_order_and_their_part_of_the_budget() -> None:
    rows = in_turns(numbers(ALL_ROWS, *SHIFTS, scores=(4_200, 0.4)), 2_500)
    whole = run(open_task(text=CONFIG), rows)
    relearned = {(e["version"], e["position"]["offset"]) for e in events(whole) if e["detector"] == "relearned" and e["series"] == "score"}
    assert {version for version, _ in relearned} == {"v0", "v1"}
    outputs, task = restarted(CONFIG, cut(rows, [250] * 38))
    assert outputs == whole
    once = open_task(text=CONFIG)
    run(once, rows)
    assert budgets(task) == budgets(once)


def budgets(task: DetectTask) -> list[tuple[PanelName, PanelBudget | None]]:
    return [(name, watched.panel.spec.budget) for name, watched in task.models["m"].panels.items()]


@pytest.mark.parametrize(
    "edit",
    [
        ("a: numeric", 'a: {kind: numeric, accepted: "right"}'),
        ("segments: [s]", "segments: {}"),
        ("a: numeric, ", ""),
        ("window: 300", "window: 200"),
        ("b: numeric", "b: numeric, d: numeric"),
    ],
    ids=["accepted", "no segments", "no feature", "window", "one more"],
)
def test_what_was_learned_anew_is_edited_like_the_rest(edit: tuple[str, str]) -> None:
    records, text = cut(numbers(ALL_ROWS, *SHIFTS), [500] * 19), CONFIG.replace(*edit)
    store, task = Store(), open_task(text=CONFIG)
    run(task, records[:14])
    assert len([name for name in task.models["m"].panels if name.kind == "features"]) == 2
    state = store.take(task)
    once = open_task(state, text)
    expected = once.opened() + run(once, records[14:])
    task = open_task(state, text)
    outputs = task.opened()
    for record in records[14:]:
        task = open_task(store.take(task), text)
        assert task.opened() == []
        outputs += run(task, [record])
    assert outputs == expected
    assert budgets(task) == budgets(once)


@pytest.mark.parametrize("text", [CONFIG, WITHOUT_BUDGET], ids=["budget", "no budget"])
@pytest.mark.parametrize("at", [7, 11])
def test_a_model_that_is_moved_goes_on_counting(at: int, text: str) -> None:
    """At batch 7 values since the change are counted, at 11 rows after it are learned from or judged."""
    records = cut(numbers(ALL_ROWS, *SHIFTS), [350] * 26 + [400])
    once = open_task(text=text)
    run(once, records[:at])
    (state,) = rescaled([Store().take(once)], 1, {"ingest/p/0": 0})
    expected = run(once, records[at:])
    moved = []
    for seq, record in enumerate(records[at:], 1):
        batch = decode(record.value() or b"")
        batch.seq = seq
        moved.append(MemoryRecord(TOPIC, 0, seq, b"m", encode(batch), 0))
    assert run(open_task(state, text), moved) == expected
    assert [detector for _, detector in ends(expected)].count("relearned") >= 1


def test_a_time_of_keep_forgets_what_was_counted_of_rows() -> None:
    keep = KEEP.replace("    false_alarms: 1 per 10000 events\n", "")
    records = cut(numbers(ROWS, (CHANGE, 1.5)), [500] * 12)
    store, task = Store(), open_task(text=WITHOUT_BUDGET)
    run(task, records[:4])
    task = open_task(store.take(task), keep)
    run(task, records[4:6])
    assert {len(panel) for panel in orjson.loads(store.take(task).blobs["task"])["models"]["m"]["panels"]} == {9}
    ((at, _),) = ends(run(open_task(store.take(task), WITHOUT_BUDGET), records[6:]))[:1]
    # From the first look on.
    assert at == 3_099 + AFTER


def test_with_keep_the_state_is_as_before() -> None:
    task = open_task(text=KEEP)
    run(task, numbers(ROWS, (CHANGE, 1.5)))
    held = orjson.loads(task.checkpoint().blobs["task"] or b"")["models"]["m"]["panels"]
    assert {len(panel) for panel in held} == {9}


def test_a_part_that_has_nothing_left_is_removed_from_the_store() -> None:
    store = Store()
    task = open_task(text=CONFIG)
    for record in cut(numbers(ALL_ROWS, *SHIFTS), [500] * 19):
        run(task, [record])
        store.take(task)
    paths = {name.rsplit("/", 2)[0] if name.count("/") > 2 else name.rsplit("/", 1)[0] for name in (*store.blobs, *store.rings)} - {"task"}
    parts = sorted(path for path in {"/".join(p.split("/")[:2]) for p in paths} if "features" in path)
    held = sorted(f"m/features~~~{n.part}" if n.part else "m/features~~" for n in task.models["m"].panels if n.kind == "features")
    assert parts == held
    assert len(held) == 2
    assert max(n.part for n in task.models["m"].panels) >= 2


def test_an_edit_takes_effect_on_episodes_that_are_open() -> None:
    records = cut(numbers(ROWS, (CHANGE, 1.5)), [500] * 12)
    store, task = Store(), open_task(text=KEEP)
    run(task, records[:9])
    task = open_task(store.take(task), CONFIG)
    found = run(task, records[9:])
    ((at, detector),) = ends(found)
    assert detector == "relearned"
    # Judged before the edit, it counts: the first look finds it.
    assert at < 4_500 + 200


@pytest.mark.parametrize("text", [CONFIG, WITHOUT_BUDGET], ids=["budget", "none"])
def test_what_was_over_long_ago_is_not_what_is_normal(text: str) -> None:
    """Its return is no further change where it is learned in, and no news to a detector that has spoken; its level says it."""
    found = events(run(open_task(text=text), numbers(ROWS, (CHANGE, 1.0), (CHANGE + 150, 0.0))))
    own = [e for e in found if e["series"] == "feature:a" and e["segment"] is None and e["kind"] != "evidence"]
    assert [(e["kind"], e["detector"] == "level") for e in own] == [("drift", False), ("recovery", True)]
    assert own[1]["position"]["offset"] < CHANGE + 1_500
    assert not [e for e in found if e["detector"] == "relearned"]
