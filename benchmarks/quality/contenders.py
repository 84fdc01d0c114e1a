"""The detectors that are compared: from a reference and values to the positions of alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.streams import Law, Values
from driftline.detectors import ADWIN, EDetector, PageHinkley
from driftline.detectors.river_adapter import river_detectors

Alarms = Callable[[Values, Values], Any]


@dataclass(frozen=True, slots=True)
class Contender:
    """A detector with one setting that trades false alarms for delay.

    Attributes
    ----------
    run : (law, setting, reference, values) to alarm positions; a detector starts anew after each
    default : its own setting
    settings : from fewest to most false alarms, searched for the rate that is wanted; empty = only the default
    binary : for zeros and ones alone
    numbers : for continuous values alone
    stock : with nothing else set it is what its package gives, and stands among the defaults
    slow : called from Python value by value, so fewer values are drawn
    null_times, delay_times : so many times as many values without a change, and streams with one, as of others that are slow
    null_rows : values of the longest stream without a change, each after a reference of its own
    reference : values before such a stream
    distribution_free : false alarms are the same for all continuous laws, so one is enough to tune it
    apart : runs in another process, and `run` takes `enough`: the first alarm at this position or later is the last one
    """

    name: str
    run: Callable[..., Any]
    default: float
    settings: tuple[float, ...] = ()
    binary: bool = False
    numbers: bool = False
    stock: bool = True
    slow: bool = False
    null_times: float = 1.0
    delay_times: float = 1.0
    null_rows: int | None = None
    reference: int = 1
    distribution_free: bool = False
    apart: bool = False

    def suits(self, law: Law) -> bool:
        """Whether it is made for values of this law."""
        return not (self.numbers if law.binary else self.binary)


def ours(run_length: float, reference: Values, values: Values, seed: int, **options: Any) -> Any:
    """Alarm positions of the detector of this package, through its public class."""
    return EDetector(reference, run_length, seed=seed, **options).update_many(values)


def standardised(law: Law, values: Values) -> Values:
    """Values of mean 0 and standard deviation 1, by the true ones of their law."""
    return (values - law.mean) / law.sd


def _adwin(law: Law, delta: float, _: Values, values: Values) -> Any:
    # Equal to river's to the last bit (tests/detectors/test_adwin.py), five times faster; scale does not matter to it but
    # for its second term, so the peers see what they were made for: values of sd 1, zeros and ones as they are.
    return ADWIN(delta=delta).update_many(values if law.binary else standardised(law, values))


def _page_hinkley(law: Law, threshold: float, _: Values, values: Values) -> Any:
    return PageHinkley(threshold=threshold).update_many(values if law.binary else standardised(law, values))


def _cusum_like(law: Law, threshold: float, _: Values, values: Values) -> Any:
    return PageHinkley(threshold=threshold, delta=0.125, alpha=1.0).update_many(standardised(law, values))


def _river(name: str, parameter: str, **fixed: Any) -> Callable[[Law, float, Values, Values], list[int]]:
    def run(law: Law, setting: float, _: Values, values: Values) -> list[int]:
        detector = river_detectors()[name](**{parameter: setting}, **fixed)
        found = []
        for position, value in enumerate((values if law.binary else standardised(law, values)).tolist()):
            detector.update(bool(value) if law.binary else value)
            if detector.drift_detected:
                found.append(position)
        return found

    return run


def geometric(low: float, high: float, count: int) -> tuple[float, ...]:
    """Settings from `low` to `high`, each as many times the one before it."""
    return tuple(float(f"{x:.4g}") for x in np.geomspace(low, high, count))


PEERS: tuple[Contender, ...] = (
    Contender("river ADWIN", _adwin, 0.002, geometric(1e-12, 1.0, 120)),
    Contender("river Page-Hinkley", _page_hinkley, 50.0, geometric(5000.0, 5.0, 120)),
    Contender("Page-Hinkley, alpha 1, delta 1/8", _cusum_like, 50.0, geometric(1000.0, 5.0, 120), stock=False),
    Contender("river HDDM_A", _river("HDDMA", "drift_confidence"), 0.001, geometric(1e-6, 0.2, 24), binary=True, slow=True),
    Contender("river HDDM_W", _river("HDDMW", "drift_confidence"), 0.001, geometric(1e-8, 0.2, 24), binary=True, slow=True),
    Contender("river DDM", _river("DDM", "drift_threshold"), 3.0, geometric(6.0, 1.5, 20), binary=True, slow=True),
)

KSWIN = Contender("river KSWIN", _river("KSWIN", "alpha", seed=7), 0.005, slow=True)
