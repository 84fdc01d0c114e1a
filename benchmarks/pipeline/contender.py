"""What the contenders share: the work of a pair with river, and one way of measuring it."""

from __future__ import annotations

import json
import os
import resource

import orjson


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(seconds: float, rows: int) -> None:
    """The line that `benchmarks.pipeline` looks for."""
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_us": seconds / rows * 1e6, "rss_mib": rss_mib}), flush=True)


class RiverWork:
    """ADWIN and Page-Hinkley on every feature of a prediction; labels are parsed and counted.

    Ends the process when both topics gave `rows` records: CPU from the first record to the last of both, whatever order
    they come in.
    """

    def __init__(self, rows: int) -> None:
        # here, so that the bare consumer measures no river in its memory
        from river.drift import ADWIN, PageHinkley

        self._new = lambda: (ADWIN(), PageHinkley())
        self._rows = rows
        self._detectors: dict[str, tuple[ADWIN, PageHinkley]] = {}
        self._counts = {"predictions": 0, "labels": 0}
        self._begun: float | None = None

    def prediction(self, value: bytes) -> None:
        for name, x in orjson.loads(value)["features"].items():
            pair = self._detectors.get(name)
            if pair is None:
                pair = self._detectors[name] = self._new()
            pair[0].update(x)
            pair[1].update(x)
        self._step("predictions")

    def label(self, value: bytes) -> None:
        orjson.loads(value)
        self._step("labels")

    def _step(self, topic: str) -> None:
        self._counts[topic] += 1
        if self._begun is None:
            self._begun = cpu_seconds()
        if min(self._counts.values()) >= self._rows:
            report(cpu_seconds() - self._begun, self._rows)
            os._exit(0)
