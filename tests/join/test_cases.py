"""SEMANTICS 2.4: every case of a join, one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from driftline.streams.observation import IMPLICIT, LABELLED, UNLABELLED
from driftline.streams.task import RestoredState
from tests.join.logs import LABELS, T0, WAITING, Join, Logs, config, digest


def run(logs: Logs, join: Join | None = None) -> Join:
    return (join or Join()).read(logs.end()).commit()


def test_a_prediction_takes_its_label() -> None:
    join = run(Logs().predict(("a", 0)).label(("a", 3, 1)))
    (batch,) = join.batches()
    assert join.rows() == [(0, 1.0, LABELLED)]
    assert (batch.kind, batch.model, batch.task, batch.seq, batch.age_ms) == ("outcomes", "fraud", "join-10000ms/0", 1, 10_000)
    assert (batch.sources, batch.record_ms.tolist(), batch.time_ms.tolist()) == ([("predictions", 0)], [T0], [T0])
    assert batch.delay_ms is not None
    assert batch.score is not None
    assert (batch.delay_ms.tolist(), batch.score.tolist()) == ([3_000.0], [0.5])
    assert join.case("joined") == 1


def test_a_rebuilt_join_counts_from_one_and_stamps_its_generation_after_a_restart_too() -> None:
    join = Join()
    join.task = join.processor.open(join.task.name, RestoredState(generation=7))
    join.commit().open()
    (batch,) = run(Logs().predict(("a", 0)).label(("a", 3, 1)), join).batches()
    assert (batch.seq, batch.generation, join.rows()) == (1, 7, [(0, 1.0, LABELLED)])


def ticks(join: Join) -> list[tuple[int, int | None]]:
    """(sequence number, time) of the batches that only tell the time."""
    return [(batch.seq, batch.tick_ms) for batch in join.batches() if not len(batch)]


@pytest.mark.parametrize("restart", [False, True])
def test_outcomes_tell_the_time_where_no_predictions_come(restart: bool) -> None:
    logs = Logs().predict(("a", 0)).label(("a", 3, 1)).tick(1_000)
    for time in (11, 12, 25, 31, 39):
        logs.predict(tick=time)
    join = Join(config(stale="100s"))
    for _ in range(len(logs.waiting)):
        join.read(logs, waiting=1).commit()
        if restart:
            join.open()
    # Multiples of a tenth of `stale`; the first time heard of is where they begin.
    assert ticks(join) == [(2, T0 + 10_000), (3, T0 + 20_000), (4, T0 + 30_000)]
    (first, *rest) = join.batches()
    assert (len(first), {batch.kind for batch in rest}, {batch.age_ms for batch in rest}) == (1, {"outcomes"}, {10_000})


def test_without_stale_and_at_the_end_of_the_input_no_time_is_told() -> None:
    for stale in (None, "100s"):
        logs = Logs().predict(("a", 0)).label(("a", 3, 1)).tick(1_000)
        join = run(logs if stale else logs.predict(tick=900), Join(config(stale=stale)))
        assert ticks(join) == []


def test_nothing_is_decided_before_the_label_side_has_passed_the_age() -> None:
    logs = Logs().predict(("a", 0)).label(("a", 1, 1)).tick(10)
    join = Join().read(logs)
    assert join.rows() == []
    assert join.read(logs.tick(10.001)).rows() == [(0, 1.0, LABELLED)]


def test_the_slowest_label_source_decides_when() -> None:
    logs = Logs().predict(("a", 0)).label(("a", 1, 1)).tick(60)
    join = Join(config(sources=2)).read(logs)
    assert join.rows() == []
    join.read(logs.tick(10, source="labels-1"))
    assert join.rows() == []
    assert join.read(logs.tick(10.001, source="labels-1")).labels() == {0: 1.0}


def test_a_block_waits_for_its_youngest_row() -> None:
    logs = Logs().predict(("a", 0), ("b", 50)).label(("a", 1, 1)).tick(40)
    join = Join().read(logs)
    assert join.rows() == []
    assert join.read(logs.tick(61)).labels() == {0: 1.0, 1: None}


def test_a_label_that_came_before_its_prediction_counts() -> None:
    join = run(Logs().label(("a", -5, 1)).predict(("a", 0)))
    assert join.rows() == [(0, 1.0, LABELLED)]
    assert join.batches()[0].delay_ms.tolist() == [-5_000.0]  # type: ignore[union-attr]
    assert join.case("early") == 1


def test_the_first_label_holds_against_a_contradiction() -> None:
    join = run(Logs().predict(("a", 0)).label(("a", 3, 1)).label(("a", 5, 0)))
    assert join.labels() == {0: 1.0}
    assert (join.case("contradiction"), join.case("duplicate")) == (1, 0)


def test_a_label_sent_twice_is_a_duplicate() -> None:
    join = run(Logs().predict(("a", 0)).label(("a", 3, 1), ("a", 4, 1)))
    assert join.labels() == {0: 1.0}
    assert (join.case("contradiction"), join.case("duplicate")) == (0, 1)


def test_of_labels_out_of_order_the_earliest_holds() -> None:
    assert run(Logs().predict(("a", 0)).label(("a", 5, 0), tick=1).label(("a", 3, 1), tick=2)).labels() == {0: 1.0}


def test_a_label_is_no_older_than_what_its_source_had_passed() -> None:
    logs = Logs().predict(("a", 0)).tick(9).label(("a", 2, 1), tick=9)
    assert run(logs).batches()[0].delay_ms.tolist() == [9_000.0]  # type: ignore[union-attr]


def test_a_label_at_the_age_counts_and_one_after_it_is_late() -> None:
    join = run(Logs().predict(("a", 0), ("b", 0)).label(("a", 10, 1)).label(("b", 10.001, 1)))
    assert join.rows() == [(0, 1.0, LABELLED), (1, None, UNLABELLED)]
    assert join.case("late") == 1


def test_a_label_after_the_decision_is_late_and_no_orphan() -> None:
    logs = Logs().predict(("a", 0)).label(("a", 1, 1)).tick(20)
    join = Join().read(logs).commit()
    run(logs.label(("a", 30, 0)), join)
    assert join.labels() == {0: 1.0}
    assert (join.case("late"), join.case("orphan")) == (1, 0)


def test_a_label_without_a_prediction_is_an_orphan_when_it_is_swept() -> None:
    join = run(Logs().predict(("a", 0)).label(("x", 1, 1), ("y", 1, 1)))
    assert join.case("orphan") == 2


def test_an_orphan_is_swept_while_the_stream_goes_on() -> None:
    logs = Logs().label(("x", 0, 1)).predict(("a", 0)).predict(tick=900).tick(900)
    join = Join().read(logs).commit()
    assert join.case("orphan") == 1
    assert join.cache.lookup([b"\0" * 16]) == [None]


def test_a_prediction_sent_twice_counts_once() -> None:
    join = run(Logs().predict(("a", 0), ("b", 0), ("a", 0)).predict(("a", 1)).label(("a", 3, 1)))
    assert [offset for offset, _, _ in join.rows()] == [0, 1]
    assert join.case("duplicate_prediction") == 2


def test_a_repeated_prediction_is_known_after_a_restart() -> None:
    logs = Logs().predict(("a", 0)).label(("a", 1, 1)).tick(20)
    join = Join().read(logs).commit()
    join.open()
    run(logs.predict(("a", 15)), join)
    assert [offset for offset, _, _ in join.rows()] == [0]


def test_the_memory_of_repeated_predictions_is_bounded() -> None:
    logs = Logs()
    for n in range(50):
        logs.predict(*((f"{n}-{i}", n) for i in range(10)))
    join = Join(generation=40).read(logs.end()).commit()
    assert len(join.rows()) == 500
    assert sum(join.task._decided.sizes()) <= 2 * (40 + 10)


def test_outcomes_say_what_their_rows_are_of_where_the_model_has_a_unit() -> None:
    logs = Logs().predict(("a", 0), ("b", 1), ("c", 2), models=["fraud", "ads", "fraud"], units=[7, 0, -9])
    both = config(models={"fraud": {"features": {}, "unit": "card"}, "ads": {"features": {}}})
    found = {batch.model: None if batch.unit is None else batch.unit.tolist() for batch in run(logs, Join(both)).batches()}
    assert found == {"fraud": [7, -9], "ads": None}


def test_no_label_by_the_age_is_unlabelled() -> None:
    join = run(Logs().predict(("a", 0)))
    assert join.rows() == [(0, None, UNLABELLED)]
    assert join.case("unlabelled") == 1
    assert math.isnan(join.batches()[0].delay_ms[0])  # type: ignore[index]


def test_no_label_is_an_implicit_negative_where_absent_is_set() -> None:
    conf = config(models={"fraud": {"features": {}, "labels": {"ages": [10_000], "absent": 0}}})
    join = run(Logs().predict(("a", 0), ("b", 0)).label(("a", 1, 1)), Join(conf))
    assert join.rows() == [(0, 1.0, LABELLED), (1, 0.0, IMPLICIT)]
    assert (join.case("implicit"), join.case("unlabelled")) == (1, 0)


def test_several_models_may_score_one_id() -> None:
    conf = config(models={"fraud": {"features": {}}, "ads": {"features": {}}})
    logs = Logs().predict(("a", 0), ("a", 0), models=["fraud", "ads"]).predict(("a", 20), models=["fraud"]).label(("a", 1, 1)).tick(40)
    join = Join(conf).read(logs).commit()
    assert sorted((b.model, b.offset.tolist(), b.label.tolist()) for b in join.batches() if b.label is not None) == [
        ("ads", [1], [1.0]),
        ("fraud", [0], [1.0]),
    ]
    assert join.case("duplicate_prediction") == 1


def test_a_label_that_names_a_model_joins_that_model_only() -> None:
    conf = config(models={"fraud": {"features": {}}, "ads": {"features": {}}})
    logs = Logs().predict(("a", 0), ("a", 0), models=["fraud", "ads"]).label(("a", 1, 1), model="ads")
    assert run(logs, Join(conf)).labels() == {0: None, 1: 1.0}


TWO_MODELS: dict[str, Any] = {"fraud": {"features": {}}, "ads": {"features": {}}}


def held(join: Join, *names: str) -> list[bool]:
    """Whether the cache has labels of these ids."""
    return [value is not None for value in join.cache.lookup([digest(name) for name in names])]


def test_of_several_models_labels_that_name_theirs_are_used_up_and_others_stay() -> None:
    logs = Logs().predict(("a", 0), ("b", 0), ("a", 0), models=["fraud", "fraud", "ads"])
    logs.label(("a", 1, 1), model="fraud").label(("a", 2, 0), model="ads").label(("b", 1, 1)).label(("c", 1, 1), model="ads").tick(20)
    join = Join(config(models=TWO_MODELS)).read(logs).commit()
    assert join.labels() == {0: 1.0, 1: 1.0, 2: 0.0}
    assert held(join, "a", "b", "c") == [False, True, True]
    run(logs.predict(("c", 30), models=["ads"]), join)
    assert join.labels()[3] == 1.0
    assert join.case("orphan") == 0


def test_of_several_models_one_does_not_use_up_the_labels_of_another() -> None:
    logs = Logs().predict(("a", 0), models=["fraud"]).label(("a", 1, 1), model="ads").label(("a", 2, 0), model="fraud").tick(20)
    join = Join(config(models=TWO_MODELS)).read(logs).commit()
    run(logs.predict(("a", 30), models=["ads"]), join)
    assert join.labels() == {0: 0.0, 1: 1.0}


def test_of_several_models_a_label_after_the_decision_is_late_for_the_one_it_names() -> None:
    logs = Logs().predict(("a", 0), ("a", 0), models=["fraud", "ads"]).label(("a", 1, 1), model="fraud").tick(20)
    join = Join(config(models=TWO_MODELS)).read(logs).commit()
    run(logs.label(("a", 30, 0), model="fraud").label(("a", 31, 0), model="ads").label(("a", 32, 0), model="other"), join)
    assert (join.labels(), join.case("late"), join.case("orphan")) == ({0: 1.0, 1: None}, 2, 1)


def test_of_several_models_a_label_too_late_is_counted_once() -> None:
    logs = Logs().predict(("a", 0), models=["fraud"]).label(("a", 10.001, 1), model="fraud").label(("a", 10.002, 1))
    join = run(logs, Join(config(models=TWO_MODELS)))
    assert (join.labels(), join.case("late"), join.case("orphan")) == ({0: None}, 2, 0)


@pytest.mark.parametrize("model", ["fraud", None])
def test_of_several_models_a_crash_before_the_removal_changes_nothing(model: str | None) -> None:
    def story(*, crash: bool) -> list[bool]:
        logs = Logs().predict(("a", 0), ("b", 0), models=["fraud", "ads"]).label(("a", 1, 1), ("b", 1, 1), model=model).tick(20)
        join = Join(config(models=TWO_MODELS)).read(logs)
        if crash:
            join.commit(settle=False).open()
        return held(join.commit(), "a", "b")

    assert story(crash=True) == story(crash=False) == [model is None, True]


def test_models_of_another_age_are_left_to_another_processor() -> None:
    conf = config(
        models={"fraud": {"features": {}, "labels": {"ages": [20_000]}}, "ads": {"features": {}, "labels": {"ages": [5_000, 20_000]}}}
    )
    logs = Logs().predict(("a", 0), ("b", 0), models=["fraud", "ads"]).label(("a", 12, 1), ("b", 12, 1)).end()
    first, second = Join(conf).read(logs), Join(conf, age_index=1).read(logs)
    assert [(b.model, b.age_ms) for b in first.batches()] == [("ads", 5_000)]
    assert first.labels() == {1: None}
    assert second.labels() == {0: 1.0, 1: 1.0}


@pytest.mark.parametrize(("text", "number"), [("1", 1.0), ("true", 1.0), ("No", 0.0), ("0.5", 0.5), ("cat", None), ("nan", None)])
def test_a_text_label_of_a_binary_model_is_read_as_a_number(text: str, number: float | None) -> None:
    assert run(Logs().predict(("a", 0)).label(("a", 1, text))).labels() == {0: number}


def test_labels_of_a_multiclass_model_are_class_names() -> None:
    conf = config(models={"fraud": {"features": {}, "task": "multiclass"}})
    join = run(Logs().predict(("a", 0), ("b", 0), ("c", 0)).label(("a", 1, "cat"), ("b", 1, 2)), Join(conf))
    assert join.labels() == {0: "cat", 1: "2", 2: None}


def test_the_probability_of_the_true_class_is_kept() -> None:
    from driftline.streams.columns import ClassProbabilities, decode_waiting, encode_waiting

    logs = Logs().predict(("a", 0), ("b", 0))
    block = decode_waiting(logs.waiting[0].value() or b"")
    block.probabilities["fraud"] = ClassProbabilities(["cat", "dog"], np.array([1]), np.array([[0.25, 0.75]]))
    from tests.join.logs import _record

    logs.waiting[0] = _record(WAITING, 0, encode_waiting(block), logs.written_ms)
    conf = config(models={"fraud": {"features": {}, "task": "multiclass"}})
    (batch,) = run(logs.label(("a", 1, "dog"), ("b", 1, "dog")), Join(conf)).batches()
    assert batch.label_probability is not None
    assert np.array_equal(batch.label_probability, [math.nan, 0.75], equal_nan=True)


def test_after_the_end_of_one_run_the_next_goes_on() -> None:
    logs = Logs().predict(("a", 0)).label(("a", 1, 1)).end()
    join = Join().read(logs).commit()
    logs.written_ms += 60_000
    logs.predict(("b", 100)).label(("b", 101, 1))
    join.read(logs)
    assert join.labels() == {0: 1.0}
    assert join.read(logs.tick(200)).labels() == {0: 1.0, 1: 1.0}


def test_the_waiting_partition_is_paused_above_the_limit_and_labels_never() -> None:
    logs = Logs().predict(*((f"{n}", 0) for n in range(30)))
    join = Join(pending_rows_max=20).read(logs)
    assert join.task.paused() == {WAITING}
    assert LABELS not in join.task.paused()
    assert join.task.positions()[WAITING] == 0
    join.read(logs.tick(11))
    assert join.task.paused() == frozenset()
    assert join.task.positions()[WAITING] == 1


def test_sequence_numbers_count_on_after_a_restart() -> None:
    logs = Logs().predict(("a", 0)).tick(20)
    join = Join().read(logs).commit()
    join.open()
    run(logs.predict(("b", 20)), join)
    assert [batch.seq for batch in join.batches()] == [1, 2]


def test_the_end_of_a_run_decides_nothing_of_the_next() -> None:
    """Rows of a later run are read before their labels: what ended the first must not make them unlabelled."""
    logs = Logs().predict(("a", 0)).label(("a", 1, 1)).end()
    join = Join().read(logs).commit()
    assert join.labels() == {0: 1.0}
    logs.written_ms += 60_000
    logs.predict(("b", 100), ("c", 101))
    join.open()
    join.read(logs, labels=0)
    join.read(logs).commit()
    assert len(join.rows()) == 1, "waits for the second run's labels, or for its end"
    logs.label(("b", 102, 0)).end()
    join.open()
    join.read(logs)
    assert join.labels() == {0: 1.0, 1: 0.0, 2: None}


def test_what_a_run_writes_with_its_last_commit_is_of_that_run() -> None:
    logs = Logs().predict(("a", 0)).label(("a", 1, 1)).tick(None)
    logs.written_ms += 300
    logs.predict(("b", 2)).predict(tick=float("inf"))
    join = Join().read(logs)
    assert join.labels() == {0: 1.0, 1: None}


@pytest.mark.parametrize("commits_between", [True, False])
def test_a_label_of_one_run_waits_for_a_prediction_of_the_next(commits_between: bool) -> None:
    """What an end sweeps must not depend on whether the join committed there."""
    logs = Logs().predict(("a", 0)).label(("a", 1, 1), ("x", 1, 1)).end()
    join = Join()
    if commits_between:
        join.read(logs).commit()
        assert join.case("orphan") == 1
        join.open()
    logs.written_ms += 60_000
    logs.predict(("x", 60)).tick(80).end()
    join.read(logs).commit()
    assert join.labels() == {0: 1.0, 1: 1.0}
