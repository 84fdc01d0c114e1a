"""`init`: what it takes for a feature, what it leaves out and why, and that the file is usable as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from click.testing import CliRunner, Result
from scipy import stats

from driftline.cli.main import cli
from driftline.schemas.loading import load_config
from tests.cli.streams_for_tests import write_transactions


def init(source: Path, target: Path, *extra: str) -> Result:
    return CliRunner().invoke(cli, ["init", "--from-file", str(source), "-o", str(target), *extra])


@pytest.fixture(scope="module")
def transactions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transactions(tmp_path_factory.mktemp("init") / "transactions.csv.gz", 3_000)


def test_features_and_kinds_are_inferred_and_the_file_validates(transactions: Path, tmp_path: Path) -> None:
    target = tmp_path / "fraud.yml"
    assert init(transactions, target).exit_code == 0
    model = load_config(target).models["transactions"]
    assert {name: feature.kind for name, feature in (model.features or {}).items()} == {
        "amount": "numeric",
        "age": "numeric",
        "country": "categorical",
    }
    assert list(model.segments) == ["country"]


@pytest.mark.parametrize(
    ("column", "reason"), [("comment", "free text"), ("card_id", "identifier"), ("created_at", "timestamp"), ("txn_id", "unique")]
)
def test_what_is_no_feature_is_left_out_with_the_reason_beside_it(transactions: Path, tmp_path: Path, column: str, reason: str) -> None:
    target = tmp_path / "fraud.yml"
    init(transactions, target)
    lines = [line for line in target.read_text().splitlines() if line.strip().startswith(f"#   {column}:")]
    assert len(lines) == 1
    assert reason in lines[0]


def test_the_age_of_labels_is_measured_where_the_file_has_both_times(transactions: Path, tmp_path: Path) -> None:
    target = tmp_path / "fraud.yml"
    init(transactions, target)
    # exponential with mean 10 minutes: the 95th percentile is 10 min x ln 20 = 30 min
    (age,) = load_config(target).models["transactions"].labels.ages
    assert isinstance(age, int)
    assert age == pytest.approx(30 * 60_000, rel=0.1)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("hotels.yml", "driftline.hotels"), ("Größe & co.yaml", "driftline.Gr-e-co"), ("driftline.yml", "driftline.transactions")],
)
def test_each_file_has_topics_groups_and_keys_of_its_own(transactions: Path, tmp_path: Path, name: str, prefix: str) -> None:
    assert init(transactions, tmp_path / name).exit_code == 0
    config = load_config(tmp_path / name)
    assert (config.topics.prefix, config.kafka.group_prefix, config.redis.key_prefix) == (prefix, prefix, prefix)


def write_table(path: Path, **columns: Sequence[object]) -> Path:
    made: dict[str, Sequence[object]] = {"amount": [float(i % 37) for i in range(400)], "limit": [100.0 * (i % 11) for i in range(400)]}
    pyarrow.csv.write_csv(pa.table(made | columns), path)
    return path


def roles_of(target: Path) -> dict[str, str]:
    """Column to what the file says it is used for."""
    lines = [line.strip().removeprefix("#   ") for line in target.read_text().splitlines() if line.startswith("    #   ")]
    return dict(line.split(" (")[0].split(": ", 1) for line in lines if " (" in line)


def test_what_a_person_names_is_used_as_named_and_is_no_feature(tmp_path: Path) -> None:
    n = 400
    columns: dict[str, Sequence[object]] = {
        "ref": [f"r{i // 2}" for i in range(n)],
        "z": [i % 2 for i in range(n)],
        "p": [i / n for i in range(n)],
        "booked": [1_700_000_000 + i for i in range(n)],
        "y": [i % 3 % 2 for i in range(n)],
        "noise": [float(i % 5) for i in range(n)],
    }
    source, target = write_table(tmp_path / "loans.csv", **columns), tmp_path / "loans.yml"
    options = ["--id", "ref", "--label", "z", "--score", "p", "--time", "booked", "--drop", "noise", "--decision", "0.3"]
    done = init(source, target, *options)
    assert done.exit_code == 0, done.stderr
    model = load_config(target).models["loans"]
    # `y` is left out as well: a second column with a label's name is no input of the model.
    assert set(model.features or {}) == {"amount", "limit"}
    assert model.decision == 0.3
    assert roles_of(target).items() >= {"ref": "id", "z": "label", "p": "score", "booked": "time"}.items()
    (line,) = [line for line in target.read_text().splitlines() if "driftline publish" in line]
    assert all(f"--{role} {name}" in line for role, name in (("id", "ref"), ("label", "z"), ("score", "p"), ("time", "booked")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label", "amuont"], 'no such column in .*the nearest: "amount"'),
        (["--score", "qqqq"], 'which has "amount", "limit"'),
        (["--id", "limit", "--label", "limit"], 'both are "limit"'),
        (["--drop", "limits"], 'the nearest: "limit"'),
        (["--label", "amount", "--decision", "0.4"], "threshold is for yes and no"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_near_ones(tmp_path: Path, options: list[str], said: str) -> None:
    done = init(write_table(tmp_path / "t.csv"), tmp_path / "t.yml", *options)
    assert done.exit_code == 2
    assert re.search(said, done.stderr)
    assert not (tmp_path / "t.yml").exists()


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"defaulted": [i % 2 for i in range(400)]}, "defaulted"),
        ({"has_churned": ["yes" if i % 5 else "no" for i in range(400)]}, "has_churned"),
        ({"class": ["UP" if i % 2 else "DOWN" for i in range(400)]}, "class"),
        ({"class": [i % 2 for i in range(400)], "score": [i / 400 for i in range(400)]}, None),
        ({"express": [i % 2 for i in range(400)]}, None),
    ],
)
def test_the_truth_is_told_from_inputs_and_answers(tmp_path: Path, columns: dict[str, Sequence[object]], label: str | None) -> None:
    target = tmp_path / "t.yml"
    assert init(write_table(tmp_path / "t.csv", **columns), target).exit_code == 0
    assert {name for name, role in roles_of(target).items() if role == "label"} == ({label} if label else set())
    # Where none was found and a column could be it, the file asks.
    assert ("name it with --label" in target.read_text()) == ("express" in columns)


@pytest.mark.parametrize(("repeats", "taken"), [(0, True), (8, True), (40, False)])
def test_an_id_may_come_again_now_and_then(tmp_path: Path, repeats: int, *, taken: bool) -> None:
    ids = [f"tx-{i if i >= repeats else 399 - i}" for i in range(400)]
    target = tmp_path / "t.yml"
    assert init(write_table(tmp_path / "t.csv", id=ids), target).exit_code == 0
    assert (roles_of(target).get("id") == "id") == taken
    assert (f"but for {repeats} repeated of 400 rows" in target.read_text()) == (taken and repeats > 0)


def test_the_suggested_publish_command_works_as_it_is(transactions: Path, tmp_path: Path) -> None:
    import shlex

    target = tmp_path / "fraud.yml"
    init(transactions, target)
    line = next(line for line in target.read_text().splitlines() if "driftline publish" in line)
    words = shlex.split(line.lstrip("# "))
    done = CliRunner().invoke(cli, [*words[1:], "--print", "--rows", "50"])
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 100


def test_an_existing_file_is_never_overwritten_without_force(transactions: Path, tmp_path: Path) -> None:
    target = tmp_path / "fraud.yml"
    target.write_text("mine")
    refused = init(transactions, target)
    assert refused.exit_code == 2
    assert target.read_text() == "mine"
    assert init(transactions, target, "--force").exit_code == 0


def shops(path: Path, column: str, names: Sequence[str]) -> Path:
    """Rows of which a column names the model; the first name has most of them."""
    at = [f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}Z" for i in range(400)]
    told = [names[max(0, i % 7 - 4) % len(names)] for i in range(400)]
    return write_table(path, id=[f"r{i}" for i in range(400)], ts=at, **{column: told})


@pytest.mark.parametrize(("column", "options"), [("model", ()), ("service", ("--model", "service"))])
def test_a_column_that_names_several_models_makes_them_all_and_every_row_is_taken(
    tmp_path: Path, column: str, options: tuple[str, ...]
) -> None:
    source, target = shops(tmp_path / "calls.csv", column, ["bank", "shop"]), tmp_path / "calls.yml"
    done = init(source, target, *options)
    assert done.exit_code == 0, done.stderr
    assert list(load_config(target).models) == ["bank", "shop"]
    assert "2 models, 2 features" in done.stderr
    (command,) = re.findall(r"#   driftline publish (.*)", target.read_text())
    replayed = CliRunner().invoke(cli, ["replay", str(source), *command.split()[1:], "--what", "snapshots"])
    assert replayed.exit_code == 0, replayed.stderr
    assert "unknown model" not in replayed.stderr


def test_one_of_several_models_is_taken_by_its_name_and_a_name_of_none_is_that_of_all_rows(tmp_path: Path) -> None:
    source, target = shops(tmp_path / "calls.csv", "model", ["bank", "shop"]), tmp_path / "calls.yml"
    for name, kept in (("shop", True), ("other", False)):
        assert init(source, target, "--model", name, "--force").exit_code == 0
        assert list(load_config(target).models) == [name]
        assert ("2 models in the sample; the rows of others are skipped" in target.read_text()) is kept
        assert target.read_text().count("--model model") == kept


def test_parquet_and_csv_of_the_same_rows_give_the_same_models(transactions: Path, tmp_path: Path) -> None:
    table = pyarrow.csv.read_csv(transactions)
    parquet = tmp_path / "transactions.parquet"
    pyarrow.parquet.write_table(table, parquet)
    init(transactions, tmp_path / "a.yml")
    init(parquet, tmp_path / "b.yml")
    assert load_config(tmp_path / "a.yml").models == load_config(tmp_path / "b.yml").models


@pytest.mark.parametrize("name", ["no", "y", "on", "1e5", "a: b", "x#y", 'quo"te', "null", "übung", "a.b"])
def test_names_that_yaml_would_misread_survive(tmp_path: Path, name: str) -> None:
    table = pa.table({name: [0.5 * i for i in range(100)], "other": [float(i % 7) for i in range(100)]})
    source = tmp_path / "odd.parquet"
    pyarrow.parquet.write_table(table, source)
    target = tmp_path / "odd.yml"
    done = init(source, target)
    assert done.exit_code == 0, done.stderr
    features = load_config(target).models["odd"].features or {}
    written = yaml.safe_load(target.read_text())
    assert "other" in features
    assert isinstance(written, dict)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "empty.csv"
    source.write_text("a,b\n")
    assert init(source, tmp_path / "x.yml").exit_code != 0
    assert not (tmp_path / "x.yml").exists()


def test_features_that_go_together_are_suggested_as_correlations_that_validate(tmp_path: Path) -> None:
    g = np.random.default_rng(4)
    base = g.normal(size=2_000)
    columns: dict[str, Any] = {
        "net": np.round(np.exp(base), 3),
        "gross": np.round(np.exp(-base + 0.3 * g.normal(size=2_000)), 3),
        "items": np.floor(np.exp(0.5 * base + g.normal(size=2_000))) + 0.5,
        "cents": np.round(np.exp(base), 3) * 100,
        "alone": np.round(g.normal(size=2_000), 3),
    }
    columns["gross"][::7] = np.nan
    path = tmp_path / "shop.csv"
    pa.csv.write_csv(pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()}), path)
    target = tmp_path / "shop.yml"
    assert init(path, target).exit_code == 0
    text = target.read_text()
    told = dict(re.findall(r"#   - \[(\w+, \w+)\]     # (-?[\d.]+)", text))
    expected = {}
    for a, b in (("net", "gross"), ("gross", "cents"), ("net", "items"), ("items", "cents"), ("gross", "items")):
        both = ~(np.isnan(columns[a]) | np.isnan(columns[b]))
        expected[f"{a}, {b}"] = float(stats.spearmanr(columns[a][both], columns[b][both])[0])
    # Net and cents are one column in two units: the one tells all of the other.
    assert {pair: float(r) for pair, r in told.items()} == {pair: pytest.approx(r, abs=0.02) for pair, r in expected.items()}
    assert load_config(target).models["shop"].correlations == []
    block = re.search(r"    # correlations:.*\n(    #   - .*\n)+", text)
    assert block is not None
    target.write_text(text.replace(block[0], re.sub(r"^    # ", "    ", block[0], flags=re.MULTILINE)))
    assert [", ".join(pair) for pair in load_config(target).models["shop"].correlations] == list(told)


def test_a_block_of_the_numbers_and_one_of_each_embedding_are_suggested_and_validate(tmp_path: Path) -> None:
    g = np.random.default_rng(5)
    columns: dict[str, Any] = {name: g.normal(size=500).round(3) for name in ("net", "gross", "weight_kg")}
    columns["text"] = [None if k % 9 == 0 else g.normal(size=16).round(3).tolist() for k in range(500)]
    columns["tags"] = [["a", "b"][: k % 3] for k in range(500)]
    path, target = tmp_path / "shop.parquet", tmp_path / "shop.yml"
    pa.parquet.write_table(pa.table(columns), path)
    assert init(path, target).exit_code == 0
    text = target.read_text()
    assert load_config(target).models["shop"].blocks == {}
    block = re.search(r"    # blocks:.*\n(    #   .*\n)+?(?=    [^#]|    # [a-z])", text)
    assert block is not None
    assert "with text: {kind: vector, length: 16} among the features" in block[0]
    named = text.replace(block[0], re.sub(r"^    # ", "    ", block[0], flags=re.MULTILINE))
    target.write_text(named.replace("    features: ", "    features:\n      text: {kind: vector, length: 16} #", 1))
    blocks = load_config(target).models["shop"].blocks
    assert {name: one.features for name, one in blocks.items()} == {"all": ["net", "gross", "weight_kg"], "text": ["text"]}


def test_columns_that_do_not_go_together_are_not_suggested(transactions: Path, tmp_path: Path) -> None:
    target = tmp_path / "fraud.yml"
    assert init(transactions, target).exit_code == 0
    assert "correlations" not in target.read_text()
