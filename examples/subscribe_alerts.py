"""Read alerts with confluent-kafka alone, each change once: print what a pager would act on.

    python examples/subscribe_alerts.py --bootstrap localhost:9092

The topic is compacted: a reader that starts at its beginning gets the last state of every alert there ever was, and
may see a state again. So keep the last state of each fingerprint and ignore what is not news.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from confluent_kafka import Consumer, Message


class Alerts:
    """The last state of each alert; `news` is the alert if the record tells something new, else None."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Any]] = {}
        self._ids: dict[str, str] = {}

    def news(self, message: Message) -> dict[str, Any] | None:
        headers: dict[str, Any] = dict(message.headers() or [])
        alert: dict[str, Any] = json.loads(message.value() or b"")
        fingerprint, event_id = alert["fingerprint"], headers["ce_id"].decode()
        if self._ids.get(fingerprint) == event_id:
            return None   # published again
        last = self._last.get(fingerprint)
        if last is not None:
            if alert["episode"] == last["episode"] and alert["seq"] <= last["seq"]:
                return None   # an older state of the same episode
            if alert["episode"] != last["episode"] and alert["detected_at_ms"] < last["detected_at_ms"]:
                return None   # an older episode
        self._last[fingerprint], self._ids[fingerprint] = alert, event_id
        return alert


def main() -> None:
    arguments = parse()
    consumer = Consumer({
        "bootstrap.servers": arguments.bootstrap,
        "group.id": arguments.group,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    })
    consumer.subscribe([arguments.topic])
    alerts = Alerts()
    quiet_since = time.monotonic()
    while arguments.exit_after is None or time.monotonic() - quiet_since < arguments.exit_after:
        message = consumer.poll(0.5)
        if message is None or message.error() is not None or message.value() is None:
            continue
        quiet_since = time.monotonic()
        alert = alerts.news(message)
        # `historical` alerts come from events that were read as history at the first start: true, but nobody's pager.
        if alert is not None and not alert["historical"]:
            print(f"{alert['condition']:8} {alert['severity']:8} {alert['summary']}", flush=True)
    consumer.close()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default="localhost:9092")
    parser.add_argument("--topic", default="driftline.alerts")
    parser.add_argument("--group", default="alert-printer")
    parser.add_argument("--exit-after", type=float, help="end after this many quiet seconds (default: never)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
