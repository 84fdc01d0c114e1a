"""Files as messages: order in time, labels when they are due, what a cell that does not fit becomes."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from driftline.cli.main import cli
from driftline.schemas.config import Fields, LabelFields
from driftline.streams.delay import parse_delay
from driftline.streams.source_file import SourceFileError, column_names, read_batches
from driftline.streams.source_rows import Message, RowMapping, RowMessages, file_messages
from driftline.streams.source_score import parse_score_from
from tests.cli.streams_for_tests import START_MS, write_transactions

MAPPING = RowMapping(
    features=("amount", "age", "country"), model="fraud", id="txn_id", time="ts", score="score", label="is_fraud", label_time="label_at"
)


def messages(path: Path, mapping: RowMapping = MAPPING, **layout: Any) -> list[Message]:
    source = RowMessages(mapping, column_names(path), **layout)
    return [message for batch in file_messages(path, source) for message in batch]


@pytest.fixture(scope="module")
def transactions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transactions(tmp_path_factory.mktemp("rows") / "t.csv", 2_000)


def test_messages_come_in_the_order_of_time(transactions: Path) -> None:
    times = [message.time_ms for message in messages(transactions)]
    assert times == sorted(times)


def test_every_row_is_one_prediction_and_one_label(transactions: Path) -> None:
    found = messages(transactions)
    for side in ("prediction", "label"):
        assert sorted(m.row for m in found if m.side == side) == list(range(2_000))


def test_no_label_is_sent_before_its_prediction(transactions: Path) -> None:
    place = {(m.side, m.row): i for i, m in enumerate(messages(transactions))}
    assert all(place["prediction", row] < place["label", row] for row in range(2_000))


def test_a_prediction_carries_what_the_row_says(transactions: Path) -> None:
    first = messages(transactions)[0]
    event = json.loads(first.value)
    cells = transactions.read_text().splitlines()[1].split(",")
    assert first.key == b"t0000000"
    assert first.time_ms == START_MS == event["time"]
    assert event["features"] == {"amount": float(cells[2]), "age": float(cells[3]), "country": cells[4]}
    assert event["score"] == float(cells[8])


def test_gzip_and_parquet_give_the_same_messages_as_csv(transactions: Path, tmp_path: Path) -> None:
    packed, parquet = tmp_path / "t.csv.gz", tmp_path / "t.parquet"
    packed.write_bytes(gzip.compress(transactions.read_bytes()))
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(transactions), parquet)
    plain = messages(transactions)
    assert messages(packed) == plain
    assert [(m.side, m.row, m.time_ms) for m in messages(parquet)] == [(m.side, m.row, m.time_ms) for m in plain]


def test_the_cut_into_batches_changes_no_message(transactions: Path) -> None:
    whole = RowMessages(MAPPING, column_names(transactions))
    cut = RowMessages(MAPPING, column_names(transactions))
    (batch,) = read_batches(transactions)
    one = [*whole.feed(batch), *whole.finish()]
    parts = [m for at in range(0, 2_000, 37) for m in cut.feed(batch.slice(at).head(37))] + cut.finish()
    assert parts == one


@pytest.mark.parametrize(
    ("text", "mean_ms"),
    [("fixed:1d", 86_400_000), ("exp:2h", 7_200_000), ("uniform:1h,3h", 7_200_000), ("lognormal:1h,0.5", 3_600_000 * np.exp(0.125))],
)
def test_a_delay_distribution_has_the_mean_its_form_says(text: str, mean_ms: float) -> None:
    draws = parse_delay(text).draw(np.random.Generator(np.random.PCG64(1)), 200_000)
    assert draws.mean() == pytest.approx(mean_ms, rel=0.01)
    assert draws.min() >= 0


@pytest.mark.parametrize("text", ["", "exp", "exp:2", "gauss:1h", "uniform:3h,1h", "lognormal:1h", "lognormal:1h,x", "fixed:1h,2h"])
def test_a_delay_that_is_none_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="fixed:1d"):
        parse_delay(text)


def test_the_same_seed_gives_the_same_labels_however_rows_are_cut(transactions: Path) -> None:
    mapping = RowMapping(features=(), model="m", time="ts", label="is_fraud", label_delay=parse_delay("exp:1h"), seed=3)
    (batch,) = read_batches(transactions)
    whole, cut = RowMessages(mapping, column_names(transactions)), RowMessages(mapping, column_names(transactions))
    one = [*whole.feed(batch), *whole.finish()]
    assert [m for at in range(0, 2_000, 111) for m in cut.feed(batch.slice(at).head(111))] + cut.finish() == one


def test_messages_stand_where_the_configuration_reads_them(transactions: Path) -> None:
    fields = Fields(id="key", time="meta.at", time_unit="s", model="header:model", features="", score="out.p")
    found = messages(transactions, fields=fields, label_fields=LabelFields(id="txn", time="at", time_unit="iso", value="y"))
    prediction = next(m for m in found if m.side == "prediction")
    label = next(m for m in found if m.side == "label")
    event = json.loads(prediction.value)
    assert prediction.key == b"t0000000"
    assert dict(prediction.headers) == {"model": b"fraud"}
    assert event["meta"] == {"at": START_MS / 1_000}
    assert "p" in event["out"]
    assert {"amount", "age", "country"} <= event.keys()
    assert json.loads(label.value).keys() == {"txn", "at", "y"}


def test_a_cell_that_is_no_number_stays_text_and_keeps_its_row(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("x,z\n" + "1.5,01\n" * 98 + "oops,02\n,03\n")
    values = [json.loads(m.value)["features"]["x"] for m in messages(path, RowMapping(features=("x",), model="m"))]
    assert values[:98] == [1.5] * 98
    assert values[98:] == ["oops", None]


def test_a_configured_category_keeps_its_leading_zeros(tmp_path: Path) -> None:
    path = tmp_path / "zip.csv"
    path.write_text("zip\n01234\n90210\n")
    (batch,) = read_batches(path, as_text=frozenset({"zip"}))
    assert batch.columns["zip"].to_pylist() == ["01234", "90210"]


def test_a_row_without_a_time_keeps_its_place_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ts,x\n2024-01-01T00:00:00Z,1\nyesterday,2\n2024-01-01T00:00:02Z,3\n")
    source = RowMessages(RowMapping(features=("x",), model="m", time="ts"), ["ts", "x"])
    found = [m for batch in file_messages(path, source) for m in batch]
    assert [m.time_ms - found[0].time_ms for m in found] == [0, 0, 2_000]
    assert source.counts.bad_times == 1


@pytest.mark.parametrize(
    "cells",
    [
        ("2024-01-01", "2024-01-02"),
        ("1704067200", "1704153600"),
        ("1704067200000", "1704153600000"),
        ("1704067200000000", "1704153600000000"),
    ],
)
def test_times_are_read_as_iso_seconds_ms_and_us(tmp_path: Path, cells: tuple[str, str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ts\n" + "\n".join(cells) + "\n")
    found = messages(path, RowMapping(features=(), model="m", time="ts"))
    assert [m.time_ms for m in found] == [1_704_067_200_000, 1_704_153_600_000]


def test_a_column_that_is_not_there_is_named_with_those_that_are(transactions: Path) -> None:
    with pytest.raises(SourceFileError, match=r'no column "amont".*"amount"'):
        RowMessages(RowMapping(features=("amont",), model="m"), column_names(transactions))


def test_a_fitted_score_ranks_the_labels_and_skips_its_training_rows(transactions: Path) -> None:
    source = RowMessages(RowMapping(features=("amount", "age", "country"), model="m", label="is_fraud"), column_names(transactions))
    found = [m for batch in file_messages(transactions, source, score_from=parse_score_from("logistic:is_fraud:1000")) for m in batch]
    scores = {m.row: json.loads(m.value)["score"] for m in found if m.side == "prediction"}
    labels = {m.row: json.loads(m.value)["label"] for m in found if m.side == "label"}
    rows = sorted(scores)
    assert rows == list(range(1_000, 2_000))
    truth = np.array([labels[row] for row in rows])
    ranks = np.argsort(np.argsort([scores[row] for row in rows]))
    positives = truth.sum()
    auc = (ranks[truth == 1].sum() - positives * (positives - 1) / 2) / (positives * (len(rows) - positives))
    # the labels were drawn with probability logistic(1.5 x - 1): the best possible AUC of that is about 0.81
    assert auc > 0.78
    # and the intercept is right: on average the scores are the rate
    assert np.mean(list(scores.values())) == pytest.approx(truth.mean(), abs=0.05)


def test_the_only_model_of_a_configuration_is_its_name_even_where_a_column_has_it(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text("amount,fraud\n1.5,0\n2.5,1\n")
    (tmp_path / "fraud.yml").write_text("version: 1\npredictions: payments\nlabels: chargebacks\nmodels: {fraud: {}}\n")
    arguments = ["publish", str(path), "-c", str(tmp_path / "fraud.yml"), "--label", "fraud", "--print"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.stderr
    sent = [json.loads(line)["value"] for line in result.stdout.splitlines()]
    assert [event["model"] for event in sent if "features" in event] == ["fraud", "fraud"]
    assert [event["features"] for event in sent if "features" in event] == [{"amount": 1.5}, {"amount": 2.5}]


SEVERAL = """version: 1
predictions: payments
labels: chargebacks
models:
  fraud: {features: {amount: numeric}, unit: segments.card, segments: {country: {path: segments.country, max: 3}}}
  risk: {features: {age: numeric}}
"""


def test_models_that_a_column_tells_apart_send_the_features_and_units_of_the_configuration(tmp_path: Path) -> None:
    """The label is no feature only because nobody named it."""
    path = tmp_path / "payments.csv"
    path.write_text("amount,age,country,card,late_label,kind\n1.5,30,NL,c1,1,fraud\n2.5,40,DE,c2,0,risk\n")
    (tmp_path / "both.yml").write_text(SEVERAL)
    result = CliRunner().invoke(cli, ["publish", str(path), "-c", str(tmp_path / "both.yml"), "--model", "kind", "--print"])
    assert result.exit_code == 0, result.stderr
    sent = [json.loads(line)["value"] for line in result.stdout.splitlines()]
    assert [event["model"] for event in sent] == ["fraud", "risk"]
    assert [event["features"] for event in sent] == [{"amount": 1.5, "age": 30}, {"amount": 2.5, "age": 40}]
    assert [event["segments"] for event in sent] == [{"country": "NL", "card": "c1"}, {"country": "DE", "card": "c2"}]


def test_a_baseline_is_of_the_rows_of_its_model(tmp_path: Path) -> None:
    path, config = tmp_path / "payments.csv", tmp_path / "both.yml"
    rows = [f"{i % 7}.5,{i % 50},NL,c{i},{'fraud' if i % 3 else 'risk'}" for i in range(900)]
    path.write_text("\n".join(["amount,age,country,card,model", *rows]) + "\n")
    config.write_text(SEVERAL)

    def built(model: str) -> Result:
        target = str(tmp_path / "b.json")
        arguments = ["baseline", "build", str(config), "--from-file", str(path), "--model", model, "-o", target, "--force"]
        return CliRunner().invoke(cli, [*arguments, "--format", "json"])

    done = built("model=risk")
    assert done.exit_code == 0, done.stderr
    panels = {row["panel"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert (panels["features"]["model"], panels["features"]["rows"]) == ("risk", 300)
    # Every row as if it were of this model would be a baseline of two.
    mixed = built("risk")
    assert mixed.exit_code != 0
    assert "--model model=risk" in mixed.stderr
    assert "fraud" in built("model=nobody").stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--score", "country"], r'--score "country": expected numbers, got .(de|fr|us). in row 1'),
        (["--score", "score", "--latency", "comment"], r'--latency "comment": expected numbers, got .customer called'),
    ],
)
def test_a_column_of_text_is_no_score(transactions: Path, options: list[str], said: str) -> None:
    done = CliRunner().invoke(cli, ["publish", str(transactions), "--topic", "p", "--model", "m", "--print", *options])
    assert done.exit_code == 2
    assert re.search(said, done.stderr)
    assert not done.stdout


def test_numbers_that_a_file_has_as_text_are_scores(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"s": ["0.25", None, "1e-3"], "x": [1, 2, 3]}), path)
    found = messages(path, RowMapping(features=("x",), model="m", score="s"))
    assert [json.loads(message.value)["score"] for message in found] == [0.25, None, 0.001]
