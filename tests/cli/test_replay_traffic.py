"""The two parts of a model-level effect through the public path: who is asked about, and what is true of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from driftline.cli.main import cli
from driftline.detectors.baseline import Baseline
from driftline.streams.detect.reference import read_baselines
from tests.cli.streams_for_tests import START_MS

OPTIONS = ["--id", "id", "--time", "time", "--score", "score", "--segment", "country"]
CONFIG = """
predictions: p
models:
  shop:
    features: {amount: numeric, device: categorical}
    segments: {country: {path: country}}
    decision: 0.5
    window: 2000
    baseline: {learn: 6000, settle: 0s}
"""
COUNTRIES = ("BR", "DE", "US")
BEFORE, AFTER = (0.15, 0.45, 0.40), (0.45, 0.30, 0.25)
MEANS = {"BR": 2.0, "DE": 0.0, "US": -0.5}
PHONES = {"BR": 0.9, "DE": 0.3, "US": 0.4}
CHANGE = 9_000
ROWS = 14_000


def write_stream(path: Path, *, mix: bool, within: float = 0.0, seed: int = 1, rows: int = ROWS) -> Path:
    """Amounts, scores and devices that go by the country; from row `CHANGE` on other shares, or other amounts within each country."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "time", "country", "amount", "device", "score"])
        for row in range(rows):
            late = row >= CHANGE
            country = COUNTRIES[rng.choice(3, p=AFTER if mix and late else BEFORE)]
            amount = MEANS[country] + rng.normal() + within * late
            device = "phone" if rng.random() < PHONES[country] else "desk"
            score = 1 / (1 + np.exp(-(amount - 1.0 + 0.5 * rng.normal())))
            writer.writerow([f"r{row}", START_MS + 1_000 * row, country, f"{amount:.6f}", device, f"{score:.6f}"])
    return path


def replay(path: Path, text: str = CONFIG, options: Sequence[str] = OPTIONS) -> list[dict[str, Any]]:
    config = path.parent / "shop.yml"
    config.write_text(text)
    result = CliRunner().invoke(cli, ["replay", str(path), "-c", str(config), *options, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    return [e for e in events if e["kind"] in ("drift", "evidence") and e["position"]["offset"] >= CHANGE]


def of_model(found: list[dict[str, Any]], *series: str) -> list[dict[str, Any]]:
    return [e for e in found if e["segment"] is None and e["series"] in series]


SERIES = ("feature:amount", "feature:device", "score", "decision", "class")


def test_other_shares_of_segments_are_traffic_mix_and_no_page(tmp_path: Path) -> None:
    found = replay(write_stream(tmp_path / "mix.csv", mix=True))
    whole = of_model(found, *SERIES)
    assert {e["series"] for e in whole} >= {"feature:amount", "feature:device", "score", "decision"}
    assert {e["severity"] for e in whole} <= {"info", "warning"}
    # PSI of the same episodes passes its own threshold far below what counts, and says nothing of the cause.
    loud = [e for e in whole if e["severity"] == "warning" and abs(e["effect"]["size"]) >= 0.1]
    assert {e["series"] for e in loud} >= {"feature:amount", "feature:device", "score", "decision"}
    assert {e["cause"] for e in loud} == {"traffic_mix"}
    last = of_model(loud, "feature:amount")[-1]
    assert last["traffic"]["by"] == "country"
    assert last["traffic"]["moved"][0]["segment"] == {"country": "BR"}
    assert last["traffic"]["moved"][0]["expected"] == pytest.approx(0.15, abs=0.02)
    assert "; the mix of country moved: BR 1" in last["reason"]
    assert last["reason"].endswith("within each country nothing changed")


def test_a_change_within_segments_is_none_of_the_mix(tmp_path: Path) -> None:
    found = of_model(replay(write_stream(tmp_path / "within.csv", mix=False, within=0.5)), "feature:amount", "score")
    assert {e["cause"] for e in found} == {None}
    assert "critical" in {e["severity"] for e in found}
    for event in found:
        assert abs(event["traffic"]["mix"]) < 0.5 * abs(event["traffic"]["within"])


@pytest.mark.parametrize("within", [0.5, 1.0])
def test_a_change_within_segments_beside_one_of_the_mix_is_as_loud_as_without(tmp_path: Path, within: float) -> None:
    found = of_model(replay(write_stream(tmp_path / "both.csv", mix=True, within=within)), "feature:amount")
    critical = [e for e in found if e["severity"] == "critical" and e["cause"] is None]
    assert critical
    # A mix that is looked at every 512 rows holds it back no longer than that.
    assert critical[0]["position"]["offset"] - found[0]["position"]["offset"] <= 512
    assert " by the mix of country, " in critical[0]["reason"]


def test_a_change_within_segments_after_one_of_the_mix_is_found(tmp_path: Path) -> None:
    first = write_stream(tmp_path / "mix.csv", mix=True)
    rows = list(csv.reader(first.open()))
    for row in rows[1 + CHANGE + 2_500 :]:
        row[3] = f"{float(row[3]) + 0.8:.6f}"
    with (tmp_path / "later.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = of_model(replay(tmp_path / "later.csv"), "feature:amount")
    held = [e for e in found if e["position"]["offset"] < CHANGE + 2_500]
    assert {e["severity"] for e in held} <= {"info", "warning"}
    critical = next(e for e in found if e["severity"] == "critical")
    assert CHANGE + 2_500 <= critical["position"]["offset"] < CHANGE + 2_500 + 1_500
    assert critical["cause"] is None


def test_without_segments_and_where_their_references_are_thin_no_parts_are_told(tmp_path: Path) -> None:
    path = write_stream(tmp_path / "mix.csv", mix=True)
    without = of_model(replay(path, CONFIG.replace("    segments: {country: {path: country}}\n", "")), "feature:amount")
    assert {(e["cause"], e["traffic"]) for e in without} == {(None, None)}
    assert "critical" in {e["severity"] for e in without}
    # A fifth of the window is of a country that the baseline has never seen.
    rows = list(csv.reader(path.open()))
    for row in rows[1 + CHANGE :: 5]:
        row[2] = "AR"
    with (tmp_path / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    unseen = of_model(replay(tmp_path / "new.csv"), "feature:amount")
    assert unseen
    assert {(e["cause"], e["traffic"]) for e in unseen if e["n"] > 100} == {(None, None)}


@pytest.mark.parametrize(("key", "segment"), [
    ("country", "{country: {path: country}}"),
    ("country", "{country: {}}"),
    # Under another name it is the same value.
    ("land", "{land: {path: features.country}}"),
])  # fmt: skip
def test_a_feature_that_is_a_segment_key_is_not_split_by_itself(tmp_path: Path, key: str, segment: str) -> None:
    text = CONFIG.replace("{country: {path: country}}", segment).replace("device: categorical", "device: categorical, country: categorical")
    options = [*OPTIONS[:-1], "country" if key == "country" else f"{key}=country"]
    found = replay(write_stream(tmp_path / "mix.csv", mix=True), text, options)
    own = of_model(found, "feature:country")
    assert {(e["cause"], e["traffic"]) for e in own} == {(None, None)}
    assert "critical" in {e["severity"] for e in own}
    assert {e["traffic"]["by"] for e in of_model(found, "feature:amount") if e["traffic"]} == {key}
    assert "critical" not in {e["severity"] for e in of_model(found, "feature:amount", "feature:device")}


def test_another_key_may_explain_a_feature_that_is_a_segment_key(tmp_path: Path) -> None:
    text = CONFIG.replace("{country: {path: country}}", "{country: {path: country}, device: {path: device}}")
    found = of_model(replay(write_stream(tmp_path / "mix.csv", mix=True), text, [*OPTIONS, "--segment", "device"]), "feature:device")
    assert {e["traffic"]["by"] for e in found if e["traffic"]} == {"country"}
    assert "traffic_mix" in {e["cause"] for e in found}


def naive_scores(baseline: Baseline) -> tuple[list[float], dict[int, float]]:
    """Edges of `amount`, and the standardised score of each of its bins, from counts alone."""
    c = baseline.column("amount")
    assert c is not None
    column = baseline.columns[c]
    counts = [int(n) for n in baseline.counts[0, c]]
    order = [62, *range(column.n_bins), 63]
    total = sum(counts[code] for code in order)
    before, raw = 0, {}
    for code in order:
        raw[code] = NormalDist().inv_cdf((before + counts[code] / 2 + 0.5) / (total + 1))
        before += counts[code]
    mean = sum(counts[k] * z for k, z in raw.items()) / total
    sd = (sum(counts[k] * (z - mean) ** 2 for k, z in raw.items()) / total) ** 0.5
    return list(column.edges), {k: max(-4.0, min(4.0, (z - mean) / sd)) for k, z in raw.items()}


def test_the_parts_of_a_mean_are_those_of_a_plain_computation_and_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = write_stream(tmp_path / "both.csv", mix=True, within=0.3)
    rows = list(csv.reader(whole.open()))
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows[:6_001])
    (tmp_path / "train.yml").write_text(CONFIG)
    built = CliRunner().invoke(cli, ["baseline", "build", "train.yml", "--from-file", "train.csv", "-o", "base.json", *OPTIONS])
    assert built.exit_code == 0, built.output
    baseline = read_baselines(tmp_path / "base.json")["panels"]["features"]
    edges, score = naive_scores(baseline)
    column = baseline.columns[baseline.column("amount") or 0]

    def level(value: float) -> float:
        if value < column.low or value > column.high:
            return score[62 if value < column.low else 63]
        return score[int(np.searchsorted(edges, value, side="left"))]

    def means(part: list[list[str]]) -> dict[str, tuple[float, float]]:
        out = {}
        for country in COUNTRIES:
            own = [level(float(row[3])) for row in part if row[2] == country]
            out[country] = (len(own) / len(part), float(np.mean(own)))
        return out

    before = means(rows[1:6_001])
    found = [e for e in of_model(replay(whole), "feature:amount") if e["effect"]["kind"] == "mean"]
    assert found
    for event in found:
        last = event["position"]["offset"] + 2
        now = means(rows[last - event["n"] : last])
        mix = sum((now[s][0] - before[s][0]) * before[s][1] for s in COUNTRIES)
        within = sum(now[s][0] * (now[s][1] - before[s][1]) for s in COUNTRIES)
        assert event["traffic"]["mix"] == pytest.approx(mix, abs=1e-9)
        assert event["traffic"]["within"] == pytest.approx(within, abs=1e-9)
        assert mix + within == pytest.approx(event["effect"]["size"], abs=1e-3), "but for the capping of scores"
