"""What a file costs: counts against counts by hand, bytes and CPU against their proportions."""

from __future__ import annotations

import dataclasses

import pytest

from driftline.detectors.river_adapter import HISTORY, RiverDetector, river_detectors
from driftline.schemas.config import Config
from driftline.schemas.estimate import COSTS, FEATURES_ASSUMED, RIVER_NS, KnownBaseline, estimate
from driftline.schemas.loading import parse_config
from driftline.schemas.series import matches, model_series, owners
from driftline.schemas.topics import TOPICS


def config(model: str = "", top: str = "") -> Config:
    return parse_config(f"predictions: p\nmodels:\n  m: {{{model}}}\n{top}", name="x")


TWO = "features: {x: numeric, c: categorical}"


def test_series_of_a_binary_model_without_labels_are_counted_as_by_hand() -> None:
    found = estimate(config(TWO)).models[0]
    # 2 features; 4 qualities each; score, decision, class; latency, its two tails, error; invalid rows
    assert found.series_by_group == {"features": 2, "quality": 8, "scores": 3, "service": 4, "stream": 1}
    assert found.scopes == 1
    assert found.series == 18


def test_each_segment_value_and_the_others_have_every_series() -> None:
    one = estimate(config(TWO)).models[0]
    many = estimate(config(TWO + ", segments: {c: {max: 10}, d: {max: 4}}")).models[0]
    assert many.scopes == 1 + 11 + 5
    assert many.series == one.series * many.scopes
    # Two bytes for each key of a row in a window that is kept twice over, in the panels of features and of scores.
    assert many.ring_bytes == one.ring_bytes * many.scopes + 2 * 2 * (2 * 5_000) * 2


def test_each_age_has_outcome_series_of_its_own() -> None:
    one = estimate(config(TWO + ", labels: {ages: [1h]}", "labels: l")).models[0]
    two = estimate(config(TWO + ", labels: {ages: [1h, 2h]}", "labels: l")).models[0]
    # log loss, residual, miss, false alarm, label delay, labelled
    assert two.series - one.series == 6


def test_only_watched_series_cost() -> None:
    found = estimate(config(TWO + ", monitors: [{id: a, series: 'feature:*'}, {id: b, series: score, enabled: false}]")).models[0]
    assert found.series_by_group == {"features": 2}


def test_a_series_belongs_to_the_first_monitor_that_matches() -> None:
    parsed = config(TWO + ", monitors: [{id: a, series: 'feature:x'}, {id: b, series: '*'}]")
    model = parsed.models["m"]
    assert model.monitors is not None
    owner = {name: monitor.id for name, monitor in owners(model_series(parsed, model), model.monitors).items()}
    assert owner["feature:x"] == "a"
    assert owner["feature:c"] == owner["score"] == "b"


@pytest.mark.parametrize(
    ("glob", "expected"),
    [("feature:*", True), ("feature:amount", True), ("*", True), ("feat*", True), ("features:*", False), ("score", False)],
)
def test_a_glob_may_match_features_that_are_still_to_be_learned(glob: str, expected: bool) -> None:
    parsed = config()
    unknown = next(one for one in model_series(parsed, parsed.models["m"]) if one.name.startswith("feature:"))
    assert matches(glob, unknown) is expected


def test_features_to_be_learned_are_assumed_until_a_baseline_names_them() -> None:
    guessed = estimate(config()).models[0]
    assert (guessed.features, guessed.features_known) == (FEATURES_ASSUMED, False)
    known = estimate(config("segments: [c]"), {"m": KnownBaseline({"x": "numeric"}, {"c": 3})}).models[0]
    assert (known.features, known.features_known, known.scopes) == (1, True, 5)


def test_a_ring_holds_the_window_and_its_slack_for_every_column() -> None:
    small = estimate(config(TWO + ", window: 1000")).models[0]
    large = estimate(config(TWO + ", window: 2000")).models[0]
    # x, c and invalid rows; score, decision, class, latency, error: a byte a row each
    assert large.ring_bytes - small.ring_bytes == 8 * 1000 * COSTS.ring_capacity


def test_cpu_grows_with_segment_keys_not_with_their_values() -> None:
    plain = estimate(config(TWO)).cpu_us_per_event
    few = estimate(config(TWO + ", segments: {c: {max: 5}}")).cpu_us_per_event
    many = estimate(config(TWO + ", segments: {c: {max: 500}}")).cpu_us_per_event
    two = estimate(config(TWO + ", segments: [c, d]")).cpu_us_per_event
    assert plain < few == many < two
    assert two - few == pytest.approx(few - plain)


def test_river_detectors_cost_more_than_ours() -> None:
    ours = estimate(config(TWO + ", monitors: [{id: a, series: 'feature:*', detectors: adwin}]"))
    for name in ("ADWIN", "KSWIN"):
        theirs = estimate(config(TWO + f", monitors: [{{id: a, series: 'feature:*', detectors: river.{name}}}]"))
        assert theirs.cpu_us_per_event - ours.cpu_us_per_event == pytest.approx(2 * (RIVER_NS[name] - COSTS.adwin_ns) / 1_000)
        assert theirs.redis_bytes > ours.redis_bytes


@pytest.mark.parametrize("name", sorted(RIVER_NS))
def test_the_stated_cost_of_a_river_detector_is_of_a_class_that_river_has(name: str) -> None:
    assert name in river_detectors()


def test_the_state_of_a_river_detector_is_what_it_stores() -> None:
    """A steady stream raises no alarm, so that the values kept run up to twice the history: the mean is counted."""
    detector = RiverDetector("NoDrift", history=1_000)
    sizes = []
    for value in range(5_000):
        detector.update(float(value % 7))
        sizes.append(len(detector.export()) if value >= 2_000 and value % 50 == 0 else 0)
    mean = sum(sizes) / sum(size > 0 for size in sizes)
    assert COSTS.river_bytes == pytest.approx(mean * HISTORY / 1_000, rel=0.05)


def test_topic_bytes_are_proportional_to_the_rate_and_named_by_the_prefix() -> None:
    parsed = config(TWO, "labels: l\ntopics: {prefix: acme, replication: 3}")
    one, ten = estimate(parsed, events_per_second=100), estimate(parsed, events_per_second=1_000)
    assert ten.topic_bytes_per_day == pytest.approx(10 * one.topic_bytes_per_day, rel=1e-6)
    assert {topic.topic for topic in one.topics} <= {topic.full_name("acme") for topic in TOPICS}
    waiting = next(topic for topic in one.topics if topic.topic == "acme.waiting")
    assert waiting.bytes_per_day == 100 * 86_400 * 60
    assert waiting.bytes_kept == waiting.bytes_per_day * 60 * 3
    assert ten.cores == pytest.approx(ten.cpu_us_per_event / 1_000)


def test_labels_wait_in_redis_as_long_as_the_ages_say() -> None:
    none = estimate(config(TWO))
    hour = estimate(config(TWO + ", labels: {ages: 1h}", "labels: l"), events_per_second=10)
    day = estimate(config(TWO + ", labels: {ages: 24h}", "labels: l"), events_per_second=10)
    assert none.waiting_label_bytes == 0
    assert hour.waiting_label_bytes == 10 * 3_600 * COSTS.label_bytes
    assert day.waiting_label_bytes == 24 * hour.waiting_label_bytes
    assert hour.redis_bytes == hour.waiting_label_bytes + hour.models[0].redis_bytes


def test_two_models_share_the_rate() -> None:
    one = parse_config("predictions: p\nmodels: [a]", name="x")
    two = parse_config("predictions: p\nmodels: [a, b]", name="x")
    assert estimate(two).topic_bytes_per_day == pytest.approx(estimate(one).topic_bytes_per_day)
    assert estimate(two).series == 2 * estimate(one).series


def test_the_stated_targets_are_within_the_constants() -> None:
    # at most 12 KB of state for a series at a window of 5,000, at most 60 ns an update, 60 bytes a waiting row
    one_column = 5_000 * COSTS.ring_capacity + COSTS.adwin_bytes + COSTS.page_hinkley_bytes + COSTS.psi_bytes + COSTS.counts_bytes
    assert one_column <= 12_288
    assert max(COSTS.adwin_ns, COSTS.psi_ns, COSTS.page_hinkley_ns) <= 60
    assert COSTS.waiting_row_bytes <= 60
    assert all(value >= 0 for value in dataclasses.asdict(COSTS).values())
