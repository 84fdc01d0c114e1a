"""Rows of models that the configuration does not name, among the newest of the users' topics: for `status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from driftline.cli.errors import Refusal

if TYPE_CHECKING:
    from driftline.schemas.config import Config

_RECORDS: Final = 2_000
"""Newest records of a topic that are looked at."""


def unnamed_models(config: Config) -> list[dict[str, Any]]:
    """Of each topic of predictions that has such rows: how many, of how many, and the models' names, commonest first.

    A topic that cannot be read by this user, or is not there, is left out: the other lines need no right to it.
    """
    from confluent_kafka import KafkaException

    from driftline.streams.kafka import needs_a_person

    found = []
    for source in config.predictions:
        try:
            seen, names = _names(config, source.topic, source.fields.model)
        except (Refusal, KafkaException) as error:
            if isinstance(error, KafkaException) and not needs_a_person(error.args[0]):
                raise
            continue
        if names:
            found.append({"topic": source.topic, "rows": names.total(), "of": seen, "models": [name for name, _ in names.most_common()]})
    return found


def _names(config: Config, topic: str, place: str) -> tuple[int, Counter[str]]:
    """Records that were looked at, and the names among them that are not configured."""
    from driftline.cli.kafka import partitions_of, read_topic
    from driftline.streams.ingest.decoder import model_named
    from driftline.streams.ingest.mapping import parse_path

    path, seen, names = parse_path(place), 0, Counter[str]()
    if path.origin == "const":
        return 0, names
    tail = max(1, _RECORDS // partitions_of(config.kafka, topic))
    messages: Iterator[Any] = read_topic(config.kafka, topic, tail=tail)
    for message in messages:
        seen += 1
        name = model_named(path, message)
        if name and name not in config.models:
            names[name] += 1
    return seen, names


def unnamed_words(found: dict[str, Any], fate: str) -> str:
    """One line about a topic.

    Parameters
    ----------
    fate : `unknown_models` of the configuration.
    """
    from driftline.streams.ingest.unknown import NAME_SHOWN, fate_words

    others = f" and {len(found['models']) - 1:,} more" if len(found["models"]) > 1 else ""
    rows = f"{found['rows']:,} of the newest {found['of']:,} records of {found['topic']}"
    name = found["models"][0][:NAME_SHOWN]
    return f"unknown models: {rows} are of {name!r}{others}, which the configuration does not name: they are {fate_words(fate)}"
