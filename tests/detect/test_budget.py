"""A model's budget of false alarms in the detect task: who has how much of it, restarts, and edits."""

from __future__ import annotations

import pytest

from driftline.streams.detect.task import DetectTask
from tests.detect.test_changed_configuration import SIZES, Store, edited, of_model, outcome_records
from tests.detect.test_task import CONFIG, events, open_task, run, stream

PER_EVENT = 1 / 20_000
BUDGET = CONFIG.replace("    window: 300", "    false_alarms: 1 per 20000 events\n    window: 300").replace(
    "run_length: 1.0e+6", "run_length: 1.0e+6, severity: {warning: 0.17, critical: 0.4}"
)
NARROW = BUDGET.replace("b: numeric, ", "").replace("segments: [s]", "segments: {}")


def budgets(task: DetectTask) -> dict[tuple[str, str | None, int], float]:
    """What may be spent in an event, by panel, version and part."""
    out: dict[tuple[str, str | None, int], float] = {}
    for name, watched in task.models["m"].panels.items():
        assert watched.panel.spec.budget is not None
        out[name.kind, name.version, name.part] = watched.panel.spec.budget.per_unit
        bank = watched.panel._watch.budget if watched.panel._watch is not None else None
        if bank is not None:
            assert float(bank._bank.rate.sum()) <= watched.panel.spec.budget.per_unit * (1 + 1e-12)
    return out


def test_predictions_have_half_of_it_and_versions_less_and_less() -> None:
    task = open_task(text=BUDGET)
    run(task, stream([3_000], versions=3))
    expected = {"features": 1 / 4, "v0": 1 / 4 / 2, "v1": 1 / 4 / 6, "v2": 1 / 4 / 12}
    found = {version or kind: share / PER_EVENT for (kind, version, _), share in budgets(task).items()}
    assert found == pytest.approx(expected)


def test_parts_that_an_edit_added_share_what_the_panel_has_and_are_no_versions() -> None:
    store, task = Store(), open_task(text=NARROW)
    records = stream(SIZES, versions=2)
    run(task, records[:2])
    before = budgets(task)
    task = open_task(store.take(task), BUDGET)
    run(task, records[2:])
    after = budgets(task)
    assert {part for kind, _, part in after if kind == "features"} == {0, 1, 2}
    for kind, version in {(kind, version) for kind, version, _ in before}:
        shares = [share for (k, v, _), share in after.items() if (k, v) == (kind, version)]
        assert len(shares) > 1
        assert sum(shares) == pytest.approx(before[kind, version, 0])
        assert min(shares) > 0
    assert sum(share for (kind, _, _), share in after.items() if kind == "scores") <= PER_EVENT / 4
    again = open_task(store.take(task), BUDGET)
    assert budgets(again) == after


def test_a_budget_that_is_edited_and_restarts_at_every_commit_say_what_one_run_says() -> None:
    records = stream(SIZES, versions=2)
    whole, store = open_task(text=NARROW), Store()
    run(whole, records[:2])
    state = store.take(whole)
    whole = open_task(state, BUDGET)
    expected = run(whole, records[2:])
    found = []
    for record in records[2:]:
        task = open_task(state, BUDGET)
        found += run(task, [record])
        state = store.take(task)
    assert found == expected
    assert "e_detector" in {event["detector"] for event in events(found) if event["kind"] == "drift"}


@pytest.mark.parametrize("wanted", ["1 per 10000 events", "1 per 1000000 events", "1 per week", "null"])
@pytest.mark.parametrize("at", [4, 8])
def test_another_budget_ends_nothing_and_the_change_is_found(wanted: str, at: int) -> None:
    found, expected, _ = edited(BUDGET, ("1 per 20000 events", wanted), at)
    assert "removed" not in {event["detector"] for event in found}
    of_a = [[e for e in one if e["series"] == "feature:a" and e["kind"] == "drift" and not e["segment"]] for one in (found, expected)]
    assert len(of_a[0]) == len(of_a[1]) == 1
    assert abs(of_a[0][0]["position"]["offset"] - of_a[1][0]["position"]["offset"]) < 60


def test_a_model_that_is_taken_out_and_put_back_goes_on_with_its_evidence() -> None:
    two = BUDGET + BUDGET[BUDGET.index("  m:") :].replace("  m:", "  n:")
    rows = of_model("n", stream(SIZES))
    never_out = open_task(text=two)
    run(never_out, rows[:5])
    expected = run(never_out, rows[5:])
    assert "e_detector" in {event["detector"] for event in events(expected)}

    store, task = Store(), open_task(text=two)
    run(task, rows[:5])
    task = open_task(store.take(task), BUDGET)
    run(task, stream([700]))
    task = open_task(store.take(task), two)
    assert run(task, rows[5:]) == expected


def test_outcomes_of_each_age_have_as_much_as_predictions_and_give_it_back() -> None:
    two = BUDGET.replace("    window: 300", "    labels: {ages: [1s, 2s]}\n    window: 300")
    store, task = Store(), open_task(text=two)
    run(task, outcome_records([1_000, 2_000], 0.9))
    state = store.take(task)
    first = PER_EVENT / 2  # of the first version
    assert shares_of_outcomes(task) == pytest.approx({1_000: first / 3, 2_000: first / 3})
    # An age that is taken out gets no rows any more and spends nothing.
    assert shares_of_outcomes(open_task(state, two.replace("[1s, 2s]", "[1s]"))) == pytest.approx({1_000: first / 2, 2_000: 0.0})
    without_labels = two.replace("labels: l\n", "").replace("    labels: {ages: [1s, 2s]}\n", "")
    assert shares_of_outcomes(open_task(state, without_labels)) == {1_000: 0.0, 2_000: 0.0}


def shares_of_outcomes(task: DetectTask) -> dict[int | None, float]:
    found = {name.age_ms: watched.panel.spec.budget for name, watched in task.models["m"].panels.items() if name.kind == "outcomes"}
    return {age: 0.0 if budget is None else budget.per_unit for age, budget in found.items()}
