"""A change put into a recording is the change put into the file: the same events. And what each kind does to a column."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from driftline.backtest.changes import UNSEEN_VALUE, Change, Kind, inject, permuted, span
from driftline.backtest.recording import Recording
from driftline.backtest.run import Detect
from driftline.schemas.config import Config
from tests.backtest.conftest import ROWS, record

START = 3_000


def edited(stream: Path, change: Change) -> Path:
    """The file with the change written into its cells, for changes that hit every row."""
    path = stream.parent / f"{change.kind}.csv"
    with open(stream, newline="") as source, open(path, "w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or [])
        writer.writeheader()
        for number, row in enumerate(reader):
            if number >= START:
                match change.kind:
                    case "shift":
                        row[change.feature] = repr(float(row[change.feature]) + change.size * change.spread)
                    case "scale":
                        row[change.feature] = repr(float(row[change.feature]) * change.size)
                    case "nulls":
                        row[change.feature] = ""
                    case "unseen":
                        row[change.feature] = UNSEEN_VALUE
                    case "labels":
                        row["is_fraud"] = str(1 - int(row["is_fraud"]))
            writer.writerow(row)
    return path


@pytest.mark.parametrize(
    ("kind", "feature", "size"),
    [("shift", "age", 0.5), ("scale", "amount", 3.0), ("nulls", "country", 1.0), ("unseen", "country", 1.0), ("labels", "", 1.0)],
)
def test_a_change_of_a_recording_gives_the_events_of_a_file_with_that_change(
    stream: Path, config: Config, recording: Recording, kind: Kind, feature: str, size: float
) -> None:
    key = feature if feature == "country" else None
    change = Change(kind, "fraud", feature, size, START, ROWS, 1, 9.0 if kind == "shift" else 0.0, key)
    records = span(change, recording.models["fraud"])
    assert records is not None
    detect = Detect(config, recording)
    states = detect.whole([records[0]]).states
    found = detect.part({}, 0, records[0], {}).events
    # to the end of the recording: outcomes of changed rows carry their segment values
    found += detect.part(states.get(records[0], {}), records[0], len(recording.records), inject(change, recording)).events
    file = record(config, edited(stream, change))
    wanted = Detect(config, file).whole().found.events
    assert any(event["kind"] == "drift" for event in wanted)
    assert found == wanted


def column(recording: Recording, changed: dict[int, bytes], feature: str) -> tuple[np.ndarray, np.ndarray]:
    """A numeric feature before and after a change, all rows."""
    rows = recording.models["fraud"]
    other = Recording(recording.cluster)
    for index, old in enumerate(recording.records):
        other.add(type(old)(old.topic_, old.partition_, old.offset_, old.key_, changed.get(index, old.value_), old.timestamp_ms))
    both = []
    for source in (recording, other):
        batches = [source.batch(piece.record) for piece in rows.predictions]
        both.append(np.concatenate([b.numeric[:, b.numeric_names.index(feature)] for b in batches if b.numeric is not None]))
    return both[0], both[1]


def test_nulls_hit_about_the_share_asked_for_and_only_rows_of_the_change(recording: Recording) -> None:
    change = Change("nulls", "fraud", "age", 0.2, START, START + 2_000, 7)
    before, after = column(recording, inject(change, recording), "age")
    lost = np.flatnonzero(np.isnan(after))
    assert lost.min() >= START
    assert lost.max() < START + 2_000
    assert 320 < len(lost) < 480  # 400 expected, sd 18
    kept = ~np.isnan(after)
    assert (before[kept] == after[kept]).all()
    assert inject(change, recording) == inject(change, recording)


def test_a_broken_correlation_keeps_the_values_of_each_thousand_rows_and_loses_their_order(recording: Recording) -> None:
    change = Change("correlation", "fraud", "age", 0.0, START, ROWS, 7)
    before, after = column(recording, inject(change, recording), "age")
    assert (before[:START] == after[:START]).all()
    for first in range(START, ROWS, 1_000):
        mine, its = before[first : first + 1_000], after[first : first + 1_000]
        assert sorted(mine) == sorted(its)
        assert abs(np.corrcoef(mine, its)[0, 1]) < 0.15  # nearly five standard errors of 1,000 independent rows


def test_permuting_leaves_missing_values_missing() -> None:
    values = np.array([1.0, np.nan, 3.0, 4.0])
    out = permuted(values, np.random.default_rng(1), block=2)
    assert sorted(out[:2], key=str)[0] == 1.0
    assert np.isnan(out[:2]).sum() == 1
    assert sorted(out[2:]) == [3.0, 4.0]
