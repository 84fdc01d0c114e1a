"""Rows of a CSV or Parquet file, in batches of typed columns, in file order and in constant memory.

CSV columns get one type each from the first batch. A later value that does not fit keeps its row and goes on as
text, since that is what a producer with a bug would send and what the `invalid` bin is there to show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ColumnType = Literal["int", "float", "bool", "text"]

NULL_TEXTS: Final = ("", "NULL", "null", "NaN", "nan", "None")
"""What an empty CSV cell may look like. Not NA: it is a country and a continent."""

_NUMERIC_NULL_TEXTS: Final = frozenset({"NA", "N/A", "n/a", "-"})
_BLOCK_BYTES: Final = 1 << 20
_NUMERIC_SHARE: Final = 0.95  # a column is numeric when at least this share of its first values are numbers
_TYPE_ROWS: Final = 5_000
_MESSAGE_MAX: Final = 200
NO_TIME: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some consecutive rows; every column has `rows` entries, None where the cell is empty."""

    first_row: int
    rows: int
    columns: Mapping[str, Any]

    def slice(self, start: int) -> RowBatch:
        """The rows from `start` of this batch on."""
        return RowBatch(self.first_row + start, self.rows - start, {name: column.slice(start) for name, column in self.columns.items()})

    def head(self, rows: int) -> RowBatch:
        """The first `rows` rows."""
        return RowBatch(self.first_row, min(rows, self.rows), {name: column.slice(0, rows) for name, column in self.columns.items()})


class SourceFileError(ValueError):
    """A file that is not what its name says, or that lacks a column."""


def is_parquet(path: str | Path) -> bool:
    return Path(path).suffix.lower() in (".parquet", ".pq")


def is_messages(path: str | Path) -> bool:
    """Whether a file holds raw messages, a JSON object a line, and no rows."""
    return str(path).endswith((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"))


def column_names(path: str | Path) -> list[str]:
    """The names of the columns.

    Raises
    ------
    SourceFileError : not a CSV or Parquet file, or a column name occurs twice.
    """
    if is_messages(path):
        raise SourceFileError(
            f'"{path}": expected rows in a CSV, .csv.gz or Parquet file; .jsonl is raw messages, '
            "which replay, backtest and baseline build read"
        )
    try:
        names = _parquet_names(path) if is_parquet(path) else _csv_names(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(f'"{path}"', error) from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceFileError(f'"{path}": column "{twice[0]}" occurs twice')
    return names


def count_rows(path: str | Path) -> int | None:
    """The number of rows where the file says it (Parquet), else None."""
    if not is_parquet(path):
        return None
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def read_batches(path: str | Path, *, as_text: frozenset[str] = frozenset(), rows: int | None = None) -> Iterator[RowBatch]:
    """The rows of the file, oldest first.

    Parameters
    ----------
    as_text : columns to leave as they stand in a CSV, e.g. categories with leading zeros.
    rows : stop after this many.

    Raises
    ------
    SourceFileError : the file cannot be read as what its name says.
    """
    raw = _parquet_batches(path) if is_parquet(path) else _csv_batches(path, as_text)
    first = 0
    try:
        for columns, n in raw:
            batch = RowBatch(first, n, columns)
            if rows is not None and first + n >= rows:
                yield batch.head(rows - first)
                return
            yield batch
            first += n
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(f'"{path}", after row {first}', error) from error


def _unreadable(place: str, error: Exception) -> Exception:
    """The file's fault as one line; what the system reports (no such file, no right) stays what it is."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    # The parser quotes what it could not read: bytes that a terminal might take for commands.
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return SourceFileError(f"{place}: {text[:_MESSAGE_MAX]}")


def times_ms(column: pa.Array, unit: str = "auto") -> npt.NDArray[np.int64]:
    """Milliseconds since 1970 of a column of times; `NO_TIME` where there is none.

    Text is ISO 8601 (no zone = UTC) or a number; numbers are seconds, milliseconds or microseconds by `unit`, or,
    for "auto", by their size (years 1973 to 5138 are told apart).
    """
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _filled(column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _epoch_ms(column.cast(pa.float64()), unit)
    text = column.cast(pa.string())
    for target in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return _filled(pc.cast(text, target).cast(pa.int64()), 1_000)
        except pa.ArrowException:
            continue
    try:
        return _epoch_ms(pc.cast(text, pa.float64()), unit)
    except pa.ArrowException:
        return np.array([_time_of_text(value, unit) for value in text.to_pylist()], np.int64)


def numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    """A column as floats, NaN where there is no number."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([_number(value) for value in column.to_pylist()], np.float64)
    out = column.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    return np.asarray(out, np.float64)


def column_type(column: pa.Array | MixedColumn) -> ColumnType:
    """What most values of a column are, from a batch of it."""
    if isinstance(column, MixedColumn):
        return column.kind
    kind = column.type
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "float"
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return "text"
    for target, name in ((pa.int64(), "int"), (pa.float64(), "float")):
        try:
            column.cast(target)
        except pa.ArrowException:
            continue
        return "float" if column.null_count == len(column) else cast("ColumnType", name)
    values = [value for value in column.slice(0, _TYPE_ROWS).to_pylist() if value is not None and value not in _NUMERIC_NULL_TEXTS]
    if not values:
        return "float"  # nothing seen yet: number-like text will become a number, the rest stays text
    if all(value.lower() in ("true", "false") for value in values):
        return "bool"
    if sum(_is_int(value) for value in values) >= _NUMERIC_SHARE * len(values):
        return "int"
    if sum(not np.isnan(_number(value)) for value in values) >= _NUMERIC_SHARE * len(values):
        return "float"
    return "text"


def _csv_names(path: str | Path) -> list[str]:
    import pyarrow.csv as csv

    with csv.open_csv(str(path), read_options=csv.ReadOptions(block_size=1 << 20)) as reader:
        return list(reader.schema.names)


def _parquet_names(path: str | Path) -> list[str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def _csv_batches(path: str | Path, as_text: frozenset[str]) -> Iterator[tuple[dict[str, pa.Array], int]]:
    import pyarrow.csv as csv

    names = column_names(path)
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=list(NULL_TEXTS))
    types: dict[str, ColumnType] | None = None
    with csv.open_csv(str(path), read_options=csv.ReadOptions(block_size=_BLOCK_BYTES), convert_options=convert) as reader:
        for batch in reader:
            if batch.num_rows == 0:
                continue
            if types is None:
                types = {name: "text" if name in as_text else column_type(batch.column(name)) for name in names}
            yield {name: _typed(batch.column(name), types[name]) for name in names}, batch.num_rows


def _parquet_batches(path: str | Path) -> Iterator[tuple[dict[str, pa.Array], int]]:
    import pyarrow.parquet as pq

    names = column_names(path)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=16_384):
            yield {name: _plain(batch.column(name)) for name in names}, batch.num_rows


def _plain(column: pa.Array) -> pa.Array:
    """Dictionaries decoded and decimals as floats, so that later steps see few types."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        return column.cast(pa.float64())
    return column


class MixedColumn:
    """A column with values of more than one type: a CSV column with cells that do not fit its type."""

    def __init__(self, values: list[Any], kind: ColumnType) -> None:
        self._values = values
        self.kind = kind
        self.type = pa.string()

    def to_pylist(self) -> list[Any]:
        return self._values

    def slice(self, start: int, rows: int | None = None) -> MixedColumn:
        return MixedColumn(self._values[start:] if rows is None else self._values[start : start + rows], self.kind)

    def cast(self, target: pa.DataType, **options: Any) -> pa.Array:
        return pa.array([None if v is None else str(v) for v in self._values], pa.string()).cast(target, **options)


def _typed(column: pa.Array, kind: ColumnType) -> Any:
    """The column as `kind`; where cells do not fit, only those stay text."""
    try:
        match kind:
            case "int":
                return column.cast(pa.int64())
            case "float":
                return column.cast(pa.float64())
            case "bool":
                return pc.utf8_lower(column).cast(pa.bool_())
            case "text":
                return column
    except pa.ArrowException:
        return MixedColumn([_value(text, kind) for text in column.to_pylist()], kind)


def _value(text: str | None, kind: ColumnType) -> int | float | bool | str | None:
    if text is None:
        return None
    if kind == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    if text in _NUMERIC_NULL_TEXTS:
        return None
    if _is_int(text):
        return int(text)
    number = _number(text)
    return text if np.isnan(number) else number


def _is_int(text: str) -> bool:
    digits = text[1:] if text[:1] in "+-" else text
    return digits.isascii() and digits.isdigit() and len(digits) < 19


def _number(value: Any) -> float:
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _filled(column: pa.Array, divisor: int = 1) -> npt.NDArray[np.int64]:
    missing = column.is_null().to_numpy(zero_copy_only=False)
    values = column.fill_null(0).to_numpy(zero_copy_only=False) // divisor
    return np.where(missing, NO_TIME, values).astype(np.int64)


_UNIT_MS: Final = {"s": 1_000.0, "ms": 1.0, "us": 0.001}


def _epoch_ms(column: pa.Array, unit: str) -> npt.NDArray[np.int64]:
    values = column.fill_null(float("nan")).to_numpy(zero_copy_only=False)
    size = np.abs(values)
    if unit in _UNIT_MS:
        factor = np.full(len(values), _UNIT_MS[unit])
    else:
        factor = np.where(size < 1e11, 1_000.0, np.where(size < 1e14, 1.0, 0.001))
    usable = np.isfinite(values) & (size * factor < 9e15)
    return np.where(usable, np.where(usable, values, 0.0) * factor, NO_TIME).astype(np.int64)


def _time_of_text(value: str | None, unit: str) -> int:
    if value is None:
        return int(NO_TIME)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return int(_epoch_ms(pa.array([_number(value)]), unit)[0])
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)
