"""From the configuration to the panels' columns."""

from __future__ import annotations

import pytest

from driftline.schemas.loading import parse_config
from driftline.streams.detect.plan import ModelPlan

CONFIG = """
predictions: p
models:
  m:
    monitors:
      - {id: all, series: ["*"]%s}
"""


@pytest.mark.parametrize(("severity", "value", "rate"), [
    ("", (0.1, 0.25, 0.01), (0.2, 1.0, 0.01)),
    (", severity: {warning: 0.3, critical: 0.6, rate_floor: 0.002}", (0.3, 0.6, 0.002), (0.3, 0.6, 0.002)),
    (", severity: {critical: 0.15}", (0.1, 0.15, 0.01), (0.15, 0.15, 0.01)),
])  # fmt: skip
def test_rates_have_levels_of_their_own_where_the_file_sets_none(
    severity: str, value: tuple[float, float, float], rate: tuple[float, float, float]
) -> None:
    plan = ModelPlan.of("m", parse_config(CONFIG % severity, name="test.yml").models["m"])
    for flag, expected in ((None, value), ("missing", rate)):
        series = plan.series("x", flag)
        assert series is not None
        assert (series.warning, series.critical, series.rate_floor) == expected
