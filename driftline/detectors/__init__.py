"""Drift detectors for notebooks, and the compiled banks behind them.

`AlarmBudget` watches several series within one budget of false alarms, `EDetector` one series with a promised run length;
`ConformalScores` and `FOCuS` are their front end and their dates by themselves. `ADWIN` and `PageHinkley` are river's, `CUSUM`
and `EWMA` the charts around a known mean, `PSI` compares a window with a reference.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from driftline.detectors.adwin import ADWIN
    from driftline.detectors.budget import AlarmBudget
    from driftline.detectors.charts import CUSUM, EWMA
    from driftline.detectors.conformal import ConformalScores
    from driftline.detectors.e_detector import EDetector
    from driftline.detectors.focus import FOCuS
    from driftline.detectors.page_hinkley import PageHinkley
    from driftline.detectors.psi import PSI
    from driftline.detectors.river_adapter import RiverDetector

__all__ = ["ADWIN", "CUSUM", "EWMA", "PSI", "AlarmBudget", "ConformalScores", "EDetector", "FOCuS", "PageHinkley", "RiverDetector"]

_MODULES = {
    "ADWIN": "adwin",
    "AlarmBudget": "budget",
    "CUSUM": "charts",
    "ConformalScores": "conformal",
    "EDetector": "e_detector",
    "EWMA": "charts",
    "FOCuS": "focus",
    "PSI": "psi",
    "PageHinkley": "page_hinkley",
    "RiverDetector": "river_adapter",
}


def __getattr__(name: str) -> Any:
    """Import a detector on first use: numba takes half a second that `import driftline.detectors` should not."""
    if name not in _MODULES:
        raise AttributeError(f'module "driftline.detectors" has no attribute "{name}"')
    return getattr(import_module(f"driftline.detectors.{_MODULES[name]}"), name)
