"""The series that files are checked against are those that detect watches."""

from __future__ import annotations

import pytest

from driftline.schemas.loading import parse_config
from driftline.schemas.series import model_series
from driftline.streams.detect.plan import ModelPlan

BY_HEALTH = {"stream:freshness", "stream:volume", "stream:join_rate"}
"""Watched by detect outside the panels."""


@pytest.mark.parametrize("labels", ["", "labels: l\n"])
@pytest.mark.parametrize("task", ["binary", "regression", "multiclass, classes: [a, b]"])
def test_series_of_a_file_are_the_series_of_the_panels(task: str, labels: str) -> None:
    features = "features: {x: numeric, c: categorical, a: numeric}, correlations: [[x, a]], blocks: {both: [x, a]}"
    features += ", monitors: [{id: all, series: '*'}]"
    config = parse_config(f"predictions: p\n{labels}models: {{m: {{task: {task}, {features}}}}}\n", name="x")
    model = config.models["m"]
    plan = ModelPlan.of("m", model)
    panels = [plan.panel("features"), plan.panel("scores"), *([plan.panel("outcomes")] if labels else [])]
    watched = {series.name for panel in panels for column in panel.columns or () for series in column.series}
    assert {"correlation:a~x", "block:both"} <= watched
    assert {series.name for series in model_series(config, model)} - BY_HEALTH == watched
