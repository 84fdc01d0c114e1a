"""Which detectors there are and what parameters they take, checked before anything runs."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from driftline.schemas.config import DetectorSpec, Monitor
from driftline.schemas.document import Path, describe
from driftline.schemas.problems import Flaw, did_you_mean


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter: an integer or a number within [low, high], or above `low` when `open_low`; or one of some words."""

    integer: bool = False
    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    words: tuple[str, ...] = ()

    def allows(self, value: object) -> bool:
        if self.words:
            return value in self.words
        if isinstance(value, bool) or not isinstance(value, int if self.integer else int | float) or not math.isfinite(value):
            return False
        return self.low <= value <= self.high and not (self.open_low and value == self.low)

    @property
    def expected(self) -> str:
        if self.words:
            return "one of " + ", ".join(f'"{word}"' for word in self.words)
        upper = f" and <= {self.high:g}" if math.isfinite(self.high) else ""
        return f"{'an integer' if self.integer else 'a number'} {'>' if self.open_low else '>='} {self.low:g}{upper}"


DETECTOR_PARAMS: Final[Mapping[str, Mapping[str, Param]]] = {
    "psi": {},
    "adwin": {
        "delta": Param(open_low=True, high=1.0),
        "clock": Param(integer=True, low=1),
        "max_buckets": Param(integer=True, low=2, high=100),
        "min_window_length": Param(integer=True, low=1),
        "grace_period": Param(integer=True),
    },
    "page_hinkley": {
        "delta": Param(),
        "threshold": Param(open_low=True),
        "alpha": Param(open_low=True, high=1.0),
        "mode": Param(words=("both", "up", "down")),
        "min_instances": Param(integer=True),
    },
    "cusum": {
        "allowance": Param(open_low=True),
        "threshold": Param(open_low=True),
        "mode": Param(words=("both", "up", "down")),
    },
    "ewma": {
        "weight": Param(open_low=True, high=1.0),
        "threshold": Param(open_low=True),
        "mode": Param(words=("both", "up", "down")),
    },
    "rate": {},
}
"""The built-in detectors; the first and the last take all they need from the baseline and the monitor's `run_length`."""

STANDARDISED: Final = ("cusum", "ewma")
"""Detectors that need a mean that is known."""


def check_detectors(monitor: Monitor, here: Path) -> Iterator[Flaw]:
    """Flaws of a monitor's detectors; `here` is the monitor's place."""
    for index, spec in enumerate(monitor.detectors):
        place = (*here, "detectors", index)
        if spec in monitor.detectors[:index]:
            yield Flaw(place, "each detector once", f'"{spec.name}" again')
        if spec.name.startswith("river."):
            yield from _river(spec, place)
        elif spec.name in STANDARDISED and spec.input == "raw":
            hint = f"{spec.name} goes by the baseline's mean, which a segment's raw values do not have; page_hinkley learns its own"
            yield Flaw((*place, "input"), f'"score" for {spec.name}', describe(spec.input), hint)
        elif spec.name in DETECTOR_PARAMS:
            known = DETECTOR_PARAMS[spec.name]
            yield from _unknown_params(spec, known, place)
            for key, value in spec.params.items():
                if key in known and not known[key].allows(value):
                    yield Flaw((*place, "params", key), known[key].expected, describe(value))
        else:
            hint = did_you_mean(spec.name, DETECTOR_PARAMS) or f"known: {', '.join(DETECTOR_PARAMS)}, river.<class of river.drift>"
            yield Flaw((*place, "name"), "a detector", describe(spec.name), hint)


def _unknown_params(spec: DetectorSpec, known: Iterable[str], place: Path) -> Iterator[Flaw]:
    known = list(known)
    for key in spec.params:
        if key not in known:
            hint = did_you_mean(key, known) or f"parameters of {spec.name}: {', '.join(known) or 'none'}"
            yield Flaw((*place, "params", key), f"a parameter of {spec.name}", f'"{key}"', hint)


def _river(spec: DetectorSpec, place: Path) -> Iterator[Flaw]:
    """Check a class of river.drift; river takes a second to import, so only a file that names one pays for it."""
    try:
        detectors = _river_detectors()
    except ImportError:
        yield Flaw((*place, "name"), "river to be installed", describe(spec.name), "pip install river")
        return
    wanted = detectors.get(spec.name)
    if wanted is None:
        hint = did_you_mean(spec.name, detectors) or f"known: {', '.join(detectors)}"
        yield Flaw((*place, "name"), "a class of river.drift", describe(spec.name), hint)
        return
    yield from _unknown_params(spec, inspect.signature(wanted).parameters, place)


def _river_detectors() -> dict[str, type]:
    """``river.KSWIN`` to its class: the detectors of river.drift and river.drift.binary that watch one stream."""
    drift: Any = importlib.import_module("river.drift")
    base: Any = importlib.import_module("river.base")
    binary: Any = importlib.import_module("river.drift.binary")
    found = {f"river.{name}": getattr(module, name, None) for module in (drift, binary) for name in sorted(module.__all__)}
    kinds = (base.DriftDetector, base.BinaryDriftDetector)
    return {name: one for name, one in found.items() if isinstance(one, type) and issubclass(one, kinds)}
