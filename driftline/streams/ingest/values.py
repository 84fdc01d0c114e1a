"""What single JSON values mean: canonical ids and texts, times, numbers; batches first, single values where a batch is mixed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from driftline.schemas.config import TimeUnit
from driftline.streams.observation import Coded, code

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

NO_TIME: Final = -(1 << 62)
ID_CHARS_MAX: Final = 1_024
TEXT_CHARS_MAX: Final = 512
"""Longer texts are cut (`short`), so that a row always fits a message: 2 KiB a text column at most."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Aware = Annotated[datetime, msgspec.Meta(tz=True)]
# Seconds until the year 5138, milliseconds until then, microseconds until then: the ranges cannot meet for a time since 1973.
_AUTO: Final = ((1e11, 1_000.0), (1e14, 1.0), (1e17, 1e-3))
# Doubles of more seconds than this (the year 2106) are about a microsecond apart and no longer tell one from the next.
_EXACT_SECONDS: Final = float(1 << 32)
_PER_UNIT: Final = {"s": 1_000.0, "ms": 1.0, "us": 1e-3}


def canonical_id(value: object) -> str | None:
    """The text an id is joined by: 1, 1.0 and "1" are one id; None for what cannot be an id."""
    text = scalar_text(value) if not isinstance(value, bool) else None
    if not text or len(text) > ID_CHARS_MAX:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def wrong_value(path: str, expected: str, found: object) -> str:
    """Why a record is refused: which field, what should stand there, what does; a value of another kind is read as none."""
    got = "nothing that could be one" if found is None else repr(str(found)[:80])
    return f'"{path}": expected {expected}, got {got}'


def scalar_text(value: object) -> str | None:
    """The text of a scalar; None for null, NaN, infinities, objects and arrays."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Python refuses to print integers of more than 4,300 digits; nobody's id has a hundred.
        return str(value) if abs(value) < 10**100 else None
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)
    return None


def number(value: object) -> float | None:
    """The number of a JSON number or boolean; None for anything else. Too large for a double is an infinity."""
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return None


def time_ms(value: object, unit: TimeUnit) -> int:
    """Unix milliseconds of a time, `NO_TIME` when it is none."""
    if isinstance(value, str):
        return _iso_ms(value) if unit in ("auto", "iso") else NO_TIME
    if isinstance(value, bool) or not isinstance(value, int | float) or unit == "iso":
        return NO_TIME
    number_ = number(value)
    if number_ is None or not math.isfinite(number_):
        return NO_TIME
    scale = _PER_UNIT.get(unit) or next((s for limit, s in _AUTO if abs(number_) < limit), 1e-6)
    scaled = number_ * scale + 0.5
    return math.floor(scaled) if abs(scaled) < 1 << 60 else NO_TIME


def times_ms(values: Sequence[object], unit: TimeUnit) -> Int64:
    """Unix milliseconds of a column of times, `NO_TIME` where there is none; equal to `time_ms` of each."""
    kinds = set(map(type, values))
    if kinds <= {int, float} and unit != "iso" and kinds:
        try:
            numbers = np.array(values, np.float64)
        except OverflowError:
            return np.array([time_ms(v, unit) for v in values], np.int64)
        size = np.abs(numbers)
        scale = _PER_UNIT.get(unit)
        if scale is not None or (size.max() < 1e14 and size.min() >= 1e11):
            with np.errstate(over="ignore"):
                scaled = np.floor(numbers * (scale or 1.0) + 0.5)
            if (np.abs(scaled) < 1 << 60).all():
                return scaled.astype(np.int64)
    if kinds == {str} and unit in ("auto", "iso"):
        try:
            parsed = msgspec.convert(values, list[_Aware])
            seconds = np.array([moment.timestamp() for moment in parsed], np.float64)
        except (msgspec.ValidationError, OverflowError, ValueError):
            pass
        else:
            if (np.abs(seconds) < _EXACT_SECONDS).all():
                return np.rint(seconds * 1e6).astype(np.int64) // 1_000
    return np.array([time_ms(v, unit) for v in values], np.int64)


def _iso_ms(text: str) -> int:
    """RFC 3339 by msgspec; what it refuses (no zone: UTC is meant; date only) by the standard library."""
    try:
        parsed = msgspec.convert(text, _Aware)
    except msgspec.ValidationError:
        try:
            parsed = datetime.fromisoformat(text.strip())
        except ValueError:
            return NO_TIME
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
    try:
        delta = parsed - _EPOCH
    except OverflowError:
        return NO_TIME
    return delta.days * 86_400_000 + delta.seconds * 1_000 + delta.microseconds // 1_000


def numbers(values: list[Any]) -> Float64:
    """A column of numbers, booleans and nulls; NaN where there is none (and for any other value)."""
    try:
        return np.fromiter(values, np.float64, len(values))
    except (TypeError, ValueError, OverflowError):
        return np.array([math.nan if (n := number(v)) is None else n for v in values], np.float64)


def texts(values: list[Any]) -> Coded:
    """A column of scalars as texts; missing where there is none. Values stand in order of first appearance."""
    first = values[0]
    if isinstance(first, str) and values.count(first) == len(values):
        return Coded(np.zeros(len(values), np.int32), [short(first)])
    if not set(map(type, values)) <= _TEXT_OR_NONE:
        values = [scalar_text(v) for v in values]
    try:
        column = code(values)
    except UnicodeEncodeError:
        column = code([None if v is None else v.encode("utf-8", "replace").decode() for v in values])
    return column if max(map(len, column.values), default=0) <= TEXT_CHARS_MAX else Coded(column.codes, list(map(short, column.values)))


def short(text: str) -> str:
    """A text of at most `TEXT_CHARS_MAX` characters: a longer one is cut, and a hash at its end keeps different texts different."""
    if len(text) <= TEXT_CHARS_MAX:
        return text
    mark = "…" + xxhash.xxh3_64_hexdigest(text.encode("utf-8", "replace"))
    return text[: TEXT_CHARS_MAX - len(mark)] + mark


_TEXT_OR_NONE: Final = {str, type(None)}


def load_loosely(value: bytes) -> object:
    """The JSON of a value, with the literals NaN and Infinity, which Python producers write and standard JSON has not.

    Raises
    ------
    ValueError, RecursionError : it cannot be decoded, or holds texts (keys, too) that are no Unicode: lone surrogates.
    """
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        # The standard library follows nesting with the C stack guarded by RecursionError; orjson stops at 1,024 levels.
        found = json.loads(value)
        # JSON's grammar and the standard library let lone surrogates pass; nothing downstream could write them.
        json.dumps(found, ensure_ascii=False).encode()
        return found


def not_text(value: bytes) -> str:
    """Why `load_loosely` finds no text in a value: JSON is UTF-8, whatever an error of its looser reading calls it."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return f"the text is not UTF-8: byte 0x{value[error.start]:02x} at position {error.start}"
    if "\x00" in text:
        return f"a NUL byte at position {value.index(0)}, as UTF-16 has them: expected UTF-8"
    return "half of a character, a \\u escape from d800 to dfff without the other one of its pair"


def registry_schema_id(value: bytes) -> int | None:
    """The schema id when a value starts with a schema registry's framing: a zero byte and four bytes of id."""
    return int.from_bytes(value[1:5], "big") if len(value) >= 5 and value[0] == 0 else None
