"""Configuration files: what is wrong is said all at once, with its line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.schemas import document
from driftline.schemas.config import Config, Model
from driftline.schemas.document import BYTES_MAX
from driftline.schemas.loading import ConfigError, Problem, load_config, parse_config

SHORTEST = """
predictions: fraud.predictions
models:
  fraud: {}
"""

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
    (12, "models.fraud.features.country", 'one of "numeric", "categorical"', 'did you mean "categorical"?'),
    (13, "models.fraud.segments[0]", "a feature's name", 'did you mean "country"?'),
    (16, "models.fraud.monitors[0].series[1]", "a glob that matches a series", 'did you mean "score"?'),
    (17, "models.fraud.monitors[0].window", "an integer >= 30", None),
    (18, "models.fraud.monitors[0].detectors[1]", "a detector", 'did you mean "adwin"?'),
    (18, "models.fraud.monitors[0].detectors[2].adwin.detla", "a parameter of adwin", 'did you mean "delta"?'),
    (19, "models.fraud.monitors[1].id", "ids that differ", None),
    (21, "models.fraud.monitors[1].severity", "warning at most critical", None),
]


def problems_of(text: str, directory: Path | None = None) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        parse_config(text, name="test.yml", directory=directory)
    return list(refused.value.problems)


def only_problem(text: str, directory: Path | None = None) -> Problem:
    problems = problems_of(text, directory)
    assert len(problems) == 1, "\n".join(map(str, problems))
    return problems[0]


def with_model(model: str, top: str = "") -> str:
    """A file whose model `fraud` has this body; `model` starts on line 4."""
    body = "\n".join("    " + line for line in model.splitlines())
    return f"predictions: fraud.predictions\nmodels:\n  fraud:\n{body}\n{top}"


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
        'model "fraud": features.country: expected one of "numeric", "categorical", got "category" (test.yml:12)\n'
        '  hint: did you mean "categorical"?'
    )


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


ONE_PROBLEM = [
    # the text itself
    ("", 1, "", "a mapping with predictions and models", "driftline init"),
    ("- a\n", 1, "", "a mapping with predictions and models", "driftline init"),
    ("predictions:\n\t- a\n", 2, "", "spaces for indentation", "replace the tab"),
    ("predictions: [a\nmodels: {}\n", 2, "", "valid YAML", ""),
    ("predictions: a\n---\nmodels: m\n", 2, "", "one YAML document", "---"),
    ("predictions: *nothing\n", 1, "", "an anchor for each alias", ""),
    ("predictions: a\x00\n", 1, "", "printable text", ""),
    ('predictions: "\\UFFFFFFFF"\n', 1, "", "valid YAML", ""),
    (SHORTEST + "predictions: other\n", 5, "predictions", "each key once", "line 2"),
    (SHORTEST + "on: 1\n", 5, "on", "a text key", 'quote it, "on"'),
    (SHORTEST + "12: 1\n", 5, "12", "a text key", "quote it"),
    (SHORTEST + "kafka: {bootstrap: !!python/name:os.system x}\n", 5, "kafka.bootstrap", "a value without a tag", "remove it"),
    # types and bounds
    ("models: {m: {}}\n", 1, "predictions", "a value (topics of predictions)", ""),
    ("predictions: a\n", 1, "models", "a value (by the name", ""),
    ("predictions: []\nmodels: {m: {}}\n", 1, "predictions", "at least 1 entry", ""),
    (SHORTEST + "kafka: 5\n", 5, "kafka", "a mapping", ""),
    (SHORTEST + "kafka: {commit_interval: 1ms}\n", 5, "kafka.commit_interval", "a duration >= 10ms", ""),
    (SHORTEST + "kafka: {commit_interval: 10s}\n", 5, "kafka.commit_interval", "a duration <= 5s", ""),
    (SHORTEST + "start: yesterday\n", 5, "start", '"now", "earliest"', ""),
    (SHORTEST + "start: 2026-01-31T00:00:00\n", 5, "start", '"now", "earliest"', ""),
    (SHORTEST + "http: {port: .5}\n", 5, "http.port", "an integer", ""),
    (SHORTEST + "redis: {url: {envv: X}}\n", 5, "redis.url.envv", "a known key", 'did you mean "env"?'),
    (with_model("window: 5_000"), 4, "models.fraud.window", "an integer", "write 5000"),
    (with_model("window: -5"), 4, "models.fraud.window", "an integer >= 30", ""),
    (with_model("freshness: -1"), 4, "models.fraud.freshness", "a duration such as", ""),
    (with_model("owner: 12"), 4, "models.fraud.owner", "text", "quote it"),
    (with_model("decision: .inf"), 4, "models.fraud.decision", "a finite number", ""),
    (with_model("monitors: [{id: a, series: score, enabled: yes}]"), 4, "models.fraud.monitors[0].enabled", "true or false", "write true"),
    (with_model("monitors: [{id: a, series: score, detectors: []}]"), 4, "models.fraud.monitors[0].detectors", "at least 1", ""),
    (with_model("monitors: [{id: a, series: score, run_length: -1}]"), 4, "models.fraud.monitors[0].run_length", "a number >= 100", ""),
    (with_model("labels: {ages: [1h, 2h, 3h, 4h, 5h]}", "labels: l"), 4, "models.fraud.labels.ages", "at most 4 entries", ""),
    (with_model("labels: {ages: [soon]}", "labels: l"), 4, "models.fraud.labels.ages[0]", "a duration such as", ""),
    # rules between parts
    ("predictions: [a, a]\nmodels: m\n", 1, "predictions[1]", "each topic once", ""),
    ("predictions: a\nlabels: a\nmodels: m\n", 2, "labels", "each topic once", "topics of their own"),
    ("predictions: driftline.drift\nmodels: m\n", 1, "predictions", "a topic of yours", "its own output"),
    ("predictions: {topic: a, fields: {model: 'const:mm'}}\nmodels: [m]\n", 1, "predictions.fields.model", "a model of this", '"m"'),
    ("predictions: {topic: a, fields: {id: ''}}\nmodels: m\n", 1, "predictions.fields.id", "a path such as", ""),
    ("predictions: {topic: a, fields: {time: a..b}}\nmodels: m\n", 1, "predictions.fields.time", "a path such as", ""),
    ("predictions: {topic: a, fields: {id: topic}}\nmodels: m\n", 1, "predictions.fields.id", "an id that differs", "duplicate"),
    ("predictions: {topic: a, fields: {features: key}}\nmodels: m\n", 1, "predictions.fields.features", "a path into", ""),
    ("predictions: {topic: a, fields: {id: txn, score: txn.p}}\nmodels: m\n", 1, "predictions.fields.id", "a path to a value", "no object"),
    ("predictions: {topic: a, fields: {feature_names: [x, x]}}\nmodels: m\n", 1, "predictions.fields.feature_names", "one or more", ""),
    (
        "predictions: {topic: a, fields: {feature_names: [amount]}}\nmodels: {m: {features: {amont: numeric}}}\n",
        2,
        "models.m.features.amont",
        "a name of feature_names",
        '"amount"',
    ),
    ("predictions: a\nlabels: {topic: b, fields: {value: x.}}\nmodels: m\n", 2, "labels.fields.value", "a path such as", ""),
    (with_model("segments: {c: {path: .x}}"), 4, "models.fraud.segments.c.path", "a path such as", ""),
    ("predictions: a\nmodels: [Fraud, fraud]\n", 2, "models[1]", "names that differ by more than case", ""),
    ("predictions: a\nmodels: {' m': {}}\n", 2, 'models[" m"]', "a name of 1 to 200", ""),
    (SHORTEST + "kafka: {properties: {group.id: x}}\n", 5, 'kafka.properties["group.id"]', "a property that Driftline", "group_prefix"),
    (SHORTEST + "kafka: {transaction_timeout: 1s, commit_interval: 1s}\n", 5, "kafka.transaction_timeout", "at least three times", ""),
    (SHORTEST + "redis: {url: {env: A, file: b}}\n", 5, "redis.url", "exactly one of env and file", ""),
    (SHORTEST + "redis: {url: {}}\n", 5, "redis.url", "exactly one of env and file", ""),
    (SHORTEST + "redis: {url: localhost}\n", 5, "redis.url", "a URL", ""),
    (with_model("labels: {absent: 0}"), 4, "models.fraud.labels", 'a topic under the top-level "labels"', "labels: TOPIC"),
    (with_model("labels: {ages: [auto, 1h, auto]}", "labels: l"), 4, "models.fraud.labels.ages[2]", "each age once", ""),
    (with_model("labels: {ages: [60m, 1h]}", "labels: l"), 4, "models.fraud.labels.ages[1]", "each age once", ""),
    (with_model("labels: {ages: 0}", "labels: l"), 4, "models.fraud.labels.ages", "an age above 0", ""),
    (with_model("baseline: {file: b.json, learn: 500}"), 4, "models.fraud.baseline.learn", "either file or learn", ""),
    (with_model("window: 50001"), 4, "models.fraud.window", "at most ten times baseline.learn", "raise baseline.learn"),
    (with_model("task: regression\ndecision: 0.5"), 5, "models.fraud.decision", "no decision", ""),
    (with_model("classes: [a, b]"), 4, "models.fraud.classes", "no classes for task binary", "multiclass"),
    (with_model("task: multiclass\nclasses: [a, a]"), 5, "models.fraud.classes", "two or more different", ""),
    (with_model("monitors: [{id: a, series: 'outcome:*'}]"), 4, "models.fraud.monitors[0].series", "a glob that matches", "need labels"),
    (with_model("monitors: [{id: a, series: 'class_share:*'}]"), 4, "models.fraud.monitors[0].series", "a glob that matches", "classes: ["),
    (with_model("monitors: [{id: a, series: 'features:*'}]"), 4, "models.fraud.monitors[0].series", "a glob that matches", ""),
    (
        with_model("features: {x: numeric}\nmonitors: [{id: a, series: 'feature:y'}]"),
        5,
        "models.fraud.monitors[0].series",
        "a glob that matches a series",
        '"feature:x"',
    ),
    (
        with_model("monitors: [{id: a, series: '*'}, {id: b, series: score}]"),
        4,
        "models.fraud.monitors[1].series",
        "a series that no earlier monitor owns",
        'monitor "a" comes first',
    ),
    (with_model("monitors: [{id: a, series: score, run_length: 999}]"), 4, "models.fraud.monitors[0].run_length", "at least the win", ""),
    (
        with_model("monitors: [{id: a, series: score, detectors: [psi, psi]}]"),
        4,
        "models.fraud.monitors[0].detectors[1]",
        "each detector once",
        "",
    ),
    (
        with_model("monitors: [{id: a, series: score, detectors: [{adwin: {delta: 2}}]}]"),
        4,
        "models.fraud.monitors[0].detectors[0].adwin.delta",
        "a number > 0 and <= 1",
        "",
    ),
    (
        with_model("monitors: [{id: a, series: score, detectors: [river.KSWINN]}]"),
        4,
        "models.fraud.monitors[0].detectors[0]",
        "a class of river.drift",
        'did you mean "river.KSWIN"?',
    ),
    (
        with_model("monitors: [{id: a, series: score, detectors: [{river.KSWIN: {alhpa: 0.1}}]}]"),
        4,
        'models.fraud.monitors[0].detectors[0]["river.KSWIN"].alhpa',
        "a parameter of river.KSWIN",
        'did you mean "alpha"?',
    ),
    (
        with_model("features: {x: numeric}\nseries_max: 100\nsegments: {c: {max: 50}}"),
        5,
        "models.fraud.series_max",
        "at most 100 series",
        "lower segments",
    ),
]


@pytest.mark.parametrize(("text", "line", "path", "expected", "hint"), ONE_PROBLEM)
def test_one_mistake_gives_one_problem(text: str, line: int, path: str, expected: str, hint: str) -> None:
    problem = only_problem(text)
    assert (problem.line, problem.path) == (line, path), str(problem)
    assert problem.expected.startswith(expected), str(problem)
    assert hint in (problem.hint or ""), str(problem)


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


def test_groups_follow_the_topics_unless_they_are_named() -> None:
    text = "version: 1\npredictions: p\ntopics: {prefix: staging}\nmodels: {m: {}}\n"
    assert parse_config(text, name="x.yml").kafka.group_prefix == "staging"
    assert parse_config(text + "kafka: {group_prefix: mine}\n", name="x.yml").kafka.group_prefix == "mine"
