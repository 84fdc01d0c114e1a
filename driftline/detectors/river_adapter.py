"""Any drift detector of river, by name, with state that can be stored.

River's detectors have no state format but pickle, which is neither stable between versions nor safe to load.
All of them are functions of the values since their last reset, so those values are the state here: restoring
replays them. To keep them bounded, a detector that holds more than twice `history` values is rebuilt from the
last `history`; that happens at a fixed count of values, so a restored detector and one that never stopped
stay equal.
"""

from __future__ import annotations

import difflib
import inspect
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors.kernels.bank import Int64Array

HISTORY = 10_000
"""Values that a rebuilt detector has seen; most of river's windows are far shorter."""

SEED = 7
"""Of detectors that draw random numbers (KSWIN), unless one is given: a replay must draw the same."""

_FRAME = struct.Struct("<4sHBBI")
_MAGIC = b"DRIV"
_VERSION = 1


def river_detectors() -> dict[str, type[Any]]:
    """Class by name: every concrete detector of `river.drift` and `river.drift.binary`.

    Raises
    ------
    ImportError : river is not installed
    """
    try:
        from river import base, drift
        from river.drift import binary
    except ImportError as error:
        raise ImportError('expected the package "river" for river.* detectors; install it with: pip install river') from error
    kinds = (base.DriftDetector, base.BinaryDriftDetector)
    found: dict[str, type[Any]] = {}
    for module in (drift, binary):
        for name, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, kinds) and not inspect.isabstract(member) and not _wraps_another(member):
                found[name] = member
    return found


def _wraps_another(detector: type[Any]) -> bool:
    """Whether a class needs objects that a configuration cannot name, or reports nothing about the values."""
    parameters = inspect.signature(detector.__init__).parameters.values()
    return any(p.default is p.empty and p.name != "self" and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


class RiverDetector:
    """A detector of river by the name of its class.

    Parameters
    ----------
    name : for example "KSWIN" or "DDM"
    params : arguments of the class
    history : values it is rebuilt from when it holds more than twice as many

    Raises
    ------
    ValueError : no such class, or it does not take these parameters
    ImportError : river is not installed
    """

    def __init__(self, name: str, params: Mapping[str, Any] | None = None, *, history: int = HISTORY) -> None:
        if history < 1:
            raise ValueError(f"expected history >= 1, got {history}")
        known = river_detectors()
        if name not in known:
            close = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.5)
            matches = [k for k in known if k.lower() in close] or sorted(known)
            raise ValueError(f'expected a detector of river.drift, got "{name}"; did you mean: {", ".join(matches)}')
        self.name, self.history = name, history
        self._class = known[name]
        self._params = self._checked(dict(params or {}))
        # Theirs divides by p(1 - p) and raises on anything that is not an error indicator.
        self._binary = self._class.__module__.startswith("river.drift.binary")
        self._detector = self._new()
        self._values: list[float] = []
        self._fired = False

    def _checked(self, params: dict[str, Any]) -> dict[str, Any]:
        accepted = [p for p in inspect.signature(self._class.__init__).parameters if p != "self"]
        for given in params:
            if given not in accepted:
                raise ValueError(f'expected parameters of river\'s {self.name} ({", ".join(accepted)}), got "{given}"')
        if "seed" in accepted and params.get("seed") is None:
            params["seed"] = SEED
        return params

    def _new(self) -> Any:
        try:
            return self._class(**self._params)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected parameters that river's {self.name} takes, got {self._params}: {error}") from error

    def update(self, x: float) -> None:
        """Add one value; NaN and infinities are skipped, and by the detectors of 0/1 streams whatever is neither."""
        if not math.isfinite(x) or (self._binary and x not in (0.0, 1.0)):
            self._fired = False
            return
        if self._fired_inside():
            # the class resets itself on this value, and so forgets those before
            self._values.clear()
            self._detector = self._new()
        elif len(self._values) >= 2 * self.history:
            self._rebuild(self._values[-self.history :])
        self._values.append(float(x))
        self._detector.update(x)
        self._fired = self._fired_inside()

    def _fired_inside(self) -> bool:
        return bool(self._detector.drift_detected)

    def _rebuild(self, values: Iterable[float]) -> None:
        """A new detector that has seen these values; an alarm among them restarts it as it would have then."""
        self._detector = self._new()
        self._values = []
        for value in values:
            if self._fired_inside():
                self._values = []
                self._detector = self._new()
            self._values.append(value)
            self._detector.update(value)

    def update_many(self, values: ArrayLike) -> Int64Array:
        """Add values in stream order; positions in `values` of those that raised an alarm."""
        alarms = []
        for position, value in enumerate(np.asarray(values, np.float64).ravel().tolist()):
            self.update(value)
            if self._fired:
                alarms.append(position)
        return np.array(alarms, np.int64)

    @property
    def drift_detected(self) -> bool:
        """Whether the last value raised an alarm."""
        return self._fired

    @property
    def width(self) -> int:
        """Values held since the last reset."""
        return len(self._values)

    def export(self) -> bytes:
        """The state: the values since the last reset."""
        name = self.name.encode()
        frame = _FRAME.pack(_MAGIC, _VERSION, len(name), self._fired, len(self._values))
        return frame + name + np.array(self._values, "<f8").tobytes()

    def restore(self, blob: bytes) -> None:
        """Continue from `export` of a detector of the same class and parameters, as if it had never stopped.

        Raises
        ------
        ValueError : another class or version, or damaged bytes
        """
        if len(blob) < _FRAME.size:
            raise ValueError(f"expected the state of a river detector, got {len(blob)} bytes")
        magic, version, length, fired, count = _FRAME.unpack_from(blob)
        start = _FRAME.size + length
        name = blob[_FRAME.size : start].decode(errors="replace")
        if (magic, version, name) != (_MAGIC, _VERSION, self.name) or len(blob) != start + 8 * count:
            raise ValueError(f'expected the state of river\'s {self.name} version {_VERSION}, got "{name}" version {version}')
        self._detector = self._new()
        self._values = np.frombuffer(blob, "<f8", count, start).tolist()
        for value in self._values:
            self._detector.update(value)
        self._fired = bool(fired)
