"""A whole installation on a secured Kafka and Redis: who may do what, one configuration file a user, and every word that was said."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from driftline.cli.rights import acls, redis_acl
from driftline.schemas.loading import load_config
from tests.secure.broker import SecuredKafka
from tests.secure.certificates import Authority

ROWS, CHANGE = 2_400, 1_600
COLUMNS = ("--time", "at", "--label", "y", "--label-time", "y_at", "--score", "score", "--model", "m", "--drop", "y_at")


def secret_of(user: str) -> str:
    """Recognisable wherever it turns up, with characters that mean something to YAML, URLs and JAAS."""
    return f'S3cr#t/{user}:"%@'


def write_rows(path: Path) -> None:
    """A row a second; the amount moves and the labels turn against the score."""
    draw = np.random.default_rng(5)
    with path.open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(["at", "amount", "score", "y", "y_at"])
        for row in range(ROWS):
            score, changed = draw.beta(1, 4), row >= CHANGE
            label = int(draw.random() < (1 - score if changed else score))
            amount = round(draw.lognormal(3 + 1.5 * changed, 0.5), 3)
            writer.writerow([1_700_000_000 + row, amount, round(score, 6), label, 1_700_000_000 + row + 60])


@dataclass
class Installation:
    """Where it is, and what its programs said so far.

    Attributes
    ----------
    said : every line of output and log, the failures' too.
    """

    folder: Path
    name: str
    kafka: SecuredKafka
    redis_port: int
    authority: Authority
    said: list[str] = field(default_factory=list)

    def config(self, user: str, *, bootstrap: str | None = None, **replaced: str) -> Path:
        """The file of a user of Kafka; `replaced` texts for what stands in it."""
        path = self.folder / f"{self.name}-{user}-{len(list(self.folder.glob('*.yml')))}.yml"
        text = f"""
environment: {self.name}
kafka:
  bootstrap: "{bootstrap or self.kafka.sasl}"
  properties:
    security.protocol: SASL_SSL
    sasl.mechanism: SCRAM-SHA-512
    sasl.username: {user}
    sasl.password: {{env: {variable(user)}}}
    ssl.ca.location: {self.authority.file}
redis:
  url: rediss://localhost:{self.redis_port}/0
  username: {self.name}
  password: {{file: {self.folder}/redis-password}}
  ca_file: {self.authority.file}
  key_prefix: {self.name}
topics: {{prefix: {self.name}, partitions: 1}}
http: {{port: 0}}
predictions: {self.name}-predictions
labels: {self.name}-labels
models:
  m: {{features: {{amount: numeric}}, window: 300, snapshot_every: 300, labels: {{ages: [2m]}}, baseline: {{learn: 800, settle: 0s}}}}
"""
        for before, after in replaced.items():
            text = text.replace(before, after)
        path.write_text(text)
        return path

    def grant(self, users: dict[str, str]) -> None:
        """Make a user of Kafka for each who, with exactly the rows that `topics create --print` has for it."""
        for user in users.values():
            self.kafka.add_user(user, secret_of(user))
        self.allow(users)

    def allow(self, users: dict[str, str], **replaced: str) -> None:
        """Give users the rows of each who in the table of a configuration."""
        for row in acls(load_config(self.config("nobody", **replaced))):
            if row["who"] in users:
                self.kafka.allow(users[row["who"]], row["resource"], row["name"], row["pattern"], row["operations"].split(", "))

    def redis_user(self) -> list[str]:
        """The documented line, as words for the server."""
        (self.folder / "redis-password").write_text(secret_of("redis") + "\n")
        config = load_config(self.config("nobody"))
        return [word.replace("PASSWORD", secret_of("redis")) for word in redis_acl(config).split()]

    def driftline(self, *arguments: str | Path, code: int = 0) -> str:
        """A command that ends by itself; its output."""
        command = [sys.executable, "-m", "driftline", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, timeout=300, env=self.environment())
        out, err = done.stdout.decode(), done.stderr.decode()
        self.said += [out, err]
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{err[-3_000:]}"
        return out if code == 0 else err

    def environment(self) -> dict[str, str]:
        own = {variable(user): secret_of(user) for user in USERS.values()}
        return {**os.environ, **own, "NO_COLOR": "1", "WRONG_PASSWORD": secret_of("wrong")}

    def secrets(self) -> Iterator[str]:
        """What must stand nowhere, and pieces of it."""
        for user in (*USERS.values(), "redis", "wrong"):
            yield secret_of(user)
            yield secret_of(user).partition("/")[2]


USERS = {
    "ingest": "svc-ingest", "join": "svc-join", "detect": "svc-detect", "alert": "svc-alert", "status, tail, picture": "svc-reader",
    "publish": "svc-sender", "topics create": "svc-creator", "state": "svc-state",
    "state rescale": "svc-rescaler",
}  # fmt: skip
"""Who in the table of rights, and the user that is given its rows."""


def variable(user: str) -> str:
    return "PASSWORD_" + user.replace("-", "_").upper()
