"""The reference that everything is compared with: immutable, hashed, without raw rows.

A baseline is bins and counts. Its id is a hash of its canonical JSON, so equal references have equal ids wherever they
were built, and a file that was edited or cut short is noticed when it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from driftline.detectors.autoregression import Autoregression, Dependence
from driftline.detectors.blocks import Block
from driftline.detectors.pairs import Factor
from driftline.detectors.runs import draw_shares
from driftline.detectors.season import Season
from driftline.detectors.spec import (
    ABOVE,
    BELOW,
    INVALID,
    MAX_BINS,
    MISSING,
    N_CODES,
    NOT_APPLICABLE,
    OTHER_SEGMENT,
    BaselineError,
    Float64,
    Int64,
    Kind,
    ordered_codes,
)

FORMAT: Final = "driftline-baseline"
VERSION: Final = 6
_WITHOUT_RUNS: Final = 5
_WITHOUT_BLOCKS: Final = 4
_WITHOUT_PAIRS: Final = 3
_WITHOUT_SEASON: Final = 2
_WITHOUT_MEMORY: Final = 1
"""The versions before, which a baseline without runs, blocks, pairs, seasons and autoregressions, from the last on, still has: an older
release reads it, and its id stays."""
ID_HEX_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class ColumnReference:
    """One column of a baseline.

    Attributes
    ----------
    edges : numeric only, increasing; code i holds the values in (edges[i-1], edges[i]], the outer codes are open up
        to `low` and `high`, what lies beyond them is BELOW or ABOVE.
    low, high, mean, sd : over finite values; None when there is none. `atom`: share of the commonest value.
    tails : quantile -> the edge that stands for it.
    categories : values by rank; `others` are values known beyond them. `complete` is False when even `others` was
        capped: a value that is in neither may then have been seen, and counts as OTHER, never as UNSEEN.
    sensitive : categories and others are keyed hashes.
    factors : of a product, the two columns that are multiplied; edges and the rest are then the product's.
    means : of a product, the mean of each bin's values, from which the correlation over a window is told; of a block likewise.
    block : of columns that are watched jointly; edges and the rest are then of what a row is worth to their witness.
    """

    name: str
    kind: Kind
    edges: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    sd: float | None = None
    atom: float = 0.0
    tails: Mapping[str, float] = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    complete: bool = True
    sensitive: bool = False
    factors: tuple[Factor, Factor] | tuple[()] = ()
    means: tuple[float, ...] = ()
    block: Block | None = None

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The columns of the rows that it is made of; empty = itself."""
        return self.block.names if self.block is not None else tuple(factor.name for factor in self.factors)

    @property
    def unit(self) -> float:
        """What a score of 1 is worth: 1, but of a block the standard deviation of what rows are worth to its witness."""
        return self.sd if self.block is not None and self.sd else 1.0

    @property
    def n_bins(self) -> int:
        """Codes 0 to n_bins - 1 are in use."""
        if self.kind == "categorical":
            return len(self.categories)
        return 2 if self.kind == "binary" else len(self.edges) + 1

    def bin_name(self, code: int) -> str:
        """What a reader sees of a code: an interval, a category, or the name of a special bin."""
        special = {MISSING: "missing", INVALID: "invalid", NOT_APPLICABLE: "not applicable"}
        if code in special:
            return special[code]
        if self.kind == "categorical":
            return self.categories[code] if code < len(self.categories) else ("other" if code == BELOW else "unseen")
        if self.kind == "binary":
            return str(code)
        if code in (BELOW, ABOVE):
            bound = self.low if code == BELOW else self.high
            return "any" if bound is None else f"{'<' if code == BELOW else '>'} {bound:.6g}"
        lower = self.low if code == 0 else self.edges[code - 1]
        upper = self.edges[code] if code < len(self.edges) else self.high
        if lower is None or upper is None:
            return "any"
        inner = math.nextafter(lower, math.inf) if code else lower
        return f"{upper:.6g}" if inner == upper else f"{'(' if code else '['}{lower:.6g}, {upper:.6g}]"


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Bins, categories and counts of a reference, for all rows and for each admitted segment value.

    Attributes
    ----------
    rows : rows it was built from. `thinning`: 1 = every row was counted, k = every k-th.
    segments : key -> admitted values, most frequent first; every key has one more scope, ``other``.
    counts : shape (scopes, columns, N_CODES), read-only; scopes in the order of `scope_names`.
    memory : (scope, column) of values that depend on those before them -> how.
    dependence : (scope, column) of values that depend on each other beyond that -> how much.
    season : (scope, column) of values that go by the hour -> the reference of each hour; `counts` are those of all hours.
    id : "bl-" and the first 16 hex digits of the SHA-256 of the canonical JSON.
    """

    columns: tuple[ColumnReference, ...]
    segments: Mapping[str, tuple[str, ...]]
    counts: Int64
    rows: int
    thinning: int = 1
    memory: Mapping[tuple[int, int], Autoregression] = field(default_factory=dict)
    dependence: Mapping[tuple[int, int], Dependence] = field(default_factory=dict)
    season: Mapping[tuple[int, int], Season] = field(default_factory=dict)
    id: str = field(init=False, default="")

    def __post_init__(self) -> None:
        counts = np.array(self.counts, np.int64, order="C")
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)
        digest = hashlib.sha256(_canonical(self._body())).hexdigest()
        object.__setattr__(self, "id", f"bl-{digest[:ID_HEX_DIGITS]}")

    @property
    def scope_names(self) -> list[tuple[str, str] | None]:
        """(segment key, value) of each scope; the first is None, all rows."""
        return scope_names(self.segments)

    def column(self, name: str) -> int | None:
        """The index of a column, None when the baseline has none of this name."""
        return next((i for i, column in enumerate(self.columns) if column.name == name), None)

    def grouping(self) -> dict[str, str]:
        """Columns whose values go by the hour, and by which; of all rows, or else of the first segment value where they do."""
        return {self.columns[c].name: season.name for (_, c), season in sorted(self.season.items(), reverse=True)}

    def to_json(self) -> str:
        """The file's text; equal baselines give equal texts."""
        whole = {"format": FORMAT, "version": self._version(), "id": self.id, "body": self._body()}
        return _canonical(whole).decode()

    def _version(self) -> int:
        """The first that could say all that this one does."""
        if any(memory.runs for memory in self.memory.values()):
            return VERSION
        if any(column.block is not None for column in self.columns):
            return _WITHOUT_RUNS
        if any(column.factors for column in self.columns):
            return _WITHOUT_BLOCKS
        if self.season:
            return _WITHOUT_PAIRS
        return _WITHOUT_SEASON if self._ordered() else _WITHOUT_MEMORY

    def _body(self) -> dict[str, Any]:
        return self._ordered() | {
            "columns": [_column_json(column) for column in self.columns],
            # A list of pairs: the order of keys is the order of scopes, which sorting an object would lose.
            "segments": [[key, list(values)] for key, values in self.segments.items()],
            "counts": self.counts.tolist(),
            "rows": self.rows,
            "thinning": self.thinning,
        }

    def _ordered(self) -> dict[str, Any]:
        """What the order and the hours of its rows told; nothing where those are all the same."""
        parts: dict[str, Mapping[tuple[int, int], Any]] = {"memory": self.memory, "dependence": self.dependence, "season": self.season}
        return {
            name: [{"scope": s, "column": c, **found[s, c].to_json()} for s, c in sorted(found)] for name, found in parts.items() if found
        }

    @classmethod
    def from_json(cls, text: str | bytes, *, place: str = "baseline") -> Baseline:
        """The baseline in a text that `to_json` wrote; `place` names it in errors.

        Raises
        ------
        BaselineError : not a baseline, of a newer version, or its content does not match its id.
        """
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BaselineError(f"{place}: not JSON: {error}") from error
        if not isinstance(whole, dict) or whole.get("format") != FORMAT:
            raise BaselineError(f'{place}: not a baseline: expected an object with "format": "{FORMAT}"')
        if whole.get("version") not in range(_WITHOUT_MEMORY, VERSION + 1):
            raise BaselineError(
                f"{place}: version {whole.get('version')!r}, this release reads versions {_WITHOUT_MEMORY} to {VERSION}; "
                "upgrade or rebuild it"
            )
        try:
            out = _from_body(whole["body"])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
            raise BaselineError(f"{place}: damaged: {error!r}; build it again") from error
        if out.id != whole.get("id"):
            raise BaselineError(
                f"{place}: content has id {out.id}, the file says {whole.get('id')!r}: it was edited or damaged; "
                "a baseline is immutable, build a new one"
            )
        return out

    def save(self, path: Path) -> None:
        """Write the file; the old one stays whole until the new one is."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(self.to_json(), encoding="utf-8")
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """The baseline in a file.

        Raises
        ------
        BaselineError : the file cannot be read, or as for `from_json`.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise BaselineError(f"{path}: cannot be read: {error.strerror}; make one with `driftline baseline build`") from error
        return cls.from_json(text, place=str(path))


def scope_names(segments: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str] | None]:
    """Scope 0 is all rows; then for each key its admitted values and ``other``."""
    names: list[tuple[str, str] | None] = [None]
    for key, values in segments.items():
        names.extend((key, value) for value in (*values, OTHER_SEGMENT))
    return names


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _column_json(column: ColumnReference) -> dict[str, Any]:
    product: dict[str, Any] = {}
    if column.block is not None:
        product = {"block": column.block.to_json(), "means": list(column.means)}
    elif column.factors:
        product = {"factors": [factor.to_json() for factor in column.factors], "means": list(column.means)}
    return product | {
        "name": column.name,
        "kind": column.kind,
        "edges": list(column.edges),
        "low": column.low,
        "high": column.high,
        "mean": column.mean,
        "sd": column.sd,
        "atom": column.atom,
        "tails": dict(column.tails),
        "categories": list(column.categories),
        "others": list(column.others),
        "complete": column.complete,
        "sensitive": column.sensitive,
    }


def _from_body(body: dict[str, Any]) -> Baseline:
    columns = tuple(_column_from_json(item) for item in body["columns"])
    segments = {_text(key): tuple(map(_text, values)) for key, values in body["segments"]}
    counts = np.array(body["counts"], np.int64).reshape(len(scope_names(segments)), len(columns), N_CODES)
    if (counts < 0).any():
        raise ValueError("a count is negative")
    rows, thinning = body["rows"], body["thinning"]
    if not isinstance(rows, int) or not isinstance(thinning, int) or rows < 0 or thinning < 1:
        raise ValueError("rows and thinning must be whole numbers")
    memory = {_place(item, counts): Autoregression.from_json(item) for item in body.get("memory", ())}
    for (_, c), own in memory.items():
        categories = len(ordered_codes("categorical", columns[c].n_bins)) if columns[c].kind == "categorical" else 0
        if own.runs and (len(own.runs) != categories or draw_shares(own.runs) is None):
            raise ValueError(f"runs of column {columns[c].name!r} that no reference gives")
    dependence = {_place(item, counts): Dependence.from_json(item) for item in body.get("dependence", ())}
    season = {}
    for item in body.get("season", ()):
        s, c = _place(item, counts)
        season[s, c] = Season.from_json(item, counts[s, c, ordered_codes(columns[c].kind, columns[c].n_bins)].tolist())
    return Baseline(columns, segments, counts, rows=rows, thinning=thinning, memory=memory, dependence=dependence, season=season)


def _place(item: Mapping[str, Any], counts: Int64) -> tuple[int, int]:
    """Scope and column."""
    s, c = int(item["scope"]), int(item["column"])
    if not (0 <= s < counts.shape[0] and 0 <= c < counts.shape[1]):
        raise ValueError("a memory of no scope and column")
    return s, c


def _column_from_json(item: dict[str, Any]) -> ColumnReference:
    kind = item["kind"]
    if kind not in ("numeric", "categorical", "binary"):
        raise ValueError(f"column kind {kind!r}")
    edges: Float64 = np.array(item["edges"], np.float64)
    if len(edges) >= MAX_BINS or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise ValueError(f"edges of column {item['name']!r} are not increasing numbers")
    factors = tuple(Factor.from_json(factor) for factor in item.get("factors", ()))
    block = Block.from_json(item["block"]) if "block" in item else None
    made = bool(factors) or block is not None
    means: Float64 = np.array(item["means"] if made else [], np.float64)
    bins = (len(edges) + 1 if item["low"] is not None else 0) if made else 0
    shapes = len(factors) in (0, 2) and means.shape == (bins,) and np.isfinite(means).all()
    if not shapes or (factors and block is not None) or (made and kind != "numeric"):
        raise ValueError(f"column {item['name']!r} is no product of two and no block")
    if block is not None and not 0.0 <= (_number(item["sd"]) or 0.0) < 1.0:
        raise ValueError(f"column {item['name']!r} has a standard deviation that no worths have")
    if len(item["categories"]) > MAX_BINS:
        raise ValueError(f"column {item['name']!r} has more than {MAX_BINS} categories")
    return ColumnReference(
        name=_text(item["name"]),
        kind=cast(Kind, kind),
        edges=tuple(edges.tolist()),
        low=_number(item["low"]),
        high=_number(item["high"]),
        mean=_number(item["mean"]),
        sd=_number(item["sd"]),
        atom=float(item["atom"]),
        tails={_text(quantile): float(edge) for quantile, edge in item["tails"].items()},
        categories=tuple(map(_text, item["categories"])),
        others=tuple(map(_text, item["others"])),
        complete=bool(item["complete"]),
        sensitive=bool(item["sensitive"]),
        factors=cast(tuple[Factor, Factor], factors),
        means=tuple(means.tolist()),
        block=block,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {value!r}")
    return float(value)
