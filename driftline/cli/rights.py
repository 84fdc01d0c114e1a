"""The rights that each processor and command needs: of Kafka's authorizer, and of a Redis user.

What is listed is what is needed: tests/secure/test_rights.py runs every processor and command as a user of its own that
has its rows and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from driftline.schemas import topics as t
from driftline.schemas.config import Config
from driftline.streams.redis_client import COMMANDS, key_patterns
from driftline.streams.wiring import inputs_of, needed, outputs_of, sources_of, topics_of

Row = dict[str, Any]

READERS = "status, tail, picture"
SENDERS = "publish"
CREATORS = "topics create"
STATE = "state"
RESCALE = "state rescale"


def acls(config: Config) -> list[Row]:
    """Rows of who, resource, name, pattern and operations, for a user each; one user for several takes all of their rows."""
    rows: list[Row] = []
    for processor in needed(config):
        rows += _processor(config, processor)
    rows += [*_readers(config), *_senders(config), *_creators(config), *_state(config), *_rescale(config)]
    return rows


def redis_acl(config: Config) -> str:
    """The line that makes the Redis user of all processors and commands, but for its password."""
    patterns = " ".join(f"~{pattern}" for pattern in key_patterns(config.redis))
    user = config.redis.username or "driftline"
    return f"ACL SETUSER {user} on >PASSWORD resetkeys {patterns} -@all " + " ".join(f"+{command}" for command in COMMANDS)


def _processor(config: Config, processor: str) -> Iterator[Row]:
    group = f"{config.kafka.group_prefix}.{processor}"
    reads, writes = set(inputs_of(processor, config)), set(outputs_of(processor, config))
    for topic in topics_of(processor, config):
        operations = ["Read"] * (topic in reads) + ["Write"] * (topic in writes) + ["Describe"]
        # Whether it keeps records long enough is asked at start.
        operations += ["DescribeConfigs"] * (processor != "alert" and topic in _kept(config))
        yield _row(processor, "topic", topic, "literal", operations)
    yield _row(processor, "group", group, "prefixed", ["Read", "Describe"])
    if config.kafka.guarantee == "exactly_once" and processor != "alert":
        yield _row(processor, "transactional-id", group, "prefixed", ["Write", "Describe"])


def _kept(config: Config) -> set[str]:
    return {topic.full_name(config.topics.prefix) for topic in (t.OBSERVATIONS, t.WAITING, t.LABELS)}


def _readers(config: Config) -> Iterator[Row]:
    ours = (t.DRIFT, t.SNAPSHOTS, t.ALERTS, t.INCIDENTS, t.DEAD_LETTERS, t.OBSERVATIONS, t.WAITING, t.LABELS)
    names = (topic.full_name(config.topics.prefix) for topic in ours)
    # A lag of a few offsets may be markers of transactions alone: status reads them.
    for topic in dict.fromkeys([*names, *sources_of(config)]):
        yield _row(READERS, "topic", topic, "literal", ["Read", "Describe"])
    yield _row(READERS, "group", f"{config.kafka.group_prefix}.", "prefixed", ["Describe"])


def _senders(config: Config) -> Iterator[Row]:
    for topic in dict.fromkeys(sources_of(config)):
        yield _row(SENDERS, "topic", topic, "literal", ["Write", "Describe", "DescribeConfigs"])


def _creators(config: Config) -> Iterator[Row]:
    yield _row(CREATORS, "topic", f"{config.topics.prefix}.", "prefixed", ["Create", "Describe"])


def _state(config: Config) -> Iterator[Row]:
    for topic in dict.fromkeys(topic for name in needed(config) for topic in topics_of(name, config)):
        yield _row(STATE, "topic", topic, "literal", ["Read", "Describe"])
    yield _row(STATE, "group", f"{config.kafka.group_prefix}.", "prefixed", ["Read", "Describe"])


def _rescale(config: Config) -> Iterator[Row]:
    """On the new topics; of the old ones it needs what `STATE` has."""
    filled, emptied = (t.WAITING, t.LABELS, t.ALERTS, t.INCIDENTS), (t.WAITING, t.LABELS)
    for topic in t.TOPICS:
        operations = ["Read"] + ["Write"] * (topic in filled) + ["Delete"] * (topic in emptied) + ["Describe"]
        yield _row(RESCALE, "topic", topic.full_name(config.topics.prefix), "literal", operations)
    for name in sources_of(config):
        yield _row(RESCALE, "topic", name, "literal", ["Describe"])
    yield _row(RESCALE, "group", f"{config.kafka.group_prefix}.", "prefixed", ["Read", "Describe"])
    yield _row(RESCALE, "transactional-id", f"{config.kafka.group_prefix}.rescale", "literal", ["Write", "Describe"])


def _row(who: str, resource: str, name: str, pattern: str, operations: list[str]) -> Row:
    return {"who": who, "resource": resource, "name": name, "pattern": pattern, "operations": ", ".join(operations)}
