"""What the series of the stream itself say: a number of their own without its unit helps nobody at night."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from driftline.schemas.stream_series import FRESHNESS, INVALID_ROWS, JOIN_RATE, LABEL_DELAY, LABELLED_ROWS, VOLUME
from driftline.schemas.units import bin_words, level_words, percent, span

SHARES: Final = {LABELLED_ROWS: "of the predictions have a label at their age", INVALID_ROWS: "of the rows have an invalid value"}
"""The series that are shares of rows or predictions, and what their shares are."""


def stream_words(series: str, shown: Mapping[str, Any]) -> str:
    """The level of a series of the stream with its unit, and what it is held against; empty for other series, and without a level."""
    value, base, limit, n = (shown.get(name) for name in ("value", "baseline_value", "threshold", "n"))
    if series == LABEL_DELAY:
        now, before = shown.get("median"), shown.get("baseline_median")
        if now is None or before is None:
            return _by_bin(shown)
        return f"labels come {_late(now)} their predictions, baseline {level_words(series, before)}"
    if value is None:
        return ""
    if series == FRESHNESS:
        return f"no prediction for {span(1_000 * value)}" + ("" if limit is None else f", limit {span(1_000 * limit)}")
    if series == VOLUME:
        told = f"{value:.3g} times as many predictions as the hour before makes expected"
        return told if base is None else f"{told}, {n:,} in ten minutes instead of {base:,.0f}"
    if series == JOIN_RATE:
        return f"{percent(value)} of {n:,} predictions had a label at their age" + ("" if limit is None else f", limit {percent(limit)}")
    if series in SHARES:
        return f"{percent(value)} {SHARES[series]}" + ("" if base is None else f", baseline {percent(base)}")
    return ""


def said_whole(series: str) -> bool:
    """Whether the words of a series have its size and its number of rows in them."""
    return series in (FRESHNESS, VOLUME, JOIN_RATE)


def _late(ms: float) -> str:
    """How long after its prediction a label comes; some clocks say before."""
    return f"{span(abs(ms))} {'before' if ms < 0 else 'after'}"


def _by_bin(shown: Mapping[str, Any]) -> str:
    """The delays that are commoner or rarer than they were, where half of them are longer than any before and there is no median."""
    for found in shown["bins"][:1]:
        name, now, base = bin_words(LABEL_DELAY, found["bin"]), percent(found["observed"]), percent(found["expected"])
        return f"delay {name} in {now} of rows, baseline {base}"
    return ""
