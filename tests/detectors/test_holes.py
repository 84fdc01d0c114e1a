from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.detectors import AlarmBudget, holes
from driftline.detectors.holes import Holes


@given(st.data())
def test_a_place_counts_values_only(data: st.DataObject) -> None:
    has_value = np.array(data.draw(st.lists(st.booleans(), min_size=1, max_size=60)))
    after = data.draw(st.integers(1, len(has_value)))
    before = np.flatnonzero(has_value[:after])
    here = Holes()
    for part in np.array_split(np.arange(len(has_value)), data.draw(st.integers(1, 5))):
        here.add(part[~has_value[part]])
    if len(before):
        back = data.draw(st.integers(1, len(before)))
        first = here.place(after, back)
        assert np.count_nonzero(has_value[first:after]) == back
        assert has_value[first]


def test_what_is_older_than_the_holes_kept_is_counted_as_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "HOLES_KEPT", 2)
    here = Holes()
    here.add(np.array([1, 5, 6]))
    assert here.place(10, 8) == 0
    assert here.place(10, 5) == 3
    assert here.place(3, 9) == 0


def test_a_name_that_the_reference_does_not_have_is_refused() -> None:
    budget = AlarmBudget({"often": np.arange(500.0), "rare": np.arange(500.0)})
    assert budget.update({"rare": 3.0}) is None
    with pytest.raises(ValueError, match=r"names of the reference \(often, rare\), got rrae"):
        budget.update({"often": 3.0, "rrae": 3.0})


@pytest.mark.parametrize("cut", [1, 7, 4_000])
def test_an_alarm_dates_by_rows_a_series_that_has_a_value_on_few(cut: int) -> None:
    generator = np.random.default_rng(5)
    rare = np.where(generator.random(4_000) < 0.1, generator.normal(size=4_000) + np.repeat([0.0, 2.0], 2_000), np.nan)
    rows = np.column_stack([generator.normal(size=4_000), rare])
    budget = AlarmBudget({"often": generator.normal(size=5_000), "rare": generator.normal(size=5_000)})
    (alarm, *_) = [alarm for start in range(0, 4_000, cut) for alarm in budget.update_many(rows[start : start + cut])]
    blamed = alarm.blamed[0]
    assert blamed.name == "rare"
    assert blamed.earliest is not None
    assert blamed.latest is not None
    assert blamed.earliest <= 2_000 + 20
    assert blamed.latest >= 2_000
    assert np.isfinite(rare[blamed.since])
    assert 1_900 <= blamed.since <= 2_100
