"""Read incidents with confluent-kafka alone, each change once: print what a pager would act on, one page a change of a model.

    python examples/subscribe_incidents.py --bootstrap localhost:9092

The topic is compacted and its records may come again: keep the last `seq` of each id and ignore what is not above it.
Page when an incident opens as a warning and when it becomes louder, resolve the page when it resolves; the lines between are for
whoever looks at it already.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from confluent_kafka import Consumer, Message

RANK = {"info": 0, "warning": 1, "critical": 2}


class Incidents:
    """The last state of each incident."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Any]] = {}

    def news(self, message: Message) -> tuple[str, dict[str, Any]] | None:
        """What to do, and the incident: ``page``, ``update`` or ``resolve``; None for a record that says nothing new."""
        incident: dict[str, Any] = json.loads(message.value() or b"")
        last = self._last.get(incident["id"])
        if last is not None and incident["seq"] <= last["seq"]:
            return None
        self._last[incident["id"]] = incident
        if RANK[incident["max_severity"]] < RANK["warning"]:
            return "update", incident   # nobody was paged, so nothing is to be resolved
        if incident["condition"] == "resolved":
            return "resolve", incident
        if last is None or last["historical"] or RANK[incident["max_severity"]] > RANK[last["max_severity"]]:
            return "page", incident
        return "update", incident


def main() -> None:
    arguments = parse()
    consumer = Consumer({
        "bootstrap.servers": arguments.bootstrap,
        "group.id": arguments.group,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    })
    consumer.subscribe([arguments.topic])
    incidents = Incidents()
    quiet_since = time.monotonic()
    while arguments.exit_after is None or time.monotonic() - quiet_since < arguments.exit_after:
        message = consumer.poll(0.5)
        if message is None or message.error() is not None or message.value() is None:
            continue
        quiet_since = time.monotonic()
        news = incidents.news(message)
        # `historical` ones come from events that were read as history at the first start: true, but nobody's pager.
        if news is not None and not news[1]["historical"]:
            action, incident = news
            print(f"{action:7} {incident['severity']:8} {incident['summary']}", flush=True)
    consumer.close()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default="localhost:9092")
    parser.add_argument("--topic", default="driftline.incidents")
    parser.add_argument("--group", default="incident-printer")
    parser.add_argument("--exit-after", type=float, help="end after this many quiet seconds (default: never)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
