"""The program as a user runs it on a secured Kafka and Redis: each processor and command with its documented rights and no others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.cli.rights import redis_acl
from driftline.schemas.config import Redis
from driftline.schemas.loading import load_config, parse_config
from driftline.streams.redis_client import connect
from tests.secure.broker import SecuredKafka
from tests.secure.certificates import Authority
from tests.secure.installation import COLUMNS, USERS, Installation, secret_of, write_rows
from tests.secure.test_redis_tls import server

PROCESSORS = ("ingest", "join", "detect", "alert")
RESCALE = "state rescale"
WIDER = {
    "topics: {prefix: secured, partitions: 1}": "topics: {prefix: secured-wider, partitions: 2}",
    "key_prefix: secured\n": "key_prefix: secured-wider\n",
}
"""The same installation with topics of more partitions."""


@pytest.fixture(scope="module")
def installation(broker: SecuredKafka, ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Everybody has his rights; topics of predictions and labels are there."""
    with server(ours.issue("redis"), ours) as (running, port):
        made = Installation(tmp_path_factory.mktemp("installation"), "secured", broker, port, ours)
        made.grant({who: user for who, user in USERS.items() if who != RESCALE})
        made.kafka.add_user(USERS[RESCALE], secret_of(USERS[RESCALE]))
        made.allow({"state": USERS[RESCALE]})
        made.allow({RESCALE: USERS[RESCALE], "topics create": USERS["topics create"]}, **WIDER)
        admin = connect(Redis(url=running.url), timeout_seconds=5)
        admin.execute_command(*made.redis_user())
        admin.execute_command("ACL", "SETUSER", "default", "off")
        admin.close()
        broker.create_topics(f"{made.name}-predictions", f"{made.name}-labels")
        yield made


def test_everything_runs_with_the_documented_rights_and_says_no_secret(installation: Installation, tmp_path: Path) -> None:
    run = installation
    of = {who: run.config(user) for who, user in USERS.items()}
    write_rows(tmp_path / "rows.csv")

    run.driftline("validate", of["ingest"])
    run.driftline("topics", "create", of["topics create"])
    run.driftline("topics", "create", of["topics create"], "--print")
    run.driftline("publish", tmp_path / "rows.csv", "-c", of["publish"], *COLUMNS)
    for processor in PROCESSORS:
        run.driftline("run", of[processor], "--processors", processor, "--until-idle", "1", "--log-level", "DEBUG")
    found = [json.loads(line) for line in tail(run, of, "drift")]
    assert {"feature:amount", "outcome:log_loss"} <= {event["series"] for event in found}
    assert tail(run, of, "alerts")
    reader = of["status, tail, picture"]
    status = json.loads(run.driftline("status", reader, "-o", "json"))
    groups = ["ingest", "join-120000ms", "detect", "alert"]
    assert {group["processor"]: group["lag"] for group in status["groups"]} == dict.fromkeys(groups, 0)
    assert status["dead_letters"]["newest"] is not None
    assert [source["topic"] for source in status["sources"]]
    run.driftline("status", reader)
    run.driftline("tail", "dlq", reader, "--from", "earliest", "--until-idle", "0")
    run.driftline("picture", reader, "--out", tmp_path / "picture.html")
    state = of["state"]
    rows = [json.loads(line) for line in run.driftline("state", "inspect", "-c", state, "-o", "json").splitlines()]
    assert {row["fit"] for row in rows} == {"fits"}
    run.driftline("state", "export", "-c", state, "-o", tmp_path / "all.savepoint")
    run.driftline("topics", "create", run.config(USERS["topics create"], **WIDER))
    wider = run.config(USERS[RESCALE], **WIDER)
    run.driftline("state", "rescale", "-c", wider, tmp_path / "all.savepoint", "-o", tmp_path / "wider.savepoint")
    run.driftline("state", "import", "-c", state, tmp_path / "all.savepoint", "--replace")
    for processor in PROCESSORS:
        # After the import, and once more over what is there: recovery has its rights too.
        run.driftline("run", of[processor], "--processors", processor, "--until-idle", "1", "--log-level", "DEBUG", "--log-format", "json")
    assert len(tail(run, of, "drift")) == len(found)

    written = [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()]
    assert_silent(run, [*run.said, *written])


def tail(run: Installation, of: dict[str, Path], what: str) -> list[str]:
    lines = run.driftline("tail", what, of["status, tail, picture"], "--from", "earliest", "--until-idle", "2", "-o", "json")
    return lines.splitlines()


def assert_silent(run: Installation, texts: list[str]) -> None:
    """No secret, and no piece of one, in anything that was said or written."""
    for text in texts:
        for secret in run.secrets():
            assert secret not in text
            assert json.dumps(secret)[1:-1] not in text
            assert repr(secret)[1:-1] not in text


COMMANDS = [
    ("topics", "create", "CONFIG"),
    ("status", "CONFIG"),
    ("tail", "drift", "CONFIG", "--until-idle", "0"),
    ("state", "inspect", "-c", "CONFIG"),
    *(("run", "CONFIG", "--processors", processor, "--until-idle", "0", "--log-level", "DEBUG") for processor in PROCESSORS),
    ("run", "CONFIG", "--until-idle", "0", "--log-level", "DEBUG"),
]
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: "-".join(word.strip("-") for word in words[:4]))
def test_a_wrong_password_ends_every_command_with_one_clear_line(installation: Installation, command: tuple[str, ...]) -> None:
    run = installation
    config = run.config("svc-state", PASSWORD_SVC_STATE="WRONG_PASSWORD")
    said = run.driftline(*(str(config) if word == "CONFIG" else word for word in command), code=2)
    assert "refuses the user or the password" in said
    assert "hint: check sasl.username, sasl.password" in said
    assert "Traceback" not in said
    assert_silent(run, [said])


def test_a_wrong_authority_of_kafka_and_a_wrong_password_of_redis_end_a_worker(installation: Installation, strange: Authority) -> None:
    run = installation
    authority = run.config("svc-state", **{f"ssl.ca.location: {run.authority.file}": f"ssl.ca.location: {strange.file}"})
    assert "certificate is not trusted" in run.driftline("run", authority, "--processors", "detect", code=2)
    (run.folder / "wrong-password").write_text("S3cr#t/wrong:\"%@")
    password = run.config("svc-detect", **{"redis-password": "wrong-password"})
    for processor in ("detect", "alert"):
        said = run.driftline("run", run.config(USERS[processor], **{"redis-password": "wrong-password"}), "--processors", processor, code=2)
        assert len(re.findall("refuses the user or the password", said)) == 1
        assert "hint: check redis.username and redis.password" in said
    assert "refuses the user or the password" in run.driftline("run", password, "--processors", "detect", "--time", "data", code=2)
    assert_silent(run, run.said)


def test_a_missing_right_is_named_and_ends_the_worker(installation: Installation) -> None:
    run = installation
    run.kafka.add_user("svc-poor", 'S3cr#t/svc-ingest:"%@')
    poor = run.config("svc-poor", PASSWORD_SVC_POOR="PASSWORD_SVC_INGEST")
    said = run.driftline("run", poor, "--processors", "ingest", "--until-idle", "0", code=2)
    assert "hint:" in said
    assert "topics create" in said
    assert "Traceback" not in said


def test_the_example_of_the_page_connects(installation: Installation, tmp_path: Path) -> None:
    """The YAML of "Secured clusters", with this test's hosts and files in it."""
    run = installation
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text("utf-8").partition("## Secured clusters")[2]
    example = page.partition("```yaml\n")[2].partition("```")[0]
    for written, here in (
        ("kafka-1.internal:9093,kafka-2.internal:9093", run.kafka.sasl),
        ("sasl.username: driftline", "sasl.username: svc-reader"),
        ("username: driftline", f"username: {run.name}"),
        ("KAFKA_PASSWORD", "PASSWORD_SVC_READER"),
        ("redis.internal:6380", f"localhost:{run.redis_port}"),
        ("/run/secrets/redis_password", str(run.folder / "redis-password")),
        ("/etc/driftline/ca.pem", str(run.authority.file)),
    ):
        assert written in example
        example = example.replace(written, here)
    config = tmp_path / "example.yml"
    config.write_text(f"{example}topics: {{prefix: {run.name}}}\npredictions: {run.name}-predictions\nmodels: {{m: {{}}}}\n")
    run.driftline("topics", "create", run.config(USERS["topics create"]))
    assert f"{run.name}.ingest" in run.driftline("status", config)
    connect(load_config(config).redis, timeout_seconds=5).ping()
    assert redis_acl(parse_config("predictions: p\nmodels: [m]\n", name="m.yml")) in page


PUBLISHER = """
import logging, os, sys
from driftline.publish import Publisher
logging.basicConfig(level=logging.DEBUG)
properties = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "svc-sender",
              "sasl.password": os.environ[sys.argv[3]], "ssl.ca.location": sys.argv[2], "delivery.timeout.ms": 5000}
with Publisher(sys.argv[1], "secured-predictions", "secured-labels", properties=properties) as publisher:
    publisher.prediction(id="a", model="m", features={"amount": 1.0}, score=0.5)
    publisher.label(id="a", label=True)
    publisher.flush(20)
    print(publisher.delivered, publisher.failed, repr(publisher))
"""


@pytest.mark.parametrize(("password", "delivered"), [("PASSWORD_SVC_SENDER", "2 0"), ("WRONG_PASSWORD", "0 2")])
def test_a_model_service_publishes_and_learns_why_it_cannot(installation: Installation, password: str, delivered: str) -> None:
    run = installation
    command = [sys.executable, "-c", PUBLISHER, run.kafka.sasl, str(run.authority.file), password]
    done = subprocess.run(command, capture_output=True, timeout=120, env=run.environment(), text=True, check=True)
    assert done.stdout.startswith(delivered)
    if password == "WRONG_PASSWORD":
        assert done.stderr.count("publisher_refused") == 1
        assert "invalid credentials" in done.stderr
    assert_silent(run, [done.stdout, done.stderr])
