"""What no waiting mends: a topic that is gone, a record that its topic does not take."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.outages.conftest import Bench

_CALL_SECONDS = 60


def limit(bench: Bench, topic: str, bytes_max: int) -> None:
    """Set the size of the largest record batch that a topic takes."""
    entry = ConfigEntry("max.message.bytes", str(bytes_max), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(_CALL_SECONDS)


def test_topic_that_is_deleted_under_a_worker_stops_it_with_nothing_committed_past_it(bench: Bench) -> None:
    """A topic made anew would start its offsets again: somebody has to look (rule 8)."""
    worker = bench.start()
    bench.send(400)
    bench.all_there()
    before = bench.committed()
    gone = f"{bench.ours}.observations"
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    admin.delete_topics([gone])[gone].result(_CALL_SECONDS)
    bench.send(400)
    assert worker.until_dead() in (1, 2)
    assert "processor_stopped" in worker.log
    assert gone in worker.log.rpartition("processor_stopped")[2], worker.tail()
    assert bench.committed() == before
    again = bench.start()
    assert again.until_dead() == 2
    assert f'no such topic: "{gone}"' in again.log
    assert "driftline topics create" in again.log


def test_output_that_its_topic_does_not_take_stops_the_worker_and_comes_once_the_limit_is_mended(bench: Bench) -> None:
    """An operator lowered a limit; every retry would fail the same way."""
    worker = bench.start()
    bench.send(100)
    bench.all_there()
    before = bench.committed()
    limit(bench, f"{bench.ours}.observations", 600)
    bench.send(4_000)
    assert worker.until_dead() == 1
    assert "processor_stopped error=OutputError" in worker.log, worker.tail()
    assert f"{bench.ours}.observations" in worker.log.rpartition("processor_stopped")[2], worker.tail()
    assert bench.committed() == before
    limit(bench, f"{bench.ours}.observations", 8 << 20)
    bench.start()
    bench.all_there()
