"""What has stayed is normal, the public way: a file and a configuration through `driftline replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality.public import replayed
from tests.detect.test_second_change import APART, CHANGE, CONFIG, LEARN, START_MS, write

AFTER = 8_000
RELEARN = CONFIG + f"    after_change: {{relearn_after: {AFTER}}}\n"


def of(path: Path, what: Any, text: str = RELEARN) -> list[dict[str, Any]]:
    return replayed(path, text, "--time", "ts", "--score", "score", what=what)


@pytest.mark.parametrize("second", [0.0, 2.0], ids=["back to the old level", "further away"])
def test_a_step_is_one_incident_that_ends_relearned_and_the_next_is_another(second: float, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", 1, 1.0, second)
    events = [e for e in of(path, "drift") if e["series"] == "feature:amount"]
    opened = [e for e in events if e["kind"] == "drift"]
    (end,) = (e for e in events if e["kind"] == "recovery")
    assert end["detector"] == "relearned"
    assert end["episode"] == opened[0]["episode"]
    assert CHANGE + 1_000 + AFTER <= end["position"]["offset"] < CHANGE + 1_000 + AFTER + AFTER // 10 + 200
    assert [CHANGE + k * APART <= e["position"]["offset"] < CHANGE + k * APART + 500 for k, e in enumerate(opened)] == [True, True]
    assert opened[1]["effect"]["size"] == pytest.approx(second - 1.0, abs=0.25)
    assert opened[1]["again"] is None
    alerts = {one["episode"]: one for one in of(path, "alerts") if one["series"] == "feature:amount"}
    assert [one["condition"] for one in alerts.values()] == ["resolved", "firing"]
    resolved = alerts[next(iter(alerts))]
    assert resolved["summary"] == f"m: feature:amount: {end['reason']}"
    assert resolved["evidence"]["recovery"]["detector"] == "relearned"
    incidents = {one["id"]: one for one in of(path, "incidents")}
    assert [one["condition"] for one in incidents.values()] == ["resolved", "firing"]
    first, later = incidents.values()
    assert first["reason"] == end["reason"]
    assert abs(later["starts_at_ms"] - START_MS - (CHANGE + APART) * 1_000) < 500_000


def test_rows_in_which_nothing_changes_give_the_same_bytes_as_keep(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", 3, 0.0, 0.0)
    assert of(path, "drift") == of(path, "drift", CONFIG)
    assert of(path, "snapshots") == of(path, "snapshots", CONFIG)


def test_steps_that_go_on_are_not_normal_before_they_rest(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", 4, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0)
    found = [e for e in of(path, "drift", RELEARN.replace(str(AFTER), "30000")) if e["series"] == "feature:amount"]
    again = [e["position"]["offset"] for e in found if e["again"]]
    assert [CHANGE + k * APART < at < CHANGE + k * APART + 1_500 for k, at in enumerate(again, 1)] == [True] * 3
    ((end, rows),) = ((e["position"]["offset"], e["reason"]) for e in found if e["kind"] == "recovery")
    assert rows.startswith("taken as what is normal after 30,000 values")
    assert again[-1] + 31_000 <= end < again[-1] + 31_000 + 3_000 + 200


def test_what_goes_by_the_hour_is_learned_anew_with_its_hours(tmp_path: Path) -> None:
    """It is not followed after its change: rows without another alarm decide."""
    learn, change, rows = 25_000, 30_000, 100_000
    g, row = np.random.default_rng(1), np.arange(rows)
    times = START_MS + row * 30_000
    back = 90_000
    amount = g.normal(size=rows) + 0.8 * np.sin(2 * np.pi * times / 86_400_000) + ((row >= change) & (row < back))
    columns = {"amount": amount, "kind": np.full(rows, "x"), "score": g.beta(2, 8, rows)}
    columns["ts"] = pa.array(times, pa.timestamp("ms", tz="UTC"))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    text = RELEARN.replace(f"learn: {LEARN}", f"learn: {learn}").replace("window: 1000", "window: 3000").replace(str(AFTER), str(learn))
    events = of(path, "drift", text)
    own = [(e["kind"], e["position"]["offset"]) for e in events if e["series"] == "feature:amount" and e["kind"] != "evidence"]
    assert [kind for kind, _ in own] == ["drift", "recovery", "drift"]
    opened, ended, again = (at for _, at in own)
    assert change <= opened < change + 500
    assert opened + learn <= ended < opened + learn + 2 * learn // 10
    assert back <= again < back + 500
    (end,) = (e["reason"] for e in events if e["detector"] == "relearned")
    assert end.startswith("taken as what is normal after 25,000 rows without another alarm")
    (anew,) = (e["reason"] for e in events if e["kind"] == "baseline" and e["position"]["offset"] > change)
    assert anew.endswith("1 of 1 columns are judged by the hour: amount")
