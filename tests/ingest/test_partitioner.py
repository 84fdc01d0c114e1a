from __future__ import annotations

import pytest
from confluent_kafka import Producer

from driftline.streams.partitioner import murmur2, partition_for


@pytest.mark.parametrize(
    ("key", "expected"),
    # The vectors of Apache Kafka's own UtilsTest.testMurmur2, as signed 32-bit numbers.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_values_of_the_java_client(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_partitions_are_those_librdkafka_chooses() -> None:
    producer = Producer({"test.mock.num.brokers": 1, "partitioner": "murmur2_random", "linger.ms": 0})
    chosen: dict[str, int] = {}

    def delivered(error: object, message: object) -> None:
        assert error is None
        chosen[message.key().decode()] = message.partition()  # type: ignore[attr-defined]

    keys = ["fraud", "ads", "x", "ü", "credit_default", "a b", *(f"model-{i}" for i in range(40))]
    for key in keys:
        producer.produce("t", key=key, value=b"v", on_delivery=delivered)
    assert producer.flush(60) == 0

    # The mock cluster makes topics with four partitions.
    assert chosen == {key: partition_for(key, 4) for key in keys}
