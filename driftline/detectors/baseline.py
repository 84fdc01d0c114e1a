"""The reference that everything is compared with: immutable, hashed, without raw rows."""

from __future__ import annotations

from pathlib import Path


class Baseline:
    """Bins, categories and counts of a reference, for all rows and each admitted segment value.

    `id` is "bl-" + the first 16 hex digits of the SHA-256 of the canonical JSON. `rows` = rows it was built from.
    """

    id: str
    rows: int

    def to_json(self) -> str: ...

    @classmethod
    def from_json(cls, text: str | bytes) -> Baseline: ...

    def save(self, path: Path) -> None: ...

    @classmethod
    def load(cls, path: Path) -> Baseline: ...
