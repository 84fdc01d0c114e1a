"""Real services for the tests: one Apache Kafka and one Redis for the session, started when a test first asks.

DRIFTLINE_TEST_KAFKA (a bootstrap address) and DRIFTLINE_TEST_REDIS (a URL) name running services to use instead.
With several workers (pytest-xdist, as `make test` runs) both start first, and the variables name them to the workers: all share them.
DRIFTLINE_TEST_NO_SKIP=1 (CI) turns every skip into a failure.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, settings

from driftline.streams.local import process
from driftline.streams.local.kafka import LocalKafka, kafka_answers
from driftline.streams.local.process import LocalServiceError
from driftline.streams.local.redis import LocalRedis, redis_answers

_TESTS = Path(__file__).parent
# Starts of paths, the longest files first; `--durations=50` says which they are.
_LONGEST = (
    "rescale/test_rescale", "alert/test_faults", "secure/test_program", "outages/", "detectors/test_kernels", "alert/test_alert_app",
    "e2e/", "runner/", "secure/", "cli/", "join/", "local/", "savepoint/", "demo/", "hostile/", "test_packaging",
)  # fmt: skip
_NO_SKIP = os.environ.get("DRIFTLINE_TEST_NO_SKIP") == "1"

# Cores are shared and kernels compile at their first call, so a slow example says nothing. CI tries the same examples
# every time: a red run is then the change's doing. A run on a desk looks for new ones.
settings.register_profile(
    "driftline", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI")), print_blob=True
)
settings.load_profile("driftline")


class Kafka(Protocol):
    """What the tests need of a broker."""

    @property
    def bootstrap(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _RunningKafka:
    bootstrap: str


def pytest_configure(config: pytest.Config) -> None:
    """Settings of this process and its children: a JVM that is quick to start, and ports that no other worker takes."""
    # A broker here lives for seconds or minutes: the second compiler would cost half of its CPU and gain nothing by then.
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    if worker := getattr(config, "workerinput", None):
        number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
        process.PORTS = process.PORTS[len(process.PORTS) * number // count : len(process.PORTS) * (number + 1) // count]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start what the workers share in the process that outlives them; they start after this and inherit its environment."""
    config = session.config
    if hasattr(config, "workerinput") or not config.getoption("tx", None) or config.option.collectonly:
        return
    started = ExitStack()
    config.add_cleanup(started.close)
    # Without Java or Redis each worker finds that out by itself, and skips with the reason.
    with suppress(LocalServiceError):
        if "DRIFTLINE_TEST_KAFKA" not in os.environ:
            os.environ["DRIFTLINE_TEST_KAFKA"] = started.enter_context(LocalKafka()).bootstrap
    with suppress(LocalServiceError):
        if "DRIFTLINE_TEST_REDIS" not in os.environ:
            os.environ["DRIFTLINE_TEST_REDIS"] = started.enter_context(LocalRedis()).url


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A real Apache Kafka, shared by the session: topics of a test start with its `topic_prefix`."""
    running = os.environ.get("DRIFTLINE_TEST_KAFKA")
    if running:
        assert kafka_answers(running, timeout_seconds=20), f'DRIFTLINE_TEST_KAFKA names "{running}" and no broker answers there'
        yield _RunningKafka(running)
        return
    broker = LocalKafka()
    try:
        broker.__enter__()
    except LocalServiceError as error:
        pytest.skip(f"no real Kafka: {error}")
    try:
        yield broker
    finally:
        broker.__exit__(None, None, None)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis, shared by the session: keys of a test start with its `redis_prefix`."""
    running = os.environ.get("DRIFTLINE_TEST_REDIS")
    if running:
        assert redis_answers(running, timeout_seconds=10), f'DRIFTLINE_TEST_REDIS names "{running}" and no Redis answers there'
        yield running
        return
    server = LocalRedis()
    try:
        server.__enter__()
    except LocalServiceError as error:
        pytest.skip(f"no real Redis: {error}")
    try:
        yield server.url
    finally:
        server.__exit__(None, None, None)


@pytest.fixture
def redis_prefix() -> str:
    """A start of key names no other test uses."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def topic_prefix(kafka: Kafka) -> Iterator[str]:
    """A start of topic names no other test uses; what it named is deleted after the test."""
    prefix = f"test-{secrets.token_hex(4)}"
    yield prefix
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    mine = [name for name in admin.list_topics(timeout=90).topics if name.startswith(prefix)]
    if mine:
        for deleted in admin.delete_topics(mine, operation_timeout=90).values():
            deleted.result(90)


CreateTopics = Callable[..., list[str]]


@pytest.fixture
def create_topics(kafka: Kafka, topic_prefix: str) -> CreateTopics:
    """``create_topics("a", "b", partitions=4, config={...})`` makes ``<prefix>.a`` and ``<prefix>.b`` and returns the names."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def create(*names: str, partitions: int = 1, config: dict[str, str] | None = None) -> list[str]:
        full = [f"{topic_prefix}.{name}" for name in names]
        wanted = [NewTopic(name, num_partitions=partitions, replication_factor=1, config=config or {}) for name in full]
        for created in admin.create_topics(wanted, operation_timeout=90).values():
            created.result(90)
        # The controller has made them; the broker learns of it a moment later, on a busy machine a second.
        deadline = time.monotonic() + 90
        while not set(full) <= admin.list_topics(timeout=90).topics.keys():
            assert time.monotonic() < deadline, f"{full} were created and are not there"
        return full

    return create


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers what takes longest begins first: a long file that begins last is waited for by all."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.path.relative_to(_TESTS).as_posix()))


def _rank(path: str) -> int:
    return next((rank for rank, start in enumerate(_LONGEST) if path.startswith(start)), len(_LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be skipped, a skip is a failure that says why."""
    report = yield
    if _NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although DRIFTLINE_TEST_NO_SKIP=1: {_reason(report)}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run and why, one line a reason."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reasons[_reason(report)] = reasons.get(_reason(report), 0) + 1
    if reasons:
        terminalreporter.section("not run", sep="-", yellow=True)
        for reason, count in sorted(reasons.items()):
            terminalreporter.write_line(f"{count} test{'s' if count > 1 else ''}: {reason}")


def _reason(report: pytest.TestReport) -> str:
    """The text of a skip, without place and prefix."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
