"""What a comparison found: counts, and the first few differences in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Difference = Literal["lost", "doubled", "changed"]

_NOTES_MAX: Final = 12
_NOTE_CHARACTERS_MAX: Final = 240


@dataclass(slots=True)
class Verdict:
    """The outcome of a comparison.

    Attributes
    ----------
    lost : expected and not there.
    doubled : there more often than expected.
    changed : there with another content or in another place, or there and never expected.
    notes : the first few, in words.
    """

    expected: int = 0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.changed)

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            self.expected + other.expected, self.lost + other.lost, self.doubled + other.doubled, self.changed + other.changed,
            (self.notes + other.notes)[:_NOTES_MAX],
        )  # fmt: skip

    def differs(self, kind: Difference, what: str) -> None:
        """Count one difference, and say what it is."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.note(f"{kind}: {what}")

    def note(self, text: str) -> None:
        if len(self.notes) < _NOTES_MAX:
            self.notes.append(text[:_NOTE_CHARACTERS_MAX])
