"""A panel's checkpoint: blobs of numbers with a version and a checksum, and rings; no pickle, no code.

Whatever stands in a blob, reading it gives a panel or a `StateError`: lengths, codes and counts are checked, and a
window is counted again from its ring and must give the checkpoint's counts.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from driftline.detectors.budgeted import BudgetedSeries
from driftline.detectors.changes import ChangeDetectors
from driftline.detectors.episodes import E_KIND, E_OPEN, E_SEVERITY, EPISODE_FIELDS, OPEN, STALE
from driftline.detectors.kernels.bank import pack, unpack
from driftline.detectors.kernels.psi import PsiBank
from driftline.detectors.levels import RATE_EFFECT
from driftline.detectors.ring import A_ROW, ANCHOR_FIELDS, RUN_BIT, Windows
from driftline.detectors.spec import N_CODES, PanelRows, RingState, StateError
from driftline.detectors.stale import Silence
from driftline.detectors.tables import Tables
from driftline.detectors.witnesses import Witnesses

VERSION: Final = 2
BASELINE_BLOB: Final = "baseline"
_SCOPE_MAGIC: Final = b"DPNL"
_OWN_TYPES: Final = ("<i8", "<i4", "<f8", "<i8", "<i4", "<i8", "<i8", "<i8", "u1")
_DAMAGE: Final = (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, AttributeError, RecursionError, struct.error)
_SUM_BYTES: Final = 8


def scope_blob(scope: int) -> str:
    """The name of a scope's blob."""
    return f"scope/{scope}"


def ring_name(scope: int) -> str:
    """The name of a scope's ring."""
    return f"ring/{scope}"


def learn_blob(k: int) -> str:
    """The name of the k-th export's learning rows."""
    return f"learn/{k}"


def _sealed(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()[:_SUM_BYTES] + payload


def _unsealed(blob: bytes) -> bytes:
    payload = bytes(blob[_SUM_BYTES:])
    if hashlib.sha256(payload).digest()[:_SUM_BYTES] != bytes(blob[:_SUM_BYTES]):
        raise ValueError("checksum does not match")
    return payload


@dataclass(frozen=True, slots=True)
class ScopeState:
    """The state of one scope, wherever its parts live."""

    scope: int
    tables: Tables
    windows: Windows
    silence: Silence
    psi: PsiBank
    changes: ChangeDetectors
    budget: BudgetedSeries | None = None
    witnesses: Witnesses | None = None

    def pack(self) -> bytes:
        """The scope without its ring."""
        s, st = self.scope, self.windows
        open_series = np.flatnonzero(st.episodes[s, :, E_OPEN])
        own = [
            np.array([st.heads[s], self.silence.seen_ms[s]], np.int64),
            st.runs_within[s],
            st.last[s],
            st.run[s],
            open_series.astype(np.int32),
            st.episodes[s, open_series],
            st.fine[s][st.fine[s, :, A_ROW] >= 0],
            st.coarse[s][st.coarse[s, :, A_ROW] >= 0],
            np.frombuffer(self.psi.export(s), np.uint8),
        ]
        banks = [np.frombuffer(blob, np.uint8) for blob in self._banks()]
        return _sealed(pack(_SCOPE_MAGIC, VERSION, st.ring.shape[2], [*own, *banks]))

    def _banks(self) -> list[bytes]:
        own = [] if self.budget is None else [self.budget.export(self.scope)]
        # Blocks are watched over all rows, scope 0.
        learned = [] if self.witnesses is None or self.scope else [self.witnesses.export()]
        return self.changes.export(self.scope) + own + learned

    def ring(self, *, since: int) -> RingState:
        """The rows after head `since`, or the whole window where they are more than it holds."""
        ring = self.windows.ring[self.scope]
        head = int(self.windows.heads[self.scope])
        length, columns = ring.shape
        full = head - since > length
        rows = min(head, length) if full else head - since
        order = np.arange(head - rows, head) % length
        return RingState(ring_name(self.scope), columns, length, head, ring[order].tobytes(), full)

    def restore(self, blob: bytes, ring: RingState | None) -> None:
        """Go on from `pack` and the ring.

        Raises
        ------
        StateError : damaged, of another version or layout, or blob and ring of different moments.
        """
        try:
            self._restore(blob, ring)
        except _DAMAGE as error:
            raise StateError(f"checkpoint: {scope_blob(self.scope)}: {error}") from error

    def _restore(self, blob: bytes, ring: RingState | None) -> None:
        s, st = self.scope, self.windows
        payload = _unsealed(blob)
        types = [*_OWN_TYPES, *["u1"] * len(self._banks())]
        columns = st.ring.shape[2]
        parts = unpack(payload, _SCOPE_MAGIC, VERSION, columns, types, [2, st.runs_within.shape[1], columns, columns])
        heads, runs_within, last, run, open_series, episodes, fine, coarse, psi = parts[: len(_OWN_TYPES)]
        if ring is None or ring.head != int(heads[0]) or ring.head < 0:
            found = None if ring is None else ring.head
            raise ValueError(f"its ring is missing or of another moment: head {found}, expected {int(heads[0])}")
        self._load_ring(ring)
        self.silence.seen_ms[s] = heads[1]
        st.runs_within[s], st.last[s], st.run[s] = runs_within, last, run
        fields = episodes.reshape(len(open_series), EPISODE_FIELDS)
        if len(fields) and not ((fields[:, E_SEVERITY] >= 0) & (fields[:, E_SEVERITY] <= 2)).all():
            raise ValueError("an episode has an unknown severity")
        if len(fields) and not ((fields[:, E_KIND] >= 0) & (fields[:, E_KIND] <= RATE_EFFECT)).all():
            raise ValueError("an episode has an unknown kind of effect")
        if len(fields) and not ((fields[:, E_OPEN] >= OPEN) & (fields[:, E_OPEN] <= STALE)).all():
            raise ValueError("an episode is neither open nor ended for want of rows")
        if (open_series < 0).any():
            raise ValueError("an episode has no series")
        st.episodes[s] = 0
        st.episodes[s, open_series] = fields
        for anchors, kept, every in ((fine, st.fine[s], 32), (coarse, st.coarse[s], 1024)):
            rows = anchors.reshape(-1, ANCHOR_FIELDS)
            kept[:] = -1
            kept[(rows[:, A_ROW] // every) % len(kept)] = rows
        self.psi.restore(s, psi.tobytes())
        banks = [part.tobytes() for part in parts[len(_OWN_TYPES) :]]
        if self.witnesses is not None and not s:
            self.witnesses.restore(banks.pop())
        if self.budget is not None:
            self.budget.restore(s, banks.pop())
        self.changes.restore(s, banks)
        self._count_again()

    def _load_ring(self, ring: RingState) -> None:
        st, s = self.windows, self.scope
        length, columns = st.ring.shape[1:]
        rows = min(ring.head, length)
        if (ring.record_bytes, ring.window, len(ring.rows)) != (columns, length, rows * columns):
            raise ValueError(
                f"ring: expected {rows} rows of {columns} bytes in a window of {length}, "
                f"got {len(ring.rows)} bytes of {ring.record_bytes} in {ring.window}"
            )
        records = np.frombuffer(ring.rows, np.uint8).reshape(rows, columns)
        if rows and int((records & (RUN_BIT - 1)).max(initial=0)) >= N_CODES:
            raise ValueError("ring: an unknown code")
        st.heads[s] = ring.head
        st.ring[s, np.arange(ring.head - rows, ring.head) % length] = records

    def _count_again(self) -> None:
        """The window's counts from the ring must be the checkpoint's (PROTOCOL 6)."""
        st, s, t = self.windows, self.scope, self.tables
        head, length = int(st.heads[s]), st.ring.shape[1]
        for lane in range(len(t.lane_column)):
            rows = min(head, int(t.lane_window[lane]))
            held = st.ring[s, np.arange(head - rows, head) % length, t.lane_column[lane]]
            counts = np.bincount(held & (RUN_BIT - 1), minlength=N_CODES)
            if not np.array_equal(counts, self.psi.arrays.counts[s, lane]) or int((held >= RUN_BIT).sum()) != st.runs_within[s, lane]:
                raise ValueError(f"ring and counts of column {int(t.lane_column[lane])} do not agree")


def pack_learned(chunks: Sequence[PanelRows]) -> bytes:
    """Learning rows as they came."""
    head: list[Any] = []
    arrays: list[np.ndarray[Any, Any]] = []

    def put(array: np.ndarray[Any, Any], dtype: str) -> int:
        arrays.append(np.ascontiguousarray(array, dtype))
        return len(arrays) - 1

    for rows in chunks:
        head.append(
            {
                "n": rows.n,
                "names": list(rows.numeric_names),
                "numeric": put(rows.numeric, "<f8"),
                "categorical": [[name, put(codes, "<i4"), values] for name, (codes, values) in rows.categorical.items()],
                "segments": [[key, put(codes, "<i4"), values] for key, (codes, values) in rows.segments.items()],
                "invalid": None if rows.invalid is None else put(rows.invalid, "<i4"),
                "not_applicable": [[name, put(mask, "u1")] for name, mask in rows.not_applicable.items()],
                **({"vectors": _packed_vectors(rows, put)} if rows.vectors else {}),
                "position": [put(rows.source, "<u2"), put(rows.offset, "<i8"), put(rows.time_ms, "<i8")],
            }
        )
    text = json.dumps({"version": VERSION, "chunks": head, "types": [array.dtype.str for array in arrays]}).encode()
    body = b"".join(struct.pack("<Q", array.nbytes) + array.tobytes() for array in arrays)
    return _sealed(struct.pack("<Q", len(text)) + text + body)


def _packed_vectors(rows: PanelRows, put: Callable[[np.ndarray[Any, Any], str], int]) -> list[list[Any]]:
    return [[name, put(vector, "<f4"), vector.shape[1]] for name, vector in rows.vectors.items()]


def unpack_learned(blob: bytes) -> list[PanelRows]:
    """The rows of `pack_learned`.

    Raises
    ------
    StateError : damaged or of another version.
    """
    try:
        payload = _unsealed(blob)
        (length,) = struct.unpack_from("<Q", payload)
        head = json.loads(payload[8 : 8 + length])
        if head["version"] != VERSION:
            raise ValueError(f"version {head['version']!r}, this release reads version {VERSION}")
        arrays = []
        at = 8 + length
        for dtype in head["types"]:
            (size,) = struct.unpack_from("<Q", payload, at)
            arrays.append(np.frombuffer(payload[at + 8 : at + 8 + size], dtype).copy())
            at += 8 + size
        return [_learned_rows(item, arrays) for item in head["chunks"]]
    except _DAMAGE as error:
        raise StateError(f"checkpoint: learning rows: {error}") from error


def _learned_rows(item: dict[str, Any], arrays: list[np.ndarray[Any, Any]]) -> PanelRows:
    n, names = item["n"], item["names"]
    source, offset, time_ms = (arrays[place] for place in item["position"])
    out = PanelRows(
        n=n,
        numeric=arrays[item["numeric"]].reshape(n, len(names)),
        numeric_names=names,
        categorical={name: (arrays[place], values) for name, place, values in item["categorical"]},
        segments={key: (arrays[place], values) for key, place, values in item["segments"]},
        invalid=None if item["invalid"] is None else arrays[item["invalid"]].reshape(-1, 2),
        not_applicable={name: arrays[place].astype(bool) for name, place in item["not_applicable"]},
        source=source,
        offset=offset,
        time_ms=time_ms,
        vectors={name: arrays[place].reshape(n, length) for name, place, length in item.get("vectors", ())},
    )
    coded = [*out.categorical.values(), *out.segments.values()]
    if any(len(codes) != n or (n and not -1 <= codes.min() <= codes.max() < len(values)) for codes, values in coded):
        raise ValueError("codes do not fit their values")
    return out
