"""YAML as it is read: versions, aliases, limits, and any text at all."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.schemas import document
from driftline.schemas.config import Config, Model
from driftline.schemas.document import BYTES_MAX
from driftline.schemas.loading import ConfigError, Problem, parse_config
from tests.schemas.configs import only_problem, problems_of, with_model


def test_numbers_texts_and_booleans_are_read_by_yaml_1_2() -> None:
    text = with_model("owner: NO\nwindow: 1e4\nmonitors: [{id: a, series: score, run_length: 1e9}]", "start: 2026-01-31T00:00:00Z\n")
    model = parse_config(text, name="x").models["fraud"]
    assert (model.owner, model.window) == ("NO", 10_000)
    assert model.monitors is not None
    assert model.monitors[0].run_length == 1e9


def test_merge_keys_and_aliases_share_parts() -> None:
    text = (
        "predictions: a\nmodels:\n  one: &shared\n    window: 100\n    segments: [c]\n"
        "  two:\n    <<: *shared\n    window: 200\n  three: *shared\n"
    )
    models = parse_config(text, name="x").models
    assert [(m.window, list(m.segments)) for m in models.values()] == [(100, ["c"]), (200, ["c"]), (100, ["c"])]


def test_a_mistake_in_a_shared_part_points_at_the_shared_line() -> None:
    text = "predictions: a\nmodels:\n  one: &shared\n    windoww: 100\n  two: *shared\n"
    assert [(p.line, p.path) for p in problems_of(text)] == [(4, "models.one.windoww"), (4, "models.two.windoww")]


def test_nested_aliases_do_not_expand_without_bound() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "aliases" in only_problem("\n".join(lines)).got


def test_an_alias_of_itself_is_refused() -> None:
    assert "an alias that holds itself" in only_problem("predictions: &a [*a]\n").got


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 50_000, "- " * 50_000, "a: " + "[" * 41])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "deeper nesting" in only_problem(text).got


def test_a_file_of_too_many_values_is_refused_before_all_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "VALUES_MAX", 1_000)
    assert only_problem("a: [" + "1, " * 2_000 + "1]").expected == "at most 1,000 values"


def test_a_file_above_the_size_limit_is_refused_unread() -> None:
    assert "larger" in only_problem("# " + "x" * BYTES_MAX).got


def refusal(text: str) -> list[Problem] | None:
    """The problems of a text, or None when it is a configuration; any other exception fails the test."""
    try:
        assert isinstance(parse_config(text, name="fuzz"), Config)
    except ConfigError as error:
        return list(error.problems)
    return None


WORDS = ["predictions", "models", "labels", "fraud", "kafka", "features", "monitors", "detectors", "psi", "adwin", "id", "series", "score"]
MARKS = ["*", "&a", "*a", "<<", "null", "true", "no", "1e9", "-1", "5m", ".nan", "''", '"', ":", ": ", "- ", "\n", "\n  ", "\n    "]
MARKS += ["{", "}", "[", "]", ", ", "#", "|", "!!int ", "? ", "\t"]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(WORDS + MARKS), max_size=40).map("".join) | st.text(max_size=200))
def test_any_text_parses_or_raises_config_error(text: str) -> None:
    problems = refusal(text)
    assert problems is None or problems
    assert all(problem.line >= 1 and problem.expected and problem.got for problem in problems or ())


TEXTS = st.sampled_from(["", "numeric", "5m", "psi", "score", "auto", "a.b", "const:x"])
LEAVES = st.none() | st.booleans() | st.integers(-10, 10**6) | st.floats() | TEXTS
KEYS = st.sampled_from(["id", "topic", "env", "name", "x", "series", "detectors", "kind", "max"])
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=4), max_leaves=8)
PLACES = ["environment", "kafka", "kafka.properties", "redis", "redis.url", "topics.prefix", "predictions", "labels", "models", "models.m"]
PLACES += [f"models.m.{name}" for name in Model.model_fields] + ["models.m.labels.ages", "models.m.baseline.file"]


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(PLACES), VALUES, max_size=4))
def test_any_value_anywhere_gives_a_config_or_located_problems(changes: dict[str, object]) -> None:
    tree: dict[str, object] = {"predictions": "a", "models": {"m": {}}}
    for place, value in sorted(changes.items()):
        parent: object = tree
        *parents, last = place.split(".")
        for part in parents:
            parent = parent.setdefault(part, {}) if isinstance(parent, dict) else None
        if isinstance(parent, dict):
            parent[last] = value
    problems = refusal(yaml.safe_dump(tree))
    assert problems is None or problems
    assert all(problem.line >= 1 for problem in problems or ())
