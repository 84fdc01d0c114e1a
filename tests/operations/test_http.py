"""Health, readiness and metrics as a scraper and an orchestrator see them."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as _parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as _parse_text

from driftline.streams import metrics as table
from driftline.streams.http import BEAT_SECONDS_MAX, Health, HttpServer
from driftline.streams.metrics import Metrics
from driftline.streams.progress import STALL_SECONDS
from tests.operations.conftest import Clock

parse_text: Callable[[str], Iterable[Family]] = _parse_text   # untyped in the library
parse_openmetrics: Callable[[str], Iterable[Family]] = _parse_openmetrics


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock=clock)


@pytest.fixture
def server(health: Health) -> Iterator[HttpServer]:
    metrics = Metrics(version="1.2.3")
    metrics.add(table.RECORDS, 7, "predictions", "ok")
    metrics.observe(table.COMMIT_SECONDS, 0.02, "ingest")
    with HttpServer(metrics.registry, health) as running:
        yield running


def _get(server: HttpServer, path: str, accept: str = "*/*", method: str = "GET") -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers={"Accept": accept}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def _ready(server: HttpServer) -> tuple[int, dict[str, Any]]:
    status, _, body = _get(server, "/readyz")
    return status, json.loads(body)


def test_a_worker_is_not_ready_until_it_has_its_partitions_and_redis(server: HttpServer, health: Health) -> None:
    status, body = _ready(server)
    assert status == 503
    assert body["reasons"] == ["redis: not connected yet", "waiting for the group to assign partitions"]

    health.assigned(2)
    health.redis(None)
    status, body = _ready(server)
    assert (status, body["ready"], body["tasks"]) == (200, True, 2)


def test_a_standby_without_partitions_is_ready(server: HttpServer, health: Health) -> None:
    health.assigned(0)
    health.redis(None)
    assert _ready(server)[0] == 200


def test_a_stall_shows_its_partition_and_only_while_records_wait(server: HttpServer, health: Health, clock: Clock) -> None:
    health.assigned(2)
    health.redis(None)
    for partition in (0, 1):
        health.progress.tell(("fraud", partition), 7, busy=partition == 1)
    clock.seconds = STALL_SECONDS
    health.progress.tell(("fraud", 0), 7, busy=False)
    health.progress.tell(("fraud", 1), 7, busy=True)
    status, body = _ready(server)
    assert status == 503
    assert body["reasons"] == ["fraud/1 stands still for 60 s: nothing committed past offset 7"]

    health.progress.tell(("fraud", 1), 8, busy=True)
    assert _ready(server)[0] == 200


def test_many_stalled_partitions_make_a_short_page(server: HttpServer, health: Health, clock: Clock) -> None:
    health.assigned(40)
    health.redis(None)
    for partition in range(40):
        health.progress.tell(("fraud", partition), None, busy=True)
    clock.seconds = 2 * STALL_SECONDS
    reasons = _ready(server)[1]["reasons"]
    assert reasons[0] == "fraud/0 stands still for 120 s: not read yet"
    assert reasons[5:] == ["35 more partitions stand still"]


def test_a_broker_that_is_away_is_a_reason_of_its_own(server: HttpServer, health: Health) -> None:
    health.assigned(1)
    health.redis(None)
    health.kafka("kafka: 1/1 brokers are down")
    assert _ready(server)[1]["reasons"] == ["kafka: 1/1 brokers are down"]
    assert _get(server, "/livez")[0] == 200
    health.kafka(None)
    assert _ready(server)[0] == 200


def test_redis_going_away_shows_its_reason_and_does_not_end_liveness(server: HttpServer, health: Health) -> None:
    health.assigned(1)
    health.redis("connection refused")
    assert _ready(server)[1]["reasons"] == ["redis: connection refused"]
    assert _get(server, "/livez")[0] == 200


def test_a_loop_that_stands_still_is_no_longer_live(server: HttpServer, health: Health, clock: Clock) -> None:
    clock.seconds = BEAT_SECONDS_MAX + 1
    assert _get(server, "/livez")[0] == 503
    health.beat()
    assert _get(server, "/livez")[0] == 200


def test_metrics_are_in_prometheus_text_and_in_openmetrics(server: HttpServer) -> None:
    status, content_type, body = _get(server, "/metrics")
    families = {family.name: family for family in parse_text(body)}
    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    [sample] = [s for s in families["driftline_records"].samples if s.name == "driftline_records_total"]
    assert (sample.value, sample.labels) == (7, {"stream": "predictions", "outcome": "ok"})

    _, content_type, body = _get(server, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "driftline_commit_seconds" in {family.name for family in parse_openmetrics(body)}


def test_unknown_pages_are_named_and_head_has_no_body(server: HttpServer) -> None:
    status, _, body = _get(server, "/config")
    assert status == 404
    assert json.loads(body)["pages"] == ["/livez", "/readyz", "/metrics"]
    assert _get(server, "/livez", method="HEAD")[2] == ""


def test_it_listens_on_loopback_only_and_names_a_taken_port(server: HttpServer, health: Health) -> None:
    with pytest.raises(OSError, match=f"127.0.0.1:{server.port}"):
        HttpServer(Metrics().registry, health, port=server.port)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        assert connection.getpeername()[0] == "127.0.0.1"


def test_the_port_is_free_after_stop(health: Health) -> None:
    first = HttpServer(Metrics().registry, health).start()
    first.stop()
    with HttpServer(Metrics().registry, health, port=first.port) as second:
        assert _get(second, "/livez")[0] == 200


def test_a_worker_that_cannot_go_on_says_why_while_it_leaves(health: Health, server: HttpServer) -> None:
    health.redis(None)
    health.assigned(1)
    assert _get(server, "/readyz")[0] == 200
    health.failed('task "detect/0": checkpoint version 3: this worker reads versions 1 to 2')
    health.stopping()
    code, _, body = _get(server, "/readyz")
    assert code == 503
    assert json.loads(body)["reasons"] == ['stopped: task "detect/0": checkpoint version 3: this worker reads versions 1 to 2']
