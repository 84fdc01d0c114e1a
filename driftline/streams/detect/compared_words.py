"""What a comparison found, in words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from driftline.detectors.compare import Difference
from driftline.schemas.units import level_words
from driftline.streams.detect.plan import ModelPlan

NAMED_MAX: Final = 5
"""So many series are named, more are counted; all stand in the event."""


def mismatch_reason(plan: ModelPlan, found: Sequence[Difference], rows: int) -> str:
    """Which series of a file the first live rows do not agree with, what is done about it, and what a person can do."""
    file = os.path.normpath(plan.model.baseline.file or "")
    return (
        f"the first {rows:,} live rows are not as {file} says: {differing(found)}. These columns are watched for change against a "
        "reference learned from here on, not against the file. If live is right, build a file of it: `driftline baseline build CONFIG "
        f"--from-topic --from=-24h -o NEW.json`, then models.{plan.name}.baseline: {{file: NEW.json, accepted: WHY}}"
    )


def shift_reason(version: str, old: str, found: Sequence[Difference], rows: int, old_rows: int) -> str:
    """What a version does otherwise than the one before it."""
    told = differing(found) if found else "no difference that counts"
    return f'the first {rows:,} rows of version "{version}" against the last {old_rows:,} of "{old}": {told}'


def differing(found: Sequence[Difference]) -> str:
    """The series, largest effect first, for example ``feature:amount (median 31.2 against 12.4), score (PSI 0.31)``."""
    ordered = sorted(found, key=lambda one: (-abs(one.certain), one.series))
    told = ", ".join(f"{one.series} ({_size(one)})" for one in ordered[:NAMED_MAX])
    return told if len(found) <= NAMED_MAX else f"{told} and {len(found) - NAMED_MAX} more"


def _size(one: Difference) -> str:
    if one.median is not None and one.baseline_median is not None and one.effect_kind == "mean":
        now, before = (level_words(one.series, median) for median in (one.median, one.baseline_median))
        return f"{one.effect:+.2g} sd, median {now} against {before}"
    if one.effect_kind == "rate":
        return f"{one.value:.3g} against {one.baseline_value:.3g}"
    return f"PSI {one.effect:.2g}" if one.effect_kind == "psi" else f"{one.effect:+.2g} sd"
