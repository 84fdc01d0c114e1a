"""Baselines of Arrow tables and of CSV, CSV.gz and Parquet files, read in batches through the builder of live rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.spec import BaselineError, Column, PanelRows


def baseline_from_file(path: Path, columns: Sequence[Column] | None = None, segments: Mapping[str, int] | None = None) -> Baseline:
    """The baseline of a file's columns; None = all of them. Memory is bounded as in `baseline_build`.

    Raises
    ------
    BaselineError : the file cannot be read, or has no rows.
    """
    try:
        return baseline_from_batches(_batches(path), columns, segments)
    except (OSError, pa.ArrowException) as error:
        raise BaselineError(f"{path}: cannot be read: {error}") from error


def baseline_from_batches(
    batches: Iterable[pa.RecordBatch], columns: Sequence[Column] | None = None, segments: Mapping[str, int] | None = None
) -> Baseline:
    """The baseline of record batches (`table.to_batches()`); their cut does not show in its id."""
    builder = BaselineBuilder(columns, segments or {})
    for batch in batches:
        builder.add(rows_of(batch, list(segments or {}), first=builder.seen))
    return builder.finish()


def rows_of(batch: pa.RecordBatch, segments: Sequence[str] = (), *, first: int = 0) -> PanelRows:
    """Numbers and booleans as numeric columns, everything else as text; null is missing."""
    numeric: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    texts = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
            numeric[name] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        else:
            texts[name] = _coded(column)
    n = batch.num_rows
    keys = {key: texts.get(key) or _coded(batch.column(key)) for key in segments if key in batch.schema.names}
    return PanelRows(
        n=n,
        numeric=np.column_stack(list(numeric.values())) if numeric else np.zeros((n, 0)),
        numeric_names=list(numeric),
        categorical=texts,
        segments=keys,
        source=np.zeros(n, np.uint16),
        offset=np.arange(first, first + n),
        time_ms=np.zeros(n, np.int64),
    )


def _coded(column: pa.Array) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], list[str]]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    coded = column.cast(pa.string()).dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.asarray(codes, np.int32), coded.dictionary.to_pylist()


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    if path.name.endswith((".parquet", ".pq")):
        with pa_parquet.ParquetFile(path) as file:
            yield from file.iter_batches()
    else:
        # Arrow tells compression by the name, and takes empty fields of text columns for text unless told otherwise.
        options = pa_csv.ConvertOptions(strings_can_be_null=True)
        with pa_csv.open_csv(path, convert_options=options) as reader:
            yield from reader
