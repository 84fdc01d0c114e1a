"""One mistake, one problem: each kind with its line, path, expectation and hint."""

from __future__ import annotations

import pytest

from driftline.schemas.loading import parse_config
from driftline.schemas.problems import ConfigError, told
from tests.schemas.configs import SHORTEST, only_problem, with_model

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
    (with_model("correlations: [[a]]"), 4, "models.fraud.correlations[0]", "at least 2 entries", ""),
    (with_model("correlations: [[a, b], c]"), 4, "models.fraud.correlations[1]", "a list", "a list of its own"),
    (with_model("correlations: a"), 4, "models.fraud.correlations", "a list", "write correlations: [[a, b]]"),
    (with_model("correlations: [[e, a]]\nfeatures: {a: numeric, e: {kind: vector, length: 3}}\nblocks: {e: [e]}"), 4,
     "models.fraud.correlations[0][0]", "a numeric feature", "by a block"),
    (with_model("blocks: [amount, age]"), 4, "models.fraud.blocks", "a mapping", "write blocks: {NAME: [amount, age]}"),
    (with_model("blocks: {card: amount}"), 4, "models.fraud.blocks.card", "a mapping", "write {card: [amount, ...]}"),
    (with_model("features: {v: {kind: vector, length: 1}}\nblocks: {v: [v]}"), 4, "models.fraud.features.v.length", "an integer >= 2", ""),
    (with_model("accepted: new prices"), 4, "models.fraud.accepted", "a known key", "features.NAME.accepted"),
    (with_model("unit: a\nunit_window: 30"), 5, "models.fraud.unit_window", "a duration >= 1s", "a bare number is milliseconds"),
    (with_model("stale: 30"), 4, "models.fraud.stale", "a duration >= 1s", "a bare number is milliseconds"),
    (with_model("freshness: true"), 4, "models.fraud.freshness", "a duration such as", ""),
    (with_model("correlations: [[a, a]]"), 4, "models.fraud.correlations[0]", "two different features", "without a pair"),
    (with_model("correlations: [[a, b], [b, a]]"), 4, "models.fraud.correlations[1]", "each pair once", "order"),
    (with_model("correlations: [[a~b, c]]"), 4, "models.fraud.correlations[0][0]", 'a name without "~"', '"path"'),
    (with_model("features: {amount: numeric, age: numeric}\ncorrelations: [[amount, agee]]"), 5, "models.fraud.correlations[0][1]",
     "a feature of this model", 'did you mean "age"?'),
    (with_model("features: {amount: numeric, c: categorical}\ncorrelations: [[c, amount]]"), 5, "models.fraud.correlations[0][0]",
     "a numeric feature", "a segment"),
    (with_model('monitors: [{id: x, series: "feature:*"}]\ncorrelations: [[a, b]]'), 5, "models.fraud.correlations[0]",
     "a monitor that watches it", '"correlation:*"'),
    (with_model('monitors: [{id: x, series: "correlation:*"}]'), 4, "models.fraud.monitors[0].series", "a glob that matches a series",
     '"correlations: [[FEATURE, FEATURE]]"'),
    (with_model("blocks: {x: []}"), 4, "models.fraud.blocks.x", "at least 1 entry", ""),
    (with_model("blocks: {x: [a]}"), 4, "models.fraud.blocks.x", "two or more numeric features, or one vector", "by itself"),
    (with_model("features: {v: {kind: vector}}\nblocks: {x: [v]}"), 4, "models.fraud.features.v", "a length for a vector", "384"),
    (with_model("features: {v: {kind: numeric, length: 3}}"), 4, "models.fraud.features.v", "a length for a vector", "384"),
    (with_model("features: {v: {kind: vector, length: 8}}"), 4, "models.fraud.features.v", "a block that watches the vector", "[v]"),
    (with_model("features: {a: numeric, v: {kind: vector, length: 8}}\nblocks: {x: [a, v]}"), 5, "models.fraud.blocks.x",
     "a vector by itself", "a block of their own"),
    (with_model("blocks: {x: [a, b, a]}"), 4, "models.fraud.blocks.x[2]", "each feature once", ""),
    (with_model("blocks: {a b: [a, b]}"), 4, 'models.fraud.blocks["a b"]', "a name of letters", "the name of a series"),
    (with_model("features: {amount: numeric, age: numeric}\nblocks: {x: [amount, agee]}"), 5, "models.fraud.blocks.x[1]",
     "a feature of this model", 'did you mean "age"?'),
    (with_model("features: {amount: numeric, c: categorical}\nblocks: {x: {features: [c, amount]}}"), 5,
     "models.fraud.blocks.x.features[0]", "a numeric feature", "a segment"),
    (with_model('monitors: [{id: x, series: "feature:*"}]\nblocks: {x: [a, b]}'), 5, "models.fraud.blocks.x",
     "a monitor that watches it", '"block:*"'),
    (with_model('monitors: [{id: x, series: "block:*"}]'), 4, "models.fraud.monitors[0].series", "a glob that matches a series",
     '"blocks: {NAME: [FEATURE, FEATURE]}"'),
    (with_model("freshness: -1"), 4, "models.fraud.freshness", "a duration such as", ""),
    (with_model("false_alarms: 5"), 4, "models.fraud.false_alarms", "text", "1 per week"),
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
    (with_model("features: {country: categorical}\nunit: contry"), 5, "models.fraud.unit", "a feature's name", 'did you mean "country"?'),
    (with_model("unit: .x"), 4, "models.fraud.unit", "a path such as", ""),
    (with_model("unit: topic"), 4, "models.fraud.unit", "a value that differs between units", ""),
    (with_model("expected: [{from: 2026-11-27T00:00Z, to: 2026-11-27T00:00Z}]"), 4, "models.fraud.expected[0].to", "a time after from", ""),
    (with_model("expected: [{from: 2026-11-27, to: 2026-11-28T00:00:00Z}]"), 4, "models.fraud.expected[0].from", "an ISO time", ""),
    (with_model("unit_window: 1h"), 4, "models.fraud.unit_window", "a unit to go with it", "unit: card_id"),
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
    (with_model("baseline: {learn: 500, compare: false}"), 4, "models.fraud.baseline.compare", "a file to compare", ""),
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
        with_model("monitors: [{id: a, series: score, detectors: [{ewma: {weight: 2}}]}]"),
        4,
        "models.fraud.monitors[0].detectors[0].ewma.weight",
        "a number > 0 and <= 1",
        "",
    ),
    (
        with_model("monitors: [{id: a, series: score, detectors: [{cusum: {delta: 0.1}}]}]"),
        4,
        "models.fraud.monitors[0].detectors[0].cusum.delta",
        "a parameter of cusum",
        "parameters of cusum: allowance, threshold, mode",
    ),
    (
        with_model("monitors: [{id: a, series: score, detectors: [{cusum: {input: raw}}]}]"),
        4,
        "models.fraud.monitors[0].detectors[0].cusum.input",
        '"score" for cusum',
        "page_hinkley learns its own",
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


def test_the_same_mistake_in_many_models_is_told_three_times_and_counted() -> None:
    models = "".join(f"  m{i}: {{windov: 500}}\n" for i in range(50))
    with pytest.raises(ConfigError) as refused:
        parse_config(f"predictions: a\nmodels:\n{models}  other: {{window: x}}\n", name="c.yml")
    lines = told(refused.value.problems)
    assert len(refused.value.problems) == 51
    assert len(lines) == 5
    assert [f"(c.yml:{number})" in line for number, line in zip((3, 4, 5), lines, strict=False)] == [True] * 3
    assert lines[3].startswith("and 47 more like the last: expected ")
    assert lines[3].endswith("(c.yml:6 to 52)")
    assert "c.yml:53" in lines[4]


def test_four_of_a_kind_are_all_told() -> None:
    models = "".join(f"  m{i}: {{windov: 500}}\n" for i in range(4))
    with pytest.raises(ConfigError) as refused:
        parse_config(f"predictions: a\nmodels:\n{models}", name="c.yml")
    assert told(refused.value.problems) == [str(problem) for problem in refused.value.problems]


def test_a_pair_that_is_no_list_of_its_own_is_shown_as_one() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(with_model("correlations: [amount, n_items]"), name="f.yml")
    hints = {problem.hint for problem in caught.value.problems}
    assert hints == {"a pair is a list of its own: write correlations: [[amount, n_items]]"}


@pytest.mark.parametrize("line", [
    "correlations: [[a, zz]]", "correlations: [[a, c]]", "correlations: [[a, a]]", "correlations: [[zz, zz]]", "correlations: [[a, 3]]",
    "blocks: {x: [a, zz]}", "blocks: {x: [a]}", "blocks: {x: [a, c]}", "blocks: {x: [zz]}", "blocks: {x: [a, 3]}", "blocks: {x: [a, a]}",
])  # fmt: skip
@pytest.mark.parametrize("glob", ["feature:*", "*"])
def test_a_wrong_pair_or_block_is_one_mistake(line: str, glob: str) -> None:
    text = f'features: {{a: numeric, b: numeric, c: categorical}}\n{line}\nmonitors: [{{id: x, series: "{glob}"}}]'
    with pytest.raises(ConfigError) as caught:
        parse_config(with_model(text), name="f.yml")
    assert len(caught.value.problems) == 1, str(caught.value)
