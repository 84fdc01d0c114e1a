"""(c) Quix Streams with river: the same work as (b). Runs in an environment of its own (it pins an older client)."""

from __future__ import annotations

import sys
import uuid

from quixstreams import Application

from benchmarks.pipeline.contender import RiverWork


def main(bootstrap: str, predictions: str, labels: str, rows: int) -> None:
    work = RiverWork(rows)
    app = Application(broker_address=bootstrap, consumer_group=f"quix-{uuid.uuid4().hex}", auto_offset_reset="earliest", loglevel="ERROR")
    app.dataframe(app.topic(predictions, value_deserializer="bytes")).update(work.prediction)
    app.dataframe(app.topic(labels, value_deserializer="bytes")).update(work.label)
    app.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
