"""One waiting block of age meets the labels known by then: which label each prediction takes, and what the others were."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from driftline.streams.join.facts import COUNTED_AT, FACT, FACT_BYTES, Fact, read_facts

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(slots=True)
class Window:
    """Which labels count for the rows of a block.

    Attributes
    ----------
    record_ms : shape (n,), of the predictions.
    age_ms : a prediction takes labels up to this long after it.
    from_ms : shape (n,), labels before this may be swept already, so they do not count for the row.
    next_offset : labels at or beyond this offset of the labels topic have not been read by this attempt.
    models : shape (n,), model hashes; a label that names another model is not seen.
    """

    record_ms: Int64
    age_ms: int
    from_ms: Int64
    next_offset: int
    models: npt.NDArray[np.uint32]


@dataclass(slots=True)
class Matches:
    """What the rows of a block found.

    Attributes
    ----------
    found : shape (n,), whether a label was taken.
    time_ms, value, texts : of the label taken; `texts` by row, only where it is a text.
    cases : rows of facts by (case, model hash).
    remains : by row, the facts that came too late: they stay, counted, until they are swept.
    """

    found: npt.NDArray[np.bool_]
    time_ms: Int64
    value: Float64
    texts: dict[int, str] = field(default_factory=dict)
    cases: Counter[tuple[str, int]] = field(default_factory=Counter)
    remains: dict[int, bytes] = field(default_factory=dict)


def match(packed: Sequence[bytes | None], window: Window) -> Matches:
    """The label each row takes: the first by (label time, source position) that the window lets in."""
    n = len(packed)
    out = Matches(np.zeros(n, np.bool_), np.zeros(n, np.int64), np.full(n, math.nan))
    rows = [row for row, value in enumerate(packed) if value is not None]
    if not rows:
        return out
    values = packed if len(rows) == n else [packed[row] for row in rows]
    plain = [len(value or b"") == FACT_BYTES for value in values]
    if all(plain):
        _match_single(np.array(rows, np.int64), b"".join(values), window, out)  # type: ignore[arg-type]
        return out
    single = [row for row, one in zip(rows, plain, strict=True) if one]
    if single:
        _match_single(np.array(single, np.int64), b"".join(packed[row] or b"" for row in single), window, out)
    for row, one in zip(rows, plain, strict=True):
        if not one:
            _match_several(row, read_facts(packed[row] or b""), window, out)
    return out


def _match_single(rows: Int64, joined: bytes, window: Window, out: Matches) -> None:
    """Rows with one fact each, which is nearly all of them, as columns."""
    facts = np.frombuffer(joined, FACT)
    record = window.record_ms[rows]
    own = (facts["model"] == 0) | (facts["model"] == window.models[rows])
    seen = own & (facts["labels_offset"] < window.next_offset) & (facts["time_ms"] >= window.from_ms[rows])
    in_time = seen & (facts["time_ms"] <= record + window.age_ms)
    taken = rows[in_time]
    out.found[taken] = True
    out.time_ms[taken] = facts["time_ms"][in_time]
    out.value[taken] = facts["value"][in_time]
    for i in np.flatnonzero(seen & ~in_time).tolist():
        row = int(rows[i])
        fact = bytearray(joined[i * FACT_BYTES : (i + 1) * FACT_BYTES])
        if not fact[COUNTED_AT]:
            out.cases["late", int(window.models[row])] += 1
        fact[COUNTED_AT] = 1
        out.remains[row] = bytes(fact)


def _match_several(row: int, facts: list[Fact], window: Window, out: Matches) -> None:
    model = int(window.models[row])
    limit = int(window.record_ms[row]) + window.age_ms
    seen = [f for f in facts if f.model in (0, model) and f.labels_offset < window.next_offset and f.time_ms >= window.from_ms[row]]
    in_time = [f for f in seen if f.time_ms <= limit]
    late = [f for f in seen if f.time_ms > limit]
    for fact in in_time[1:]:
        if not fact.counted:
            out.cases["duplicate" if fact.same_as == in_time[0].same_as else "contradiction", model] += 1
    for fact in late:
        if not fact.counted:
            out.cases["late", model] += 1
    if in_time:
        first = in_time[0]
        out.found[row] = True
        out.time_ms[row] = first.time_ms
        out.value[row] = first.value
        if first.text is not None:
            out.texts[row] = first.text
    if late:
        out.remains[row] = b"".join(f.encode(counted=True) for f in reversed(late))
