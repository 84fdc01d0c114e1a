"""One worker in a process of its own, to be killed: ``python -m tests.runner.worker SETTINGS_JSON``."""

from __future__ import annotations

import json
import logging
import sys

from driftline.schemas.config import Config
from driftline.streams.errors import StreamError
from driftline.streams.kafka import make_admin, read_cluster
from driftline.streams.runner import Runner
from driftline.streams.state.redis_store import RedisStore
from tests.runner.toy import ToyProcessor


def make_config(bootstrap: str, redis_url: str, prefix: str, **kafka: object) -> Config:
    settings = {"bootstrap": bootstrap, "group_prefix": prefix, "commit_interval": 50, "commit_rows": 100, "transaction_timeout": 5_000}
    properties = {"session.timeout.ms": 4_000, "heartbeat.interval.ms": 500}
    return Config.model_validate(
        {
            "kafka": settings | {"properties": properties} | kafka,
            "redis": {"url": redis_url, "key_prefix": prefix},
            "predictions": [{"topic": "unused"}],
            "models": {"m": {}},
            "start": "earliest",
        }
    )


def make_runner(settings: dict[str, object], **options: object) -> Runner:
    config = make_config(str(settings["bootstrap"]), str(settings["redis"]), str(settings["prefix"]), **settings.get("kafka", {}))  # type: ignore[arg-type]
    source, output = str(settings["source"]), str(settings["output"])
    checkpoints = settings.get("checkpoints")
    if checkpoints:
        config = config.model_copy(update={"topics": config.topics.model_copy(update={"prefix": str(checkpoints).rpartition(".")[0]})})
    cluster = read_cluster(make_admin(config.kafka), [source, output, *([str(checkpoints)] if checkpoints else [])])
    given: dict[str, object] = dict(settings.get("options", {}))  # type: ignore[call-overload]
    processor = ToyProcessor(source, output, settings.get("poison"))  # type: ignore[arg-type]
    return Runner(processor, config, cluster, RedisStore(str(settings["redis"])), **given | options)  # type: ignore[arg-type]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        make_runner(json.loads(sys.argv[1])).run()
    except StreamError as error:
        logging.error("stopped type=%s error=%s", type(error).__name__, error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
