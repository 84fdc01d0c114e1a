from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from driftline.streams.ingest import MemoryCounters
from driftline.streams.join.age import FALLBACK_MS, NO_LABEL, AgeMeasure, join_ages, percentile_95
from driftline.streams.task import FINAL_MS
from driftline.streams.wiring import groups_of, make_joins
from tests.join.logs import T0, WAITING, cluster, config

HOUR = 3_600_000


def names(*ages: int | str) -> dict[str, list[str]]:
    """Consumer groups of the joins of these ages, and a task of each."""
    conf = config(models={"fraud": {"features": {}, "labels": {"ages": list(ages)}}})
    joins = make_joins(conf, cluster(), MemoryCounters())
    groups = [group for group, name in groups_of(conf).items() if name.startswith("join")]
    return {group: [join.name, join.task_name(WAITING)] for group, join in zip(groups, joins, strict=True)}


def test_another_age_renames_no_group_and_no_task() -> None:
    one = names(HOUR)
    assert one == {"driftline.join-3600000ms": ["join-3600000ms", "join-3600000ms/0"]}
    assert one.items() <= names(1_000, HOUR, "auto").items()
    assert names("auto").items() <= names(1_000, "auto").items()


def measured(seen: np.ndarray, delays: np.ndarray, step_ms: int = 10_000) -> tuple[int, int]:
    """The age and when it was known, with both sides in step with time."""
    measure = AgeMeasure()
    now = T0
    while True:
        now += step_ms
        rows = seen <= now
        first = np.where(seen + delays <= now, seen + delays, NO_LABEL)
        age = measure.measure(seen[rows], first[rows], waiting_tick=now, label_tick=now)
        if age is not None:
            return age, now - T0


@pytest.mark.parametrize("per_second", [1, 5, 20])
def test_the_age_is_the_95th_percentile_of_an_exponential_delay(per_second: int) -> None:
    rng = np.random.default_rng(1)
    n = 40_000
    seen = T0 + np.sort(rng.integers(0, n * 1_000 // per_second, n))
    delays = np.round(rng.exponential(60_000, n)).astype(np.int64)
    age, known = measured(seen, delays)
    # The exponential's own percentile; watched for a finite time it is a little lower. The first labels alone would say 5 s.
    assert 0.85 * stats.expon.ppf(0.95, scale=60_000) <= age <= 1.1 * stats.expon.ppf(0.95, scale=60_000)
    assert known <= 20 * age


def test_a_constant_delay_is_found() -> None:
    seen = T0 + np.arange(30_000, dtype=np.int64) * 100
    age, known = measured(seen, np.full(30_000, 45_300, np.int64))
    assert age == 46_000
    assert known < 6 * 60_000


def test_few_labels_are_enough_after_a_day() -> None:
    seen = T0 + np.arange(2_000, dtype=np.int64) * 600_000
    age, _ = measured(seen, np.full(2_000, HOUR, np.int64), step_ms=600_000)
    assert age == HOUR


def test_the_end_of_the_input_settles_it() -> None:
    seen = T0 + np.arange(5, dtype=np.int64)
    ended = {"waiting_tick": FINAL_MS, "label_tick": FINAL_MS}
    assert AgeMeasure().measure(seen, seen + 2_500, **ended) == 3_000
    assert AgeMeasure().measure(seen, np.full(5, NO_LABEL), **ended) == FALLBACK_MS


def test_labels_before_their_predictions_count_as_no_delay() -> None:
    seen = T0 + np.arange(3_000, dtype=np.int64)
    assert AgeMeasure().measure(seen, seen - 50, waiting_tick=FINAL_MS, label_tick=FINAL_MS) == 1_000


@pytest.mark.parametrize(
    ("delays", "expected"),
    [([0], 1_000), ([1_000], 1_000), ([1_001], 2_000), (list(range(1, 101)), 1_000), ([*[1] * 94, *[9_500] * 6], 10_000)],
)
def test_the_percentile_is_in_whole_seconds_upwards(delays: list[int], expected: int) -> None:
    assert percentile_95(delays) == expected


def test_each_age_of_the_configuration_is_listed_once() -> None:
    models = {n: {"features": {}, "labels": {"ages": ages}} for n, ages in (("a", [5_000, "auto"]), ("b", ["auto"]), ("c", [1_000, 5_000]))}
    assert join_ages(config(models=models)) == [1_000, 5_000, "auto"]
