"""Commands beside a stream that moves: `publish` at a pace, `tail` that follows, `baseline build` from topics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Producer, TopicPartition

from driftline.cli.main import cli
from tests.cli.streams_for_tests import COLUMN_OPTIONS, NO_LABEL_OPTIONS, START_MS, config_text, write_transactions
from tests.conftest import CreateTopics, Kafka

ROOT = Path(__file__).parents[2]
VALID = ROOT / "tests" / "contracts" / "drift" / "valid" / "drift.json"


@pytest.fixture
def config(kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> Path:
    path = tmp_path / "fraud.yml"
    path.write_text(config_text(labels=True, bootstrap=kafka.bootstrap, redis=redis_url, prefix=topic_prefix))
    return path


def invoke(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(cli, [str(word) for word in arguments])
    assert done.exit_code == 0, done.stderr
    return done


def records(kafka: Kafka, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader"})
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
    consumer.close()
    return int(high - low)


@pytest.mark.parametrize(
    ("pace", "columns", "seconds"),
    [
        (["--rate", "50"], COLUMN_OPTIONS, 59 / 50),  # 60 rows; their 60 labels, minutes later, need no time of their own
        (["--speed", "50"], NO_LABEL_OPTIONS, 59 / 50),  # a row a second of event time
    ],
)
def test_publish_sends_every_row_no_faster_than_asked(
    pace: list[str], columns: list[str], seconds: float, create_topics: CreateTopics, kafka: Kafka, tmp_path: Path
) -> None:
    predictions, labels = create_topics("p", "l", config={"retention.ms": "-1"})
    rows = write_transactions(tmp_path / "t.csv", 60)
    topics = ["--topic", predictions, "--labels-topic", labels, "-b", kafka.bootstrap, "--model", "m"]
    begun = time.monotonic()
    sent = json.loads(invoke("publish", rows, *columns, *topics, *pace, "-o", "json").stdout)
    took = time.monotonic() - begun
    expected = 60 if columns == COLUMN_OPTIONS else 0
    assert (sent["predictions"], sent["labels"]) == (60, expected)
    assert (records(kafka, predictions), records(kafka, labels)) == (60, expected)
    assert took >= seconds


@pytest.mark.parametrize("pace", [["--rate", "0"], ["--speed", "-1"], ["--rate", "1", "--speed", "1"]])
def test_a_pace_that_cannot_be_is_refused(pace: list[str], tmp_path: Path) -> None:
    rows = write_transactions(tmp_path / "t.csv", 2)
    done = CliRunner().invoke(cli, ["publish", str(rows), *NO_LABEL_OPTIONS, "--topic", "p", "--model", "m", *pace])
    assert done.exit_code == 2
    assert pace[0] in done.stderr


def test_tail_follows_what_is_committed_and_ends_after_the_events_asked_for(config: Path, kafka: Kafka, topic_prefix: str) -> None:
    invoke("topics", "create", config)
    topic = f"{topic_prefix}.drift"
    event = json.loads(VALID.read_bytes())["message"]
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic_prefix})
    producer.init_transactions(30)

    def write(*names: str, commit: bool = True) -> None:
        producer.begin_transaction()
        for name in names:
            producer.produce(topic, orjson.dumps({**event, "id": name}))
        producer.flush(30)
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)

    write("before it began")
    command = [sys.executable, "-m", "driftline", "tail", "drift", str(config), "-n", "3", "-o", "json"]
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"})
    try:
        written: list[str] = []
        deadline = time.monotonic() + 60
        while tail.poll() is None:  # it says nothing when it has begun, so events come until it has had enough
            assert time.monotonic() < deadline
            write("aborted", commit=False)
            written += [f"{len(written)}", f"{len(written) + 1}"]
            write(*written[-2:])
            time.sleep(0.2)
        out, errors = tail.communicate(timeout=30)
    finally:
        tail.kill()
    assert tail.returncode == 0, errors.decode()
    shown = [json.loads(line)["id"] for line in out.splitlines()]
    first = written.index(shown[0])
    assert shown == written[first : first + 3]
    assert [orjson.loads(line) for line in out.splitlines()] == [{**event, "id": name} for name in shown]


def test_dead_letters_are_told_in_the_log_in_status_and_by_tail(config: Path, kafka: Kafka, topic_prefix: str) -> None:
    invoke("topics", "create", config, "--sources")
    assert json.loads(invoke("status", config, "-o", "json").stdout)["dead_letters"]["newest"] == 0
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for value in (b"{oops", b'{"model":"fraud","features":{}}', b'{"model":"fraud","id":[1]}', b"\xff\xfe"):
        producer.produce(f"{topic_prefix}-in.predictions", value, key=b"k")
    assert producer.flush(30) == 0
    command = [sys.executable, "-m", "driftline", "run", str(config), "--processors", "ingest", "--until-idle", "1"]
    ran = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, timeout=300)
    log = ran.stderr.decode()
    assert ran.returncode == 0, log
    assert "dead_lettered reason=decode records=" in log
    assert '"id": expected a text or a number' in log.replace("\\", "")
    told = json.loads(invoke("status", config, "-o", "json").stdout)["dead_letters"]
    assert (told["newest"], told["reasons"]) == (4, {"decode": 2, "id": 2})
    shown = invoke("status", config).stdout
    assert "dead letters: 4 among the newest of their topic (decode 2, id 2)" in shown
    assert f"driftline tail dlq {config}" in shown
    tail = ["tail", "dlq", str(config), "--from", "earliest", "--until-idle", "0"]
    letters = [json.loads(line) for line in invoke(*tail, "-o", "json").stdout.splitlines()]
    assert [(letter["offset"], letter["reason"], letter["stage"], letter["key"]) for letter in letters] == [
        (0, "decode", "ingest", "k"), (1, "id", "ingest", "k"), (2, "id", "ingest", "k"), (3, "decode", "ingest", "k"),
    ]  # fmt: skip
    assert (letters[0]["value"], letters[3]["value_base64"]) == ("{oops", "//4=")
    header, *lines = invoke(*tail).stdout.splitlines()
    assert header.split() == ["time", "stage", "reason", "record", "error"]
    assert f"{topic_prefix}-in.predictions/0:0" in lines[0]


def test_a_baseline_from_topics_is_the_one_from_the_file_that_was_sent(config: Path, tmp_path: Path) -> None:
    rows = write_transactions(tmp_path / "past.csv", 3_000)
    invoke("topics", "create", config, "--sources")
    invoke("publish", rows, "-c", config, *COLUMN_OPTIONS)

    def built(name: str, *options: str | Path) -> dict[str, tuple[str, int]]:
        done = invoke("baseline", "build", config, *options, "-o", tmp_path / f"{name}.json", "--format", "json")
        return {row["panel"]: (row["id"], row["rows"]) for row in map(json.loads, done.stdout.splitlines())}

    from_file = built("file", "--from-file", rows, *COLUMN_OPTIONS)
    from_topic = built("topic", "--from-topic")
    assert from_topic == from_file
    assert set(from_topic) == {"features", "scores", "outcomes"}

    begin, end = ((START_MS + second * 1_000) // 1_000 for second in (1_000, 2_500))
    times = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)) for second in (begin, end)]
    part = built("part", "--from-topic", "--from", times[0], "--to", times[1])
    assert {panel: count for panel, (_, count) in part.items()} == dict.fromkeys(part, 1_500)
    tail = built("tail", "--from-topic", "--from", "2900")
    assert tail["features"][1] == 100
