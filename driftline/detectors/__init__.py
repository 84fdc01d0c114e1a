"""Drift detectors: `ADWIN`, `PageHinkley` and `PSI` for notebooks, and the compiled banks behind them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from driftline.detectors.adwin import ADWIN
    from driftline.detectors.page_hinkley import PageHinkley
    from driftline.detectors.psi import PSI
    from driftline.detectors.river_adapter import RiverDetector

__all__ = ["ADWIN", "PSI", "PageHinkley", "RiverDetector"]

_MODULES = {"ADWIN": "adwin", "PSI": "psi", "PageHinkley": "page_hinkley", "RiverDetector": "river_adapter"}


def __getattr__(name: str) -> Any:
    """Import a detector on first use: numba takes half a second that `import driftline.detectors` should not."""
    if name not in _MODULES:
        raise AttributeError(f'module "driftline.detectors" has no attribute "{name}"')
    return getattr(import_module(f"driftline.detectors.{_MODULES[name]}"), name)
