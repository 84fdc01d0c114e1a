"""A second change of a series that has drifted already, the public way: a file and a configuration through `driftline replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality.public import replayed

LEARN = 4_000
CHANGE = LEARN + 500
APART = 20_000
AFTER = 2_500
START_MS = 1_760_000_000_000

CONFIG = f"""\
version: 1
predictions: p
models:
  m:
    features: {{amount: numeric, kind: categorical}}
    decision: null
    false_alarms: 1 per 100000 events
    window: 1000
    snapshot_every: 1000000
    baseline: {{learn: {LEARN}, settle: 0s}}
"""


def write(path: Path, seed: int, *levels: float) -> Path:
    """`amount` at each level for `APART` rows, the last one for fewer."""
    g = np.random.default_rng(seed)
    lengths = [CHANGE, *[APART] * (len(levels) - 1), AFTER]
    amount = np.concatenate([g.normal(level, 1.0, n) for n, level in zip(lengths, (0.0, *levels), strict=True)])
    n = len(amount)
    times = pa.array(START_MS + np.arange(n) * 1_000, pa.timestamp("ms", tz="UTC"))
    kind = np.array(["x", "y", "z"])[g.integers(0, 3, n)]
    pq.write_table(pa.table({"amount": amount, "kind": kind, "score": g.beta(2, 8, n), "ts": times}), path)
    return path


def of(path: Path, what: Any, series: str = "feature:amount") -> list[dict[str, Any]]:
    found = replayed(path, CONFIG, "--time", "ts", "--score", "score", what=what)
    return [one for one in found if one.get("series") == series] if what != "incidents" else found


@pytest.mark.parametrize("second", [1.5, 0.5], ids=["further away", "half-way back"])
def test_a_second_change_is_evidence_in_its_alert_and_an_incident_of_its_own(second: float, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", 1, 1.0, second)
    events = of(path, "drift")
    again = [e for e in events if e["again"] is not None]
    assert [(e["kind"], e["again"]["number"]) for e in again] == [("evidence", 2)]
    (event,) = again
    at = CHANGE + APART
    assert at < event["position"]["offset"] < at + 1_500
    assert abs(event["since"]["position"]["offset"] - at) < 500
    assert event["again"]["effect"]["kind"] == "mean"
    assert event["again"]["effect"]["size"] == pytest.approx(second - 1.0, abs=0.2)
    assert event["effect"]["size"] == pytest.approx(second, abs=0.2)
    assert not [e for e in events if e["kind"] == "recovery"]
    alert = of(path, "alerts")[-1]
    assert alert["condition"] == "firing"
    assert alert["evidence"]["again"].items() >= event["again"].items()
    last = {one["id"]: one for one in of(path, "incidents")}
    first, later = (one for one in last.values() if one["blamed"][0]["series"] == "feature:amount")
    assert (first["condition"], later["condition"]) == ("resolved", "firing")
    assert abs(later["starts_at_ms"] - START_MS - at * 1_000) < 500_000
    assert later["blamed"][0]["changes"] == 2
    assert f"changed again by {event['again']['effect']['size']:.3g} baseline standard deviations from median " in alert["summary"]
    assert alert["starts_at_ms"] < START_MS + (CHANGE + 500) * 1_000


def test_a_step_that_stays_changes_once(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", 2, 1.0, 1.0, 1.0)
    events = of(path, "drift")
    assert [e["kind"] for e in events if e["detector"] == "e_detector"] == ["drift"]
    assert not [e for e in events if e["kind"] == "recovery"]
