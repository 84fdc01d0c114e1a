"""A model service that publishes its predictions, and the truth when it is known, with `driftline.publish`.

python examples/publish_predictions.py --bootstrap localhost:9092
"""

from __future__ import annotations

import argparse
import random

from driftline.publish import Publisher


def main() -> None:
    arguments = parse()
    chance = random.Random(arguments.seed)
    # One publisher for the life of the service; it may be used from every thread.
    with Publisher(arguments.bootstrap, arguments.predictions, arguments.labels) as publisher:
        for number in range(arguments.count):
            transaction = f"txn-{number}"
            amount = round(chance.lognormvariate(3, 1), 2)
            features = {"amount": amount, "country": chance.choice(["BR", "AR", "MX"]), "age": None}
            score = min(1.0, amount / 200)
            # Returns at once, whatever state Kafka is in; what could not be taken is counted in `dropped`.
            publisher.prediction(id=transaction, model="fraud", version="3.4.1", features=features, score=score, latency_ms=4.2)
            # In a real service this comes days later and from another program; only the id has to match.
            if number % 2 == 0:
                publisher.label(id=transaction, label=chance.random() < score)
        publisher.flush()
        print(f"delivered {publisher.delivered}, dropped {publisher.dropped}, failed {publisher.failed}")


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
