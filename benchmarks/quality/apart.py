"""frouros and alibi-detect, which are no part of the project's environment: one of their own, and a process in it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from benchmarks.environments import environment
from benchmarks.quality.contenders import Contender, geometric, standardised
from benchmarks.quality.streams import Law, Values

ENVIRONMENT: Final = Path(".services/bench-peers")
INSTALLS: Final = (
    # What alibi-detect imports at its start, at the versions it asks for; pandas, OpenCV and scikit-image it imports nowhere there.
    ("frouros==0.9.0", "numpy<2", "numba<0.60", "scikit-learn<2", "pydantic<3", "dill<0.4", "toml<1", "transformers<5", "catalogue<3",
     "Pillow<11", "requests<3", "tqdm<5", "typing-extensions>=3.7.4.3"),
    ("--no-deps", "alibi-detect==0.13.0"),
)  # fmt: skip
LEFT_OUT: Final = "frouros and alibi-detect were left out; `--with-peers` runs them too, in an environment made for them."
_BOTH: Final = (
    "frouros' and alibi-detect's run in a process of their own on the same values. frouros' CUSUM, GMA and ECDDWT look for a rise alone, "
    "which the changes of a mean here are. alibi-detect's CVM compares with the last 1,000 values of the reference, and with no more, as "
    "its cost grows with them."
)
TUNED: Final = (
    f"{_BOTH} What is tuned of it is a multiple of the thresholds that it simulates for a run length (ert) of 500, as for 100,000 it asks "
    "for a million simulated streams, hours of them, and on one law, since its false alarms are the same for all continuous ones. "
    "frouros' ECDDWT knows no rarer false alarms than one in 1,000, and is among the defaults below."
)
DEFAULTS: Final = f"{_BOTH} It has no defaults: these are its documentation's example, a run length (ert) of 150 and windows of 20 and 40."
"""What the tables say of them where they are in it."""
_CVM_REFERENCE: Final = 1_000
"""Its cost per value grows with the reference: .6 ms with these."""


class Apart:
    """The process in which they run, for as long as the context; asked one stream after the other."""

    def __init__(self, python: str) -> None:
        # The environment finds the checkout's modules, of which `peers_apart` imports none; one core, as everything here.
        known = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        known["TRANSFORMERS_VERBOSITY"] = "error"  # alibi-detect imports it, and it warns of frameworks that are not there
        command = [python, "-m", "benchmarks.quality.peers_apart"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=known)

    @classmethod
    def made(cls) -> Self:
        """With the environment, which is made by the first call."""
        return cls(environment(ENVIRONMENT, *INSTALLS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()  # the end of its input ends it

    def alarms(
        self, detector: str, setting: float, reference: Values, values: Values, *, enough: int | None = None, **options: Any
    ) -> list[int]:
        """Alarm positions of a detector named in `peers_apart`.

        Parameters
        ----------
        enough : the first alarm at this position or later is the last one

        Raises
        ------
        RuntimeError : the process has ended; what went wrong it has written to standard error
        """
        request = {
            "detector": detector, "setting": setting, "options": options,
            "reference": len(reference), "values": len(values), "enough": enough,
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.write(np.concatenate([reference, values]).astype("<f8").tobytes())
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            self._process.wait()  # its error is written by then
            raise RuntimeError(f"the process of frouros and alibi-detect ended at {detector} {options} (its error is above)")
        return [int(position) for position in json.loads(line)]


def peers(apart: Apart) -> tuple[Contender, ...]:
    """Those of their detectors that have no equal in river and cost less than a millisecond a value.

    Not BOCD of frouros (its memory and its time per value grow with the stream, a table of all run lengths at all values), and not
    alibi-detect's `FETDriftOnline` for zeros and ones: it simulates thresholds for each reference anew and rounds its statistic,
    one minus a p-value, to 32 bits, which ends long before one false alarm in 100,000 values.
    """

    def frouros(kind: str, parameter: str, *, scaled: bool = False, **fixed: Any) -> Callable[..., list[int]]:
        def run(law: Law, setting: float, reference: Values, values: Values, enough: int | None = None) -> list[int]:
            seen = values if law.binary and not scaled else standardised(law, values)
            return apart.alarms("frouros", setting, reference[:0], seen, enough=enough, kind=kind, parameter=parameter, **fixed)

        return run

    def cvm(**options: Any) -> Callable[..., list[int]]:
        def run(_: Law, setting: float, reference: Values, values: Values, enough: int | None = None) -> list[int]:
            return apart.alarms("cvm", setting, reference[-_CVM_REFERENCE:], values, enough=enough, **options)

        return run

    quick: dict[str, Any] = {"apart": True, "slow": True, "null_times": 3.0, "delay_times": 5.0}
    of_numbers: dict[str, Any] = {
        "apart": True, "slow": True, "numbers": True, "reference": _CVM_REFERENCE, "null_rows": 10_000, "delay_times": 0.5,
    }  # fmt: skip
    return (
        Contender("frouros CUSUM", frouros("CUSUM", "lambda_"), 50.0, geometric(1000.0, 5.0, 60), **quick),
        Contender(
            "frouros CUSUM, delta 1/8", frouros("CUSUM", "lambda_", scaled=True, delta=0.125), 50.0, geometric(500.0, 5.0, 60),
            stock=False, **quick,
        ),
        Contender("frouros GMA", frouros("GeometricMovingAverage", "lambda_"), 1.0, geometric(2.0, 0.02, 60), **quick),
        Contender("frouros STEPD", frouros("STEPD", "alpha_d"), 0.003, geometric(1e-12, 0.01, 24), binary=True, apart=True, slow=True),
        Contender("frouros ECDDWT", frouros("ECDDWT", "lambda_"), 0.2, binary=True, **quick),
        Contender(
            "alibi-detect CVM, windows 50 and 200", cvm(windows=[50, 200], ert=500, bootstraps=5_000), 1.0, geometric(6.0, 1.5, 24),
            stock=False, distribution_free=True, **of_numbers,
        ),
        Contender("alibi-detect CVM, ert 150", cvm(windows=[20, 40], ert=150, bootstraps=10_000), 1.0, **of_numbers),
    )  # fmt: skip
