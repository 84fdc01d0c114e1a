"""A file and the same rows taken live give the same id."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest

from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.baseline_files import baseline_from_batches, baseline_from_file
from driftline.detectors.spec import BaselineError, PanelRows


def test_csv_gz_parquet_and_live_rows_give_one_id(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n = 5_000
    amount = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    codes = rng.integers(-1, 5, n).astype(np.int32)
    names = ["a", "b", "c", "d", "e"]
    live = PanelRows(
        n=n,
        numeric=amount[:, None],
        numeric_names=["amount"],
        categorical={"shop": (codes, names)},
        segments={"shop": (codes, names)},
        source=np.zeros(n, np.uint16),
        offset=np.arange(n),
        time_ms=np.zeros(n, np.int64),
    )
    builder = BaselineBuilder(None, {"shop": 2})
    builder.add(live)
    expected = builder.finish().id
    shops = [None if code < 0 else names[code] for code in codes]
    table = pa.table({"amount": pa.array(amount, from_pandas=True), "shop": pa.array(shops, pa.string())})
    pa_csv.write_csv(table, tmp_path / "x.csv")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress((tmp_path / "x.csv").read_bytes()))
    pa_parquet.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    for name in ("x.csv", "x.csv.gz", "x.parquet"):
        assert baseline_from_file(tmp_path / name, None, {"shop": 2}).id == expected
    assert baseline_from_batches(table.to_batches(max_chunksize=333), None, {"shop": 2}).id == expected


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_missing_file_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(BaselineError, match="cannot be read"):
        baseline_from_file(tmp_path / name)
