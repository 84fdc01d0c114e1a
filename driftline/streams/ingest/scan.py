"""Numeric features straight from the bytes of a batch into one matrix, past Python objects.

A compiled scanner walks each event to the object of features and reads the numbers it knows. It reads plainly and takes
nothing on trust: an event with anything among its features beyond plain JSON (escapes, non-ASCII, one that is no number,
a key twice, more than 19 digits) is *not read*, and the typed decoder has it whole. So it never decides what a
record means, it only is faster where that is plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.detectors.kernels.jit import inlined, kernel, part
from driftline.streams.ingest.doubles import is_digit, read_number

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_DEPTH_MAX: Final = 32
_FAIL: Final = -1
_QUOTE, _BACKSLASH, _COLON, _COMMA, _MINUS, _ZERO = (ord(c) for c in '"\\:,-0')
# The closing brackets come two after the opening ones.
_OPEN, _CLOSE, _OPEN_LIST = (ord(c) for c in "{}[")
_SPACE, _TAB, _NEWLINE, _RETURN = (ord(c) for c in " \t\n\r")
_SMALL_T, _SMALL_F, _SMALL_N = (ord(c) for c in "tfn")
_PADDING: Final = bytes(32)
"""After the last event: nothing that could go on, so that most steps need no check of bounds."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys as bytes one after the other; `at[i]` to `at[i + 1]` is key i."""

    text: UInt8
    at: Int64

    @classmethod
    def of(cls, names: Sequence[str]) -> Keys:
        encoded = [name.encode() for name in names]
        at = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
        return cls(np.frombuffer(b"".join(encoded) or b" ", np.uint8), at)


class FeatureScanner:
    """Reads the numbers of an object that stands at a path.

    Parameters
    ----------
    path : keys from the top of the event to the object; at least one.
    names : keys of the numbers in it.
    """

    def __init__(self, path: Sequence[str], names: Sequence[str]) -> None:
        self._path, self._names = Keys.of(path), Keys.of(names)
        self._width = len(names)
        # The key that came after each one last time, and first of all (the last entry); a guess, never an answer.
        self._follows = np.append((np.arange(self._width) + 1) % self._width, 0)
        self.read([b"{}"])  # compiled now: the first events come inside a transaction

    def read(self, values: Sequence[bytes]) -> tuple[Float64, list[bytes]]:
        """The numbers of each event, and the event without their object.

        Returns
        -------
        numbers : shape (n, names); NaN where a number is null or not there.
        rest : of each event, with a 0 in the object's place; empty where the event was not read.
        """
        n = len(values)
        ends = np.cumsum(np.fromiter(map(len, values), np.int64, n))
        numbers = np.full((n, self._width), np.nan)
        rest, rest_ends = np.empty(int(ends[-1]) if n else 0, np.uint8), np.zeros(n, np.int64)
        seen = np.full(self._width, -1, np.int64)
        buffer = np.frombuffer(b"".join((*values, _PADDING)), np.uint8)
        path, names = self._path, self._names
        kinds, span = np.zeros(_DEPTH_MAX, np.uint8), np.zeros(2, np.int64)
        _scan(buffer, ends, path.text, path.at, names.text, names.at, seen, self._follows, kinds, numbers, span, rest, rest_ends)
        bounds = rest_ends.tolist()
        text = rest[: bounds[-1] if n else 0].tobytes()
        return numbers, [text[start:end] for start, end in pairwise([0, *bounds])]


@kernel
def _scan(
    b: UInt8, ends: Int64, path: UInt8, path_at: Int64, names: UInt8, names_at: Int64, seen: Int64, follows: Int64, kinds: UInt8,
    out: Float64, span: Int64, rest: UInt8, rest_ends: Int64,
) -> None:  # fmt: skip
    start = kept = 0
    for row in range(ends.shape[0]):
        end = ends[row]
        span[0] = span[1] = end  # where the object stands; at the end while there is none
        if _walk(b, start, end, path, path_at, names, names_at, seen, follows, kinds, out, span, row) == end:
            kept = _copy(b, start, span[0], rest, kept)
            if span[0] < end:
                rest[kept] = _ZERO
                kept = _copy(b, span[1], end, rest, kept + 1)
        rest_ends[row] = kept
        start = end


@part
def _copy(b: UInt8, start: int, end: int, to: UInt8, at: int) -> int:
    """By itself, so that the compiler sees no more than a copy; the place after it."""
    source, target = b[start:end], to[at : at + end - start]
    for i in range(source.shape[0]):
        target[i] = source[i]
    return at + end - start


@inlined
def _walk(
    b: UInt8, at: int, end: int, path: UInt8, path_at: Int64, names: UInt8, names_at: Int64, seen: Int64, follows: Int64, kinds: UInt8,
    out: Float64, span: Int64, row: int,
) -> int:  # fmt: skip
    """Read one event; where it ended, `_FAIL` when it was not read."""
    levels = path_at.shape[0] - 1
    level = 0  # keys of the path that we are inside of
    entered = 0  # and that were ever entered: none may come twice
    at = _blank(b, at)
    if b[at] != _OPEN:
        return _FAIL
    at = _blank(b, at + 1)
    if b[at] == _CLOSE:
        return _end(b, at + 1, end)
    while True:
        key = at + 1
        at = _after_key(b, at, end)
        if at < 0:
            return _FAIL
        if not _is_key(b, key, end, path, path_at[level], path_at[level + 1]):
            at = _skip(b, at, end, kinds, False)
        elif entered > level or b[at] != _OPEN:
            return _FAIL
        elif level + 1 < levels:
            level += 1
            entered = level
            at = _blank(b, at + 1)
            if b[at] != _CLOSE:
                continue
        else:
            entered = levels
            span[0] = at
            at = _features(b, at, end, names, names_at, seen, follows, kinds, out, row)
            span[1] = at
        if at < 0:
            return _FAIL
        at = _blank(b, at)
        while b[at] == _CLOSE:
            at += 1
            if level == 0:
                return _end(b, at, end)
            level -= 1
            at = _blank(b, at)
        if b[at] != _COMMA:
            return _FAIL
        at = _blank(b, at + 1)
        if b[at] != _QUOTE:
            return _FAIL


@inlined
def _end(b: UInt8, at: int, end: int) -> int:
    """The place after blanks, not beyond the event."""
    while at < end and _is_blank(b[at]):
        at += 1
    return at


@inlined
def _features(
    b: UInt8, at: int, end: int, names: UInt8, names_at: Int64, seen: Int64, follows: Int64, kinds: UInt8, out: Float64, row: int
) -> int:
    """Read the object that begins at `at`; the place after it."""
    at = _blank(b, at + 1)
    if b[at] == _CLOSE:
        return at + 1
    width = names_at.shape[0] - 1
    last = width  # producers write their keys in one order: what came after this one before is most likely
    while True:
        if b[at] != _QUOTE:
            return _FAIL
        key = at + 1
        k = follows[last]
        if not _is_key(b, key, end, names, names_at[k], names_at[k + 1]):
            k = -1
        at = _after_key(b, at, end) if k < 0 else _after_colon(b, key + names_at[k + 1] - names_at[k] + 1)
        if at < 0:
            return _FAIL
        if k < 0:
            for other in range(width):
                if _is_key(b, key, end, names, names_at[other], names_at[other + 1]):
                    k = other
        if k < 0:
            at = _skip(b, at, end, kinds, True)
        else:
            if seen[k] == row:
                return _FAIL
            seen[k] = row
            follows[last] = k
            last = k
            if b[at] == _SMALL_T or b[at] == _SMALL_F or b[at] == _SMALL_N:
                if b[at] != _SMALL_N:
                    out[row, k] = 1.0 if b[at] == _SMALL_T else 0.0
                at = _literal(b, at)
            else:
                at, known, number = read_number(b, at)
                if not known:
                    return _FAIL
                out[row, k] = number
        if at < 0:
            return _FAIL
        at = _blank(b, at)
        if b[at] == _CLOSE:
            return at + 1
        if b[at] != _COMMA:
            return _FAIL
        at = _blank(b, at + 1)


@inlined
def _skip(b: UInt8, at: int, end: int, kinds: UInt8, plain: bool) -> int:
    """The place after the value that begins at `at`; `kinds` remembers which brackets are open.

    `plain`: nobody else looks at it, so texts in it must be plain too.
    """
    depth = 0
    while True:
        c = b[at]
        if c == _OPEN or c == _OPEN_LIST:  # noqa: SIM109 - compiled, a tuple is slower
            if depth == _DEPTH_MAX:
                return _FAIL
            kinds[depth] = c
            depth += 1
            at = _blank(b, at + 1)
            if b[at] == c + 2:
                depth -= 1
                at += 1
            else:
                at = _after_key(b, at, end) if c == _OPEN else at
                if at < 0:
                    return _FAIL
                continue
        elif c == _QUOTE:
            at = _text_end(b, at + 1, end) if plain else _any_text_end(b, at + 1, end)
        elif c == _MINUS or is_digit(c):
            at, _, _ = read_number(b, at)
        else:
            at = _literal(b, at)
        if at < 0:
            return _FAIL
        while depth:
            at = _blank(b, at)
            if b[at] == kinds[depth - 1] + 2:
                depth -= 1
                at += 1
            elif b[at] == _COMMA:
                at = _blank(b, at + 1)
                at = _after_key(b, at, end) if kinds[depth - 1] == _OPEN else at
                break
            else:
                return _FAIL
        if depth == 0 or at < 0:
            return at


@inlined
def _after_key(b: UInt8, at: int, end: int) -> int:
    """The value of the key that begins at `at` with its quote."""
    if b[at] != _QUOTE:
        return _FAIL
    at = _text_end(b, at + 1, end)
    return _FAIL if at < 0 else _after_colon(b, at)


@inlined
def _after_colon(b: UInt8, at: int) -> int:
    at = _blank(b, at)
    return _blank(b, at + 1) if b[at] == _COLON else _FAIL


@inlined
def _is_key(b: UInt8, at: int, end: int, keys: UInt8, first: int, last: int) -> bool:
    """Whether keys[first:last] and a quote stand at `at`."""
    close = at + last - first
    if close >= end or b[close] != _QUOTE:
        return False
    different = np.uint8(0)
    for i in range(last - first):  # without a way out early: several bytes at once
        different |= b[at + i] ^ keys[first + i]
    return bool(different == 0)


@inlined
def _any_text_end(b: UInt8, at: int, end: int) -> int:
    """The place after the quote that ends a text of any kind: what is in it is left to the typed decoder."""
    while at < end:
        c = b[at]
        if c == _QUOTE:
            return at + 1
        at += 2 if c == _BACKSLASH else 1
    return _FAIL


@inlined
def _text_end(b: UInt8, at: int, end: int) -> int:
    """The place after the quote that ends a text without escapes, control characters or non-ASCII."""
    while at < end:
        c = b[at]
        if c == _QUOTE:
            return at + 1
        if c < 0x20 or c > 0x7E or c == _BACKSLASH:
            return _FAIL
        at += 1
    return _FAIL


@inlined
def _literal(b: UInt8, at: int) -> int:
    """The place after true, false or null."""
    c, d, e, f = b[at], b[at + 1], b[at + 2], b[at + 3]
    if (c == 116 and d == 114 and e == 117 and f == 101) or (c == 110 and d == 117 and e == 108 and f == 108):
        return at + 4
    return at + 5 if c == 102 and d == 97 and e == 108 and f == 115 and b[at + 4] == 101 else _FAIL


@inlined
def _is_blank(c: int) -> bool:
    return c <= _SPACE and (c == _SPACE or c == _NEWLINE or c == _RETURN or c == _TAB)  # noqa: SIM109 - as above


@inlined
def _blank(b: UInt8, at: int) -> int:
    while _is_blank(b[at]):
        at += 1
    return at
