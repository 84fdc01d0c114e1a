"""Several sources of predictions, each with a shape of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from driftline.schemas.loading import ConfigError, parse_config

OBJECT_AND_VECTOR = """\
predictions:
  - {topic: vectors, fields: {model: "const:ads", feature_names: [bid, position]}}
  - {topic: objects, fields: {model: "const:fraud"}}
models:
  ads: {features: {bid: numeric, position: numeric}}
  fraud: {features: {amount: numeric, country: categorical}}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse_config(text, name="x.yml")
    return [problem.path for problem in refused.value.problems]


def test_the_vector_of_one_source_says_nothing_of_the_features_of_another() -> None:
    config = parse_config(OBJECT_AND_VECTOR, name="x.yml")
    assert [list(model.features or ()) for model in config.models.values()] == [["bid", "position"], ["amount", "country"]]


def test_a_feature_that_the_vector_of_its_own_source_does_not_name_is_refused() -> None:
    assert problems(OBJECT_AND_VECTOR.replace("{bid: numeric", "{bit: numeric")) == ["models.ads.features.bit"]


def test_a_model_may_have_features_from_either_of_its_sources() -> None:
    two = "predictions:\n  - {topic: a, fields: {feature_names: [x]}}\n  - {topic: b, fields: {feature_names: [y]}}\n"
    assert parse_config(two + "models: {m: {features: {x: numeric, y: numeric}}}\n", name="x.yml").models
    assert problems(two + "models: {m: {features: {x: numeric, z: numeric}}}\n") == ["models.m.features.z"]
    one_object = two.replace(", fields: {feature_names: [y]}", "")
    assert parse_config(one_object + "models: {m: {features: {x: numeric, z: numeric}}}\n", name="x.yml").models


def test_rows_of_both_shapes_reach_one_model(tmp_path: Path) -> None:
    config, rows = tmp_path / "c.yml", tmp_path / "rows.jsonl"
    config.write_text(
        "predictions:\n  - {topic: a, fields: {feature_names: [x, y]}}\n  - {topic: b}\n"
        "models: {m: {features: {x: numeric, y: numeric, z: numeric}, baseline: {learn: 100}, window: 100}}\n"
    )
    shapes = (("a", [1.0, 2.0]), ("b", {"x": 1.0, "y": 2.0, "z": 3.0}))
    events = [
        {"topic": topic, "time_ms": i, "value": {"id": f"{topic}{i}", "time": i, "model": "m", "features": features, "score": 0.5}}
        for i in range(80)
        for topic, features in shapes
    ]
    rows.write_text("".join(json.dumps(event) + "\n" for event in events))
    done = CliRunner().invoke(cli, ["replay", str(rows), "-c", str(config), "--what", "snapshots", "-o", "json"])
    assert done.exit_code == 0, done.stderr
    assert "160 messages" in done.stderr
    assert "invalid" not in done.stderr
