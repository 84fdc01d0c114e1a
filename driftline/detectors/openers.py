"""Who may open an episode of a series: every detector, or under a budget what it covers and what is asked for."""

from __future__ import annotations

from typing import Final

from driftline.detectors.spec import PanelSpec, Series, SpecError

E_DETECTOR: Final = "e_detector"
RUN_DETECTOR: Final = 62
"""The place of the built-in run detector in an episode's bits."""


def covered(spec: PanelSpec, series: Series) -> int:
    """The place of a series' e-detector, -1 = it has none."""
    places = [place for place, detector in enumerate(series.detectors) if detector.name == E_DETECTOR]
    if places and (spec.budget is None or series.flag == "constant"):
        where = "it watches a run of equal values" if series.flag == "constant" else "the panel has none"
        raise SpecError(f'series "{series.name}": detector {E_DETECTOR} needs a budget; {where}')
    return places[0] if places else -1


def openers(spec: PanelSpec, series: Series) -> int:
    """Bits of the detectors that may open an episode: all without a budget; under one what it covers, what is asked for by
    `alert`, and a run of equal values, which is a fact and no test.
    """
    if spec.budget is None:
        return -1
    allowed = (detector.alert or detector.name == E_DETECTOR for detector in series.detectors)
    return sum(1 << place for place, may in enumerate(allowed) if may) | 1 << RUN_DETECTOR
