"""Configuration files: what is wrong is said all at once, with its line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.schemas.loading import ConfigError, load_config, parse_config
from tests.schemas.configs import SHORTEST, only_problem, problems_of, with_model

MISTAKES = """\
version: 1
environment: production west
predictions:
  - topic: fraud.predictions
    feilds: {id: txn}
kafka:
  commit_interval: 5 parsecs
  properties: {sasl.password: hunter2}
models:
  fraud:
    decision: "0.5"
    features: {amount: numeric, country: category}
    segments: [contry]
    monitors:
      - id: loud
        series: ["feature:*", "scoer"]
        window: 5
        detectors: [psi, adwinn, {adwin: {detla: 0.002}}]
      - id: loud
        series: "quality:*"
        severity: {warning: 0.5, critical: 0.1}
"""

EXPECTED = [
    (2, "environment", "letters, digits", None),
    (5, "predictions[0].feilds", "a known key", 'did you mean "fields"?'),
    (7, "kafka.commit_interval", "a duration such as", None),
    (8, 'kafka.properties["sasl.password"]', "a secret by reference", "write {env: NAME} or {file: PATH}"),
    (11, "models.fraud.decision", "a number", "write the number without quotes"),
    (12, "models.fraud.features.country", 'one of "numeric", "categorical", "vector"', 'did you mean "categorical"?'),
    (13, "models.fraud.segments[0]", "a feature's name", 'did you mean "country"?'),
    (16, "models.fraud.monitors[0].series[1]", "a glob that matches a series", 'did you mean "score"?'),
    (17, "models.fraud.monitors[0].window", "an integer >= 30", None),
    (18, "models.fraud.monitors[0].detectors[1]", "a detector", 'did you mean "adwin"?'),
    (18, "models.fraud.monitors[0].detectors[2].adwin.detla", "a parameter of adwin", 'did you mean "delta"?'),
    (19, "models.fraud.monitors[1].id", "ids that differ", None),
    (21, "models.fraud.monitors[1].severity", "warning at most critical", None),
]


def test_a_file_with_many_mistakes_gives_each_of_them_with_its_line_and_path() -> None:
    problems = problems_of(MISTAKES)
    assert [(p.line, p.path) for p in problems] == [(line, path) for line, path, _, _ in EXPECTED]
    for problem, (_, _, expected, hint) in zip(problems, EXPECTED, strict=True):
        assert problem.expected.startswith(expected), problem
        assert hint is None or (problem.hint or "").startswith(hint), problem


def test_a_problem_reads_as_the_style_guide_asks() -> None:
    problem = next(p for p in problems_of(MISTAKES) if p.path.endswith("window"))
    assert str(problem) == 'monitor "loud": window: expected an integer >= 30, got 5 (test.yml:17)'
    problem = next(p for p in problems_of(MISTAKES) if p.path.endswith("country"))
    assert str(problem) == (
        'model "fraud": features.country: expected one of "numeric", "categorical", "vector", got "category" (test.yml:12)\n'
        '  hint: did you mean "categorical"?'
    )


def test_the_notebooks_word_for_a_tolerance_is_led_to_the_files() -> None:
    problem = only_problem(with_model("false_alarms: 1 per week\nmin_effect: 0.1"))
    assert (problem.path, problem.hint) == ("models.fraud.min_effect", "what is too small to be an alarm is severity.warning of a monitor")


def test_what_is_sensitive_needs_a_key() -> None:
    problem = only_problem(with_model("segments: {iban: {sensitive: true}}"))
    assert problem.path == "hash_key"
    parse_config(with_model("segments: {iban: {sensitive: true}}", "hash_key: {env: KEY}"), name="x")
    assert only_problem(with_model("owner: me", "hash_key: {env: KEY, file: k}")).path == "hash_key"


@pytest.mark.parametrize(
    "model",
    ["features: {age: {kind: numeric, sensitive: true}}", "features: {age: numeric}\nsegments: {age: {sensitive: true}}"],
)
def test_a_sensitive_feature_cannot_be_a_number(model: str) -> None:
    problem = only_problem(with_model(model, "hash_key: {env: KEY}"))
    assert problem.path.startswith("models.fraud.features.age")
    assert "categorical" in problem.expected


def test_the_shortest_file_is_complete() -> None:
    config = parse_config(SHORTEST, name="x")
    assert config.models["fraud"].window == 5_000
    assert [source.topic for source in config.predictions] == ["fraud.predictions"]
    assert config.labels == []


SHORT_AND_LONG = [
    ("predictions: [a, b]\nmodels: {m: {}}", "predictions: [{topic: a}, {topic: b}]\nmodels: {m: {}}"),
    ("predictions: a\nlabels: {topic: l}\nmodels: [m]", "predictions: [{topic: a}]\nlabels: [{topic: l}]\nmodels: {m: {}}"),
    ("predictions: a\nmodels:\n  m:", "predictions: [{topic: a}]\nmodels: {m: {}}"),
    ("predictions: a\nmodels: m", "predictions: [{topic: a}]\nmodels: {m: {}}"),
    (with_model("features: {x: numeric}"), with_model("features: {x: {kind: numeric}}")),
    (with_model("segments: [c, d]"), with_model("segments: {c: {}, d: {}}")),
    (with_model("segments: c"), with_model("segments: {c: null}")),
    (with_model("baseline: b.json"), with_model("baseline: {file: b.json}")),
    (with_model("labels: {ages: 7d}", "labels: l"), with_model("labels: {ages: [168h]}", "labels: l")),
    (with_model("labels: {absent: false}", "labels: l"), with_model("labels: {absent: 0}", "labels: l")),
    (
        with_model("monitors: [{id: a, series: score, detectors: psi}]"),
        with_model("monitors: [{id: a, series: [score], detectors: [{name: psi}]}]"),
    ),
    (
        with_model("monitors: [{id: a, series: score, detectors: [psi, {adwin: {delta: 0.002, input: raw}}, {page_hinkley: }]}]"),
        with_model(
            "monitors: [{id: a, series: score, detectors: "
            "[{name: psi}, {name: adwin, input: raw, params: {delta: 0.002}}, {name: page_hinkley}]}]"
        ),
    ),
    (
        with_model("monitors: [{id: a, series: score, detectors: [{name: adwin, delta: 0.002}]}]"),
        with_model("monitors: [{id: a, series: score, detectors: [{name: adwin, params: {delta: 0.002}}]}]"),
    ),
]


@pytest.mark.parametrize(("short", "long"), SHORT_AND_LONG)
def test_short_form_means_the_long_one(short: str, long: str) -> None:
    assert parse_config(short, name="x") == parse_config(long, name="x")


def test_a_baseline_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "fraud.yml"
    file.write_text(with_model("baseline: reference.json"), "utf-8")
    with pytest.raises(ConfigError, match="expected a file that exists"):
        load_config(file)
    (tmp_path / "reference.json").write_text("{}", "utf-8")
    assert load_config(file).models["fraud"].baseline.file == str(tmp_path / "reference.json")


def test_a_file_that_is_missing_or_not_text_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.yml")
    with pytest.raises(ConfigError):
        load_config(tmp_path)
    latin = tmp_path / "latin.yml"
    latin.write_bytes(b"predictions: a\nmodels: {caf\xe9: {}}\n")
    with pytest.raises(ConfigError) as refused:
        load_config(latin)
    assert refused.value.problems[0].line == 2
    marked = tmp_path / "marked.yml"
    marked.write_bytes(b"\xef\xbb\xbf" + SHORTEST.encode())
    assert load_config(marked).version == 1


@pytest.mark.parametrize("name", ["fraud", "ads"])
def test_example_monitors_are_valid(name: str) -> None:
    config = load_config(Path(__file__).parents[2] / "monitors" / f"{name}.yml")
    assert config.models


def test_a_river_detector_that_exists_is_accepted() -> None:
    text = with_model("monitors: [{id: a, series: score, detectors: [river.KSWIN, {river.ADWIN: {delta: 0.01}}, river.DDM]}]")
    monitors = parse_config(text, name="x").models["fraud"].monitors
    assert monitors is not None
    assert [spec.name for spec in monitors[0].detectors] == ["river.KSWIN", "river.ADWIN", "river.DDM"]


def test_multiclass_without_score_or_class_is_refused() -> None:
    text = "predictions: {topic: a, fields: {score: null, class: null}}\nmodels: {m: {task: multiclass}}\n"
    assert only_problem(text).path == "models.m.task"


def test_groups_follow_the_topics_unless_they_are_named() -> None:
    text = "version: 1\npredictions: p\ntopics: {prefix: staging}\nmodels: {m: {}}\n"
    assert parse_config(text, name="x.yml").kafka.group_prefix == "staging"
    assert parse_config(text + "kafka: {group_prefix: mine}\n", name="x.yml").kafka.group_prefix == "mine"
