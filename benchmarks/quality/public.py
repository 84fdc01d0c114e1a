"""The public way: a configuration and a file of rows through `driftline replay`, so that what is measured is what runs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

from driftline.cli.main import cli

What = Literal["drift", "alerts", "incidents", "snapshots"]


def replayed_columns(
    columns: Mapping[str, Any], times_ms: np.ndarray[Any, Any], configuration: str, *options: str, what: What = "drift"
) -> list[dict[str, Any]]:
    """`replayed` of rows in memory, with a column `score`, at these times."""
    with tempfile.TemporaryDirectory() as directory:
        rows = Path(directory, "rows.parquet")
        pq.write_table(pa.table({**columns, "ts": pa.array(times_ms, pa.timestamp("ms", tz="UTC"))}), rows)
        return replayed(rows, configuration, "--time", "ts", "--score", "score", *options, what=what)


def replayed(
    rows: Path, configuration: str, *options: str, what: What = "drift"
) -> list[dict[str, Any]]:
    """What `driftline replay` prints for model ``m`` of the configuration.

    Raises
    ------
    SystemExit : it failed; with the end of what it said.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write(configuration)
        config.flush()
        result = CliRunner().invoke(cli, ["replay", str(rows), "-c", config.name, *options, "--model", "m", "--what", what, "-o", "json"])
    if result.exit_code:
        raise SystemExit(f"{rows}: {result.output[-2_000:]}")
    return [json.loads(line) for line in result.stdout.splitlines()]
