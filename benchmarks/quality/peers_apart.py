"""Detectors of frouros and alibi-detect over a pipe, in an environment that has them: `apart.py` starts it and asks.

A request is a line of JSON,

    {"detector": "frouros", "setting": 50.0, "options": {"kind": "CUSUM", "parameter": "lambda_"},
     "reference": 1, "values": 10000, "enough": null}

and after it reference and values, eight bytes each (float64, little-endian). The answer is a line with the positions of the alarms,
counted from the first value; `enough` ends it with the first alarm at that position or later. It ends with its input.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

CVM_SEED = 7
"""Of the simulations from which alibi-detect takes its thresholds."""


def above(setting: float, _: Values, values: Values) -> Iterator[int]:
    """Every value above the setting: what the protocol is tested with."""
    return (int(position) for position in np.flatnonzero(values > setting))


def frouros(setting: float, _: Values, values: Values, *, kind: str, parameter: str, **fixed: Any) -> Iterator[int]:
    """A streaming detector of frouros, reset by each of its alarms."""
    package = importlib.import_module("frouros.detectors.concept_drift")
    detector = getattr(package, kind)(config=getattr(package, f"{kind}Config")(**{parameter: setting}, **fixed))
    for position, value in enumerate(values.tolist()):
        detector.update(value=value)
        if detector.drift:
            yield position
            detector.reset()


class Statistic:
    """alibi-detect's online statistic over its threshold, value by value from a start on, as far as anyone has asked.

    Kept, since it is that of every multiple of the threshold up to the first alarm.
    """

    def __init__(self, detector: Any, values: Values) -> None:
        self._detector = detector
        self._values = values
        self._ratios = np.empty(len(values))
        self._known = 0

    def first_above(self, multiple: float) -> int | None:
        """The first position whose statistic is above so many thresholds."""
        found = np.flatnonzero(self._ratios[: self._known] > multiple)
        if len(found):
            return int(found[0])
        while self._known < len(self._values):
            ratio = self._ratio(self._values[self._known])
            self._ratios[self._known] = ratio
            self._known += 1
            if ratio > multiple:
                return self._known - 1
        return None

    def _ratio(self, value: float) -> float:
        # What `predict` compares, without its record of all statistics, which it copies at every value.
        statistics = self._detector.score(np.array([value]))
        if self._detector.t < self._detector.min_ws:
            return -np.inf
        return float(np.nanmax(statistics) / self._detector.get_threshold(self._detector.t - 1)[0])


def cvm(setting: float, reference: Values, values: Values, *, windows: list[int], ert: float, bootstraps: int) -> Iterator[int]:
    """alibi-detect's `CVMDriftOnline` with a multiple of its thresholds, reset by each of its alarms; 1 is the detector as it is."""
    start = 0
    while True:
        found = _statistic(tuple(windows), ert, bootstraps, reference.tobytes(), values[start:].tobytes()).first_above(setting)
        if found is None:
            return
        yield start + found
        start += found + 1


@functools.lru_cache(maxsize=256)
def _statistic(windows: tuple[int, ...], ert: float, bootstraps: int, reference: bytes, values: bytes) -> Statistic:
    known = np.frombuffer(reference)
    detector = copy.copy(_configured(len(known), windows, ert, bootstraps))
    # Thresholds are of the size of the reference alone; a new detector would simulate them again, a minute each.
    detector.x_ref = known[:, None]
    detector._configure_ref()
    detector.reset_state()
    return Statistic(detector, np.frombuffer(values))


@functools.cache
def _configured(size: int, windows: tuple[int, ...], ert: float, bootstraps: int) -> Any:
    np.random.seed(CVM_SEED)  # its simulations take the global generator
    kind = importlib.import_module("alibi_detect.cd").CVMDriftOnline
    any_reference = np.arange(float(size))
    return kind(any_reference, ert=ert, window_sizes=list(windows), n_bootstraps=bootstraps, verbose=False)


DETECTORS: dict[str, Callable[..., Iterator[int]]] = {"above": above, "frouros": frouros, "cvm": cvm}


def answer(request: dict[str, Any], numbers: Values) -> list[int]:
    """Positions of the alarms of one stream."""
    reference, values = numbers[: request["reference"]], numbers[request["reference"] :]
    found = []
    with np.errstate(all="ignore"):  # STEPD divides by zero where all values were equal
        for position in DETECTORS[request["detector"]](request["setting"], reference, values, **request["options"]):
            found.append(position)
            if request["enough"] is not None and position >= request["enough"]:
                break
    return found


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer until the input ends."""
    while line := source.readline():
        request = json.loads(line)
        numbers = np.frombuffer(source.read(8 * (request["reference"] + request["values"])), "<f8")
        sink.write(json.dumps(answer(request, numbers)).encode() + b"\n")
        sink.flush()


def main() -> None:
    """Serve on standard input and output, on which what the libraries print must not come."""
    with os.fdopen(os.dup(1), "wb") as sink:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
