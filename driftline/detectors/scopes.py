"""Which scopes a row belongs to: all rows, and for each segment key the scope of its value or ``other``."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

import numpy as np

from driftline.detectors.baseline import scope_names
from driftline.detectors.spec import Int32, PanelRows

_CACHE_MAX: Final = 100_000
"""Hashes remembered per name; a stream of ever new values must not grow memory."""


def hide(value: str, key: bytes) -> str:
    """The keyed hash that stands for a sensitive value: "h:" and 16 hex digits (64 bits; 10^6 values collide with odds 3e-8)."""
    return "h:" + hmac.new(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]


class Texts:
    """Turns the values of a text column into what is compared and shown: themselves, or keyed hashes."""

    def __init__(self, *, sensitive: bool, key: bytes) -> None:
        self._key = key if sensitive else None
        self._known: dict[str, str] = {}

    def shown(self, values: list[str]) -> list[str]:
        """The values, hashed when the column is sensitive."""
        if self._key is None:
            return values
        if len(self._known) > _CACHE_MAX:
            self._known.clear()
        for value in values:
            if value not in self._known:
                self._known[value] = hide(value, self._key)
        return [self._known[value] for value in values]


class Scopes:
    """The scopes of a baseline.

    Attributes
    ----------
    names : as `Baseline.scope_names`. `per_row`: scopes each row belongs to.
    """

    def __init__(self, segments: Mapping[str, tuple[str, ...]], *, sensitive: frozenset[str] = frozenset(), hash_key: bytes = b"") -> None:
        self.names = scope_names(segments)
        self.per_row = 1 + len(segments)
        self._keys: list[tuple[str, dict[str, int], int, Texts]] = []
        first = 1
        for key, values in segments.items():
            scope_of = {value: first + i for i, value in enumerate(values)}
            other = first + len(values)
            self._keys.append((key, scope_of, other, Texts(sensitive=key in sensitive, key=hash_key)))
            first = other + 1

    def encode(self, rows: PanelRows) -> Int32:
        """Scope indices, shape (n, per_row); column 0 is scope 0."""
        out: Int32 = np.zeros((rows.n, self.per_row), np.int32)
        for k, (key, scope_of, other, texts) in enumerate(self._keys, start=1):
            if key not in rows.segments:
                out[:, k] = other
                continue
            codes, values = rows.segments[key]
            # The last entry serves code -1, a row without a value.
            table = np.array([scope_of.get(value, other) for value in texts.shown(values)] + [other], np.int32)
            out[:, k] = table[codes]
        return out
