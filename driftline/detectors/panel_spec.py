"""What a panel's state was made with, written beside it: enough to open the state again without its configuration.

So a state of other settings is read under its own, and what did not change is carried over (`panel_carry.py`).
Severities, run lengths and how large a budget is do not stand here: thresholds are made anew at every start. What an
e-detector tolerates does, for that is what its evidence speaks of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from driftline.detectors.openers import E_DETECTOR
from driftline.detectors.spec import Column, ColumnDetector, PanelBudget, PanelSpec, Series, StateError

SPEC_BLOB: Final = "spec"
VERSION: Final = 3
_HASH_ONLY: Final = 2
"""The version before: a hash of the specification, without the specification."""
_DAMAGE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def spec_blob(spec: PanelSpec, columns: tuple[Column, ...] | None) -> bytes:
    """The specification, and its hash.

    Parameters
    ----------
    columns : those in use; None while columns that the specification does not name are still to be discovered.
    """
    described = describe(spec, columns)
    return json.dumps({"version": VERSION, "spec": _hash(described), "is": described}).encode()


def read_spec(blob: bytes | None, now: PanelSpec, columns: tuple[Column, ...] | None) -> PanelSpec:
    """The specification that a state was made with.

    Parameters
    ----------
    now, columns : the present one, which a state of the version before must have been made with.

    Raises
    ------
    StateError : missing, damaged, of another version, or of other settings and too old to tell which.
    """
    try:
        found: dict[str, Any] = json.loads(blob or b"")
        version = found["version"]
        if version == VERSION:
            if found["spec"] != _hash(found["is"]):
                raise ValueError("its hash does not match")
            return _parse(found["is"])
        if version == _HASH_ONLY:
            same = found["spec"] == _hash(_older(now, columns)) or (columns is None and found["learns"] == _hash(_older_learning(now)))
    except _DAMAGE as error:
        raise StateError(f"checkpoint: blob {SPEC_BLOB}: damaged: {error}") from error
    if version != _HASH_ONLY:
        raise StateError(f"checkpoint: version {version!r}, this release reads versions {_HASH_ONLY} and {VERSION}")
    if not same:
        raise StateError(
            "checkpoint: an older release made it, with other columns, series, detectors, segments or windows than the configuration "
            "names now; start this release once with the old settings, then edit them"
        )
    return now


def describes(blob: bytes | None) -> bool:
    """Whether a blob says by itself what its state was made with."""
    try:
        return bool(json.loads(blob or b"")["version"] == VERSION)
    except _DAMAGE:
        return False


def describe(spec: PanelSpec, columns: tuple[Column, ...] | None) -> dict[str, Any]:
    """All that shapes the state, as JSON."""
    listed = columns if columns is not None else spec.columns
    described: dict[str, Any] = {
        "columns": None if listed is None else [_column(column) for column in listed],
        "segments": list(spec.segments.items()),
        "window": spec.window,
        "learn_rows": spec.learn_rows,
        "sensitive": sorted(spec.sensitive),
        "whole": spec.whole,
    }
    if spec.pairs:
        described["pairs"] = [_column(pair) for pair in spec.pairs]
    if spec.budget is not None:
        described["budget"] = {"by_rows": spec.budget.by_rows}
    return json.loads(json.dumps(described, default=str))  # type: ignore[no-any-return]  # as it is read back


def _column(column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": column.name,
        "kind": column.kind,
        "tails": column.tails,
        "series": [_series(series) for series in column.series],
    }
    return described | ({"factors": column.factors} if column.factors else {}) | ({"joint": True} if column.joint else {})


def _series(series: Series) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": series.name,
        "flag": series.flag,
        "window": series.window,
        "direction": series.direction,
        "detectors": [(detector.name, detector.input, dict(detector.params)) for detector in series.detectors],
        "owner": series.owner,
    }
    if any(detector.name == E_DETECTOR for detector in series.detectors):
        described["tolerates"] = (series.warning, series.rate_floor)
    return described


def _parse(described: Mapping[str, Any]) -> PanelSpec:
    columns, budget = described["columns"], described.get("budget")
    return PanelSpec(
        columns=None if columns is None else tuple(_parse_column(item) for item in columns),
        pairs=tuple(_parse_column(item) for item in described.get("pairs", ())),
        segments={key: int(most) for key, most in described["segments"]},
        window=int(described["window"]),
        learn_rows=int(described["learn_rows"]),
        sensitive=frozenset(described["sensitive"]),
        whole=bool(described["whole"]),
        budget=None if budget is None else PanelBudget(0.0, bool(budget["by_rows"]), 0.0),
    )


def _parse_column(item: Mapping[str, Any]) -> Column:
    series, (*factors,) = tuple(_parse_series(one) for one in item["series"]), item.get("factors", ())
    return Column(item["name"], item["kind"], series, tuple(item["tails"]), tuple(factors), bool(item.get("joint", False)))


def _parse_series(item: Mapping[str, Any]) -> Series:
    series = Series(
        name=item["name"],
        flag=item["flag"],
        detectors=tuple(ColumnDetector(name, input_, params) for name, input_, params in item["detectors"]),
        window=int(item["window"]),
        direction=item["direction"],
        owner=item["owner"],
    )
    if "tolerates" in item:
        warning, rate_floor = item["tolerates"]
        series = replace(series, warning=float(warning), rate_floor=float(rate_floor))
    return series


def _older(spec: PanelSpec, columns: tuple[Column, ...] | None) -> dict[str, Any]:
    described = describe(spec, columns)
    del described["whole"]
    for column in described["columns"] or ():
        for series in column["series"]:
            del series["owner"]
    return described


def _older_learning(spec: PanelSpec) -> dict[str, Any]:
    described = describe(spec, None)
    columns = described["columns"]
    named = None if columns is None else [[column["name"], column["kind"], column["tails"]] for column in columns]
    return {"columns": named, "segments": described["segments"], "sensitive": described["sensitive"]}


def _hash(described: Any) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()
