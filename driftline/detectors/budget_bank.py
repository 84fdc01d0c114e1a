"""The monitors of a panel's budget: what each bets on, what it tolerates, and which part of the budget comes in for it (`budgeted.py`)."""

from __future__ import annotations

import math

import numpy as np

from driftline.detectors.kernels.bets import BOUNDED, SCORES, WORTHS
from driftline.detectors.kernels.dependence import stride_of
from driftline.detectors.kernels.e_detector import EDetectorBank
from driftline.detectors.kernels.shares import Bins
from driftline.detectors.layout import Layout
from driftline.detectors.panel_scores import PanelScores
from driftline.detectors.shares import category_bins
from driftline.detectors.spec import PanelBudget
from driftline.detectors.tables import Tables
from driftline.detectors.tolerances import mean_tolerance, rate_tolerance


def bank_of(budget: PanelBudget, layout: Layout, t: Tables, members: list[int], scores: PanelScores, shares: list[float]) -> EDetectorBank:
    """The e-detectors of scopes and series, those of a scope beside each other.

    `members` are the budgeted series, by their place among all; `shares` of the budget those of scopes. `scores`, what the monitors
    are fed, is told which hour effects are none.
    """
    watched = scores.monitors.active
    n_scopes, n = watched.shape
    share = np.array(shares)[:, None] * watched / np.maximum(watched.sum(axis=1, keepdims=True), 1)
    form, base, tolerance = np.full((n_scopes, n), SCORES), np.full((n_scopes, n), 0.5), np.zeros((n_scopes, n))
    spread, hours, variance = np.zeros((n_scopes, n)), np.zeros((n_scopes, n)), np.ones((n_scopes, n))
    bins: dict[int, Bins] = {}
    for k, q in enumerate(members):
        series = layout.series[q]
        for scope in range(n_scopes):
            size = int(t.size[scope, q])
            reference = layout.references[layout.column_of[q]]
            if series.flag is None:
                # Of values that depend on each other those that do not are a reference.
                left = layout.dependence.get((scope, int(t.series_column[q])))
                size = size if left is None else size // stride_of(left.level)
                size = min(size, scores.draws[scope, k])
            if reference.block is not None:
                sd = reference.sd or 0.5
                least, more = reference.block.cut(sd)
                form[scope, k], base[scope, k], spread[scope, k] = WORTHS, sd, least
                tolerance[scope, k] = more + reference.block.tolerance(series.warning, sd, size, budget.errors)
                hours[scope, k] = tolerance[scope, k] / sd
            elif series.flag is None:
                has_mean, gain = bool(t.has_mean[q]), float(scores.gain[scope, k])
                spread[scope, k] = mean_tolerance(series.warning, size, has_mean=has_mean, errors=budget.errors)
                tolerance[scope, k] = mean_tolerance(series.warning, size, has_mean=has_mean, errors=budget.errors, gain=gain)
                hours[scope, k] = tolerance[scope, k]
                if reference.kind == "categorical" and watched[scope, k]:
                    bins |= _bins(budget, layout, scores, scope, k, q, size)
                season = layout.season.get((scope, int(t.series_column[q])))
                if season is not None:
                    spread[scope, k] = max(spread[scope, k], season.spread_error)
                    hours[scope, k] = math.hypot(hours[scope, k], season.level_error)
            else:
                form[scope, k] = BOUNDED
                own, up, down = rate_tolerance(series, float(t.rate[scope, q]), size, budget.errors)
                base[scope, k], tolerance[scope, k], spread[scope, k] = own, up, down
                hours[scope, k] = own * {"up": up, "down": down}.get(series.direction, min(up, down))
                variance[scope, k] = base[scope, k] * (1.0 - base[scope, k])
    scores.allow_hours(hours, variance)
    return EDetectorBank(
        n_scopes * n,
        rate=(budget.per_unit * share).ravel(),
        form=form.ravel(),
        base=base.ravel(),
        tolerance=tolerance.ravel(),
        spread_tolerance=spread.ravel(),
        direction=np.tile(t.direction[members], (n_scopes, 1)).ravel(),
        cap=budget.cap,
        first=1.0 if budget.by_rows else 0.0,
        # No episode ends before its level was back for a window.
        pause=np.tile([layout.series[q].window for q in members], n_scopes),
        bins=bins,
    )


def _bins(budget: PanelBudget, layout: Layout, scores: PanelScores, scope: int, k: int, q: int, size: int) -> dict[int, Bins]:
    """The bins of a categorical series, by its monitor; none where it has but one."""
    c, warning = layout.column_of[q], layout.series[q].warning
    memory = layout.memory.get((scope, c)) if scores.monitors.whitened[scope, k] >= 0 else None
    own = category_bins(layout, scope, c, warning, size, budget.errors, memory, all_of_it=(scope, c) not in layout.dependence)
    return {} if own is None else {scope * scores.n + k: own}
