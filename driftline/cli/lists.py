"""Which columns of a sample are lists of numbers of one length, such as embeddings: what `init` suggests as vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

_LENGTH_MOST: Final = 4_096
_SHARE_LEAST: Final = 0.9
"""Of the values that are there."""


def vector_columns(columns: Mapping[str, Sequence[Any]]) -> list[tuple[str, int]]:
    """Columns most of whose values are lists of so many numbers, in their order, and how many."""
    found = []
    for name, values in columns.items():
        there = [value for value in values if value is not None]
        lengths = Counter(len(value) for value in there if isinstance(value, list) and all(_number(one) for one in value))
        if not lengths:
            continue
        length, count = lengths.most_common(1)[0]
        if 2 <= length <= _LENGTH_MOST and count >= _SHARE_LEAST * len(there):
            found.append((name, length))
    return found


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
