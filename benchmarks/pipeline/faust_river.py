"""(b) Faust with river: ADWIN and Page-Hinkley on 20 features of every prediction; labels are read and counted."""

from __future__ import annotations

import sys
import uuid

import faust

from benchmarks.pipeline.contender import RiverWork

bootstrap, predictions, labels, rows_text = sys.argv[1:5]
sys.argv = [sys.argv[0], "worker", "-l", "warn", "--without-web"]

app = faust.App(
    f"bench-{uuid.uuid4().hex}", broker=f"kafka://{bootstrap}", topic_disable_leader=True, topic_allow_declare=False, web_enabled=False,
    consumer_auto_offset_reset="earliest", stream_wait_empty=False, broker_max_poll_records=500, worker_redirect_stdouts=False,
)  # fmt: skip
work = RiverWork(int(rows_text))


@app.agent(app.topic(predictions, value_serializer="raw"), concurrency=1)
async def watch(stream):  # type: ignore[no-untyped-def]
    async for value in stream:
        work.prediction(value)


@app.agent(app.topic(labels, value_serializer="raw"), concurrency=1)
async def count(stream):  # type: ignore[no-untyped-def]
    async for value in stream:
        work.label(value)


if __name__ == "__main__":
    app.main()
