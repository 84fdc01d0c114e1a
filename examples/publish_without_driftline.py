"""The same with confluent-kafka alone: a prediction and a label are JSON records, nothing more.

python examples/publish_without_driftline.py --bootstrap localhost:9092
"""

from __future__ import annotations

import argparse
import json
import random
import time

from confluent_kafka import Producer


def main() -> None:
    arguments = parse()
    chance = random.Random(arguments.seed)
    failed = 0

    def delivered(error: object, _message: object) -> None:
        nonlocal failed
        failed += error is not None

    def send(topic: str, record: dict[str, object]) -> None:
        # The key is the id; any partitioner will do, Driftline joins by the id in the record.
        producer.produce(topic, key=str(record["id"]), value=json.dumps(record, allow_nan=False), on_delivery=delivered)
        producer.poll(0)

    producer = Producer({"bootstrap.servers": arguments.bootstrap, "linger.ms": 20})
    for number in range(arguments.count):
        now_ms = time.time_ns() // 1_000_000
        amount = round(chance.lognormvariate(3, 1), 2)
        score = min(1.0, amount / 200)
        prediction = {
            "id": f"txn-{number}",                # joins with the label
            "time": now_ms,                       # s, ms, us or ISO text
            "model": "fraud",
            "version": "3.4.1",
            "features": {"amount": amount, "country": chance.choice(["BR", "AR", "MX"]), "age": None},
            "score": score,
            "latency_ms": 4.2,
        }
        send(arguments.predictions, prediction)
        if number % 2 == 0:
            send(arguments.labels, {"id": f"txn-{number}", "time": now_ms, "label": chance.random() < score})
    waiting = producer.flush(30)
    print(f"failed {failed}, not acknowledged {waiting}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default="localhost:9092")
    parser.add_argument("--predictions", default="predictions", help="topic; must exist")
    parser.add_argument("--labels", default="labels", help="topic; must exist")
    parser.add_argument("--count", type=int, default=1000, help="predictions to send")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
