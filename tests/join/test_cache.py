"""One suite for both label caches."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis

from driftline.streams.columns import LabelBlock
from driftline.streams.ingest.values import texts
from driftline.streams.join import CacheLost, LabelCache, MemoryLabelCache, redis_cache
from driftline.streams.join.facts import FACT_BYTES, as_counted, facts_of, read_facts
from driftline.streams.join.redis_cache import RedisLabelCache
from tests.join.logs import Join, ids
from tests.join.test_cuts import _CONF, _EXPECTED, _STREAMS, finish


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(redis_url)
    yield made
    made.close()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> LabelCache:
    if request.param == "memory":
        return MemoryLabelCache()
    return RedisLabelCache(request.getfixturevalue("client"), f"{request.getfixturevalue('redis_prefix')}:{{join-10000ms/0}}")


def facts(times: list[int], offset: int = 0, labels: list[str] | None = None) -> list[bytes]:
    n = len(times)
    at = np.array(times, np.int64)
    block = LabelBlock(("labels", 0), 0, ids(["x"] * n), np.arange(offset, offset + n), at, at, at, np.ones(n))
    if labels is not None:
        block.text = texts(labels)
    return facts_of(block, offset, np.zeros(n, np.bool_))


def keys(*names: str) -> list[bytes]:
    found: list[bytes] = ids(names).tolist()
    return found


def test_what_goes_in_is_found(cache: LabelCache) -> None:
    cache.reset(0)
    one, two = facts([5, 6])
    cache.insert(keys("a", "b"), [one, two], start=0, next_offset=1)
    assert cache.lookup(keys("b", "none", "a")) == [two, None, one]


def test_facts_of_one_id_are_all_kept_the_newest_first(cache: LabelCache) -> None:
    cache.reset(0)
    one, two = facts([5, 6])
    cache.insert(keys("a", "a"), [one, two], start=0, next_offset=1)
    assert cache.lookup(keys("a")) == [two + one]


def test_adding_a_fact_again_changes_nothing(cache: LabelCache) -> None:
    cache.reset(0)
    one, two = facts([5, 6])
    for _ in range(3):
        cache.insert(keys("a", "a"), [one, two], start=0, next_offset=1)
    assert cache.lookup(keys("a")) == [two + one]


def test_texts_of_any_length_come_back(cache: LabelCache) -> None:
    cache.reset(0)
    many = facts([1, 2, 3, 4], labels=["cat", "ü" * 100, "x", "cat"])
    cache.insert(keys("a", "b", "a", "c"), many, start=0, next_offset=1)
    found = cache.lookup(keys("a", "none", "b", "c"))
    assert [[f.text for f in read_facts(value)] if value else None for value in found] == [["cat", "x"], None, ["ü" * 100], ["cat"]]


def test_many_entries_go_in_and_come_out_in_order(cache: LabelCache) -> None:
    cache.reset(0)
    names = keys(*(f"id-{n}" for n in range(45_000)))
    values = facts(list(range(45_000)))
    cache.insert(names, values, start=0, next_offset=1)
    assert cache.lookup(names) == values


def test_a_repeated_id_anywhere_in_many_entries_keeps_all_its_facts(cache: LabelCache) -> None:
    cache.reset(0)
    names = keys(*(f"id-{n}" for n in range(7_000)))
    values = facts(list(range(7_000)))
    names[4_100] = names[10]
    names[6_500] = names[6_400]
    cache.insert(names, values, start=0, next_offset=1)
    found = cache.lookup(names)
    assert found[10] == found[4_100] == values[4_100] + values[10]
    assert found[6_400] == values[6_500] + values[6_400]
    rest = set(range(7_000)) - {10, 4_100, 6_400, 6_500}
    assert all(found[row] == values[row] for row in rest)


def test_settled_ids_are_gone_or_replaced(cache: LabelCache) -> None:
    cache.reset(0)
    one, two = facts([5, 6])
    cache.insert(keys("a", "b"), [one, two], start=0, next_offset=1)
    cache.settle(keys("a", "b", "c"), [b"", one, b""])
    assert cache.lookup(keys("a", "b", "c")) == [None, one, None]


def test_a_sweep_removes_what_is_old_and_counts_what_nobody_counted(cache: LabelCache) -> None:
    cache.reset(0)
    one, two, three = facts([5, 6, 100])
    counted = read_facts(facts([7], 9)[0])[0].encode(counted=True)
    cache.insert(keys("a", "b", "b", "c", "c"), [one, one, three, two, counted], start=0, next_offset=1)
    assert cache.sweep(50, 1_000) == 2
    assert cache.lookup(keys("a", "b", "c")) == [None, three + one, None]


def test_repeated_sweeps_reach_every_entry(cache: LabelCache) -> None:
    cache.reset(0)
    names = keys(*(f"id-{n}" for n in range(3_000)))
    cache.insert(names, facts([5] * 3_000), start=0, next_offset=1)
    assert sum(cache.sweep(50, 100) for _ in range(80)) == 3_000
    assert cache.lookup(names) == [None] * 3_000


def test_the_cache_says_what_it_covers(cache: LabelCache) -> None:
    assert cache.covered() is None
    cache.reset(7)
    assert cache.covered() == (7, 7)
    cache.insert(keys("a"), facts([5]), start=7, next_offset=12)
    assert cache.covered() == (7, 12)


def test_a_gap_before_an_insert_is_refused(cache: LabelCache) -> None:
    with pytest.raises(CacheLost):
        cache.insert(keys("a"), facts([5]), start=0, next_offset=1)
    cache.reset(0)
    cache.insert(keys("a"), facts([5]), start=0, next_offset=3)
    with pytest.raises(CacheLost):
        cache.insert(keys("a"), facts([5]), start=5, next_offset=6)


def test_a_reset_forgets_everything(cache: LabelCache) -> None:
    cache.reset(0)
    cache.insert(keys("a"), facts([5]), start=0, next_offset=3)
    cache.reset(2)
    assert (cache.covered(), cache.lookup(keys("a"))) == ((2, 2), [None])


def test_outcomes_do_not_depend_on_the_kind_of_cache(cache: LabelCache) -> None:
    join = Join(_CONF, cache)
    while join.position[("driftline.labels", 0)] < len(_STREAMS[0].labels) - 5:
        join.read(_STREAMS[0], 7, 9).commit()
        join.open()
    assert finish(join, _STREAMS[0]) == _EXPECTED[0]


def test_only_the_owner_writes_to_redis(client: redis.Redis, redis_prefix: str) -> None:
    owner = f"{redis_prefix}:{{t}}:owner"
    client.set(owner, "mine 3")
    mine = RedisLabelCache(client, f"{redis_prefix}:{{t}}", owner_key=owner, token="mine")
    other = RedisLabelCache(client, f"{redis_prefix}:{{t}}", owner_key=owner, token="other")
    mine.reset(0)
    mine.insert(keys("a"), facts([5]), start=0, next_offset=1)
    assert other.covered() == (0, 1)
    with pytest.raises(CacheLost):
        other.reset(0)
    with pytest.raises(CacheLost):
        other.insert(keys("b"), facts([5]), start=0, next_offset=1)
    with pytest.raises(CacheLost):
        other.settle(keys("a"), [b""])
    assert mine.lookup(keys("a", "b")) == [facts([5])[0], None]


def test_redis_that_lost_its_last_writes_is_noticed(client: redis.Redis, redis_prefix: str) -> None:
    cache = RedisLabelCache(client, f"{redis_prefix}:{{t}}")
    cache.reset(0)
    cache.insert(keys("a"), facts([5]), start=0, next_offset=10)
    client.hset(f"{redis_prefix}:{{t}}:labels:bounds", "next", 4)
    with pytest.raises(CacheLost):
        cache.insert(keys("b"), facts([5]), start=10, next_offset=11)


def test_a_waiting_label_takes_at_most_120_bytes_of_redis_beyond_its_id(client: redis.Redis, redis_prefix: str) -> None:
    """Labels come and go; what is gone is reclaimed, so the share of what waits stays bounded."""
    key = f"{redis_prefix}:{{m}}"
    cache = RedisLabelCache(client, key)
    cache.reset(0)
    waiting, batch, worst = 40_000, 2_000, 0.0
    for first in range(0, 6 * waiting, batch):
        cache.insert(keys(*(f"id-{i}" for i in range(first, first + batch))), facts([5] * batch), start=first, next_offset=first + batch)
        if first >= waiting:
            gone = range(first - waiting, first - waiting + batch)
            cache.settle(keys(*(f"id-{i}" for i in gone)), [b""] * batch)
            used = client.memory_usage(f"{key}:labels", samples=0)
            assert used is not None
            worst = max(worst, used / waiting - 16)
    assert worst <= 120


def test_a_commit_takes_one_round_trip_for_what_came(client: redis.Redis, redis_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RedisLabelCache(client, f"{redis_prefix}:{{t}}")
    join = Join(_CONF, cache)
    calls: list[Any] = []
    run = cache._run

    def counted(version: int | str, *arguments: Any) -> None:
        calls.append(version)
        run(version, *arguments)

    monkeypatch.setattr(cache, "_run", counted)
    for _ in range(10):
        calls.clear()
        join.read(_STREAMS[0], 10, 10)
        assert len(calls) <= 1
        join.commit()


@pytest.mark.parametrize("seed", range(6))
def test_another_worker_finds_what_is_held_however_it_came_about(
    client: redis.Redis, redis_prefix: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random work on the cache beside a plain one; at any moment a new reader of the journal holds the same."""
    rng = random.Random(seed)
    key = f"{redis_prefix}:{{t{seed}}}"
    cache, plain = RedisLabelCache(client, key), MemoryLabelCache()
    monkeypatch.setattr(redis_cache, "_GARBAGE_BYTES_MIN", 2_000)  # so that a few hundred labels are cleaned
    cache.reset(0)
    plain.reset(0)
    for step in range(120):
        names = keys(*(f"id-{rng.randrange(300)}" for _ in range(rng.randrange(1, 40))))
        times = [rng.randrange(step, step + 50) for _ in names]
        named = [rng.choice(["cat", "ü" * 50]) for _ in names] if rng.random() < 0.3 else None
        new = facts(times, 1_000 * step, named)
        gone = sorted({name for name in names if rng.random() < 0.7})
        remains = [rng.choice([b"", b"", new[0]]) for _ in gone]
        for one in (cache, plain):
            one.insert(names, new, start=step, next_offset=step + 1)
            if gone:
                one.settle(gone, remains)
        if step % 10 == 9:
            assert cache.sweep(step - 20, 10_000) == plain.sweep(step - 20, 10_000)
        if step % 7 == 0:
            other = RedisLabelCache(client, key)
            assert other.covered() == (0, step + 1)
            assert other._memory.entries == plain.entries == cache._memory.entries
            assert other._bytes == cache._bytes


def test_a_damaged_journal_is_no_cache(client: redis.Redis, redis_prefix: str) -> None:
    key = f"{redis_prefix}:{{t}}"
    cache = RedisLabelCache(client, key)
    cache.reset(0)
    cache.insert(keys("a", "b"), facts([5, 6]), start=0, next_offset=1)
    whole = client.lindex(f"{key}:labels", 0)
    assert isinstance(whole, bytes)
    sizes = (whole[:1] + b"\xff\xff\xff\xff" + whole[5:], whole[:5] + b"\x00\x00\x00\x80" + whole[9:])
    for damaged in (b"", whole[:-1], whole + b"x", b"\x09" + whole[1:], *sizes):
        client.lset(f"{key}:labels", 0, damaged)  # type: ignore[arg-type]
        assert RedisLabelCache(client, key).covered() is None


def test_a_write_on_top_of_another_one_is_refused(client: redis.Redis, redis_prefix: str) -> None:
    """Two workers that both think they own the task, where no owner is written."""
    key = f"{redis_prefix}:{{t}}"
    first = RedisLabelCache(client, key)
    first.reset(0)
    second = RedisLabelCache(client, key)
    assert second.covered() == (0, 0)
    second.insert(keys("a"), facts([5]), start=0, next_offset=1)
    with pytest.raises(CacheLost):
        first.insert(keys("b"), facts([6]), start=0, next_offset=1)


def test_a_fact_is_43_bytes() -> None:
    assert len(facts([5])[0]) == FACT_BYTES == 43


def test_the_journal_writes_a_label_a_few_times_at_most_however_long_it_is(
    client: redis.Redis, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = RedisLabelCache(client, f"{redis_prefix}:{{t}}")
    cache.reset(0)
    sent: list[int] = []
    run = cache._run

    def counted(version: int | str, start: int, next_offset: int, drop: int, *added: bytes) -> None:
        sent.append(sum(map(len, added)))
        run(version, start, next_offset, drop, *added)

    monkeypatch.setattr(cache, "_run", counted)
    batch, waiting, came = 1_000, 10_000, 0
    for first in range(0, 10 * waiting, batch):
        labels = facts([5] * batch, first, ["x" * 120] * batch)
        came += sum(map(len, labels))
        cache.insert(keys(*(f"id-{i}" for i in range(first, first + batch))), labels, start=first, next_offset=first + batch)
        if first >= waiting:
            cache.settle(keys(*(f"id-{i}" for i in range(first - waiting, first - waiting + batch))), [b""] * batch)
    assert sum(sent) < 4 * came
    assert cache._memory.held_bytes == sum(16 + len(value) for value in cache._memory.entries.values())
    assert cache._bytes < 2 * cache._memory.held_bytes + redis_cache._GARBAGE_BYTES_MIN


def test_labels_that_stay_after_they_were_used_cost_a_commit_no_more_the_more_they_are(
    client: redis.Redis, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where several models share ids a label stays for ten minutes, counted: each is written twice, and nothing of it is gone."""
    cache = RedisLabelCache(client, f"{redis_prefix}:{{t}}")
    cache.reset(0)
    monkeypatch.setattr(redis_cache, "_GARBAGE_BYTES_MIN", 10_000)
    cleaned: list[int] = []
    run = cache._run

    def counted(version: int | str, start: int, next_offset: int, drop: int, *added: bytes) -> None:
        cleaned.append(sum(map(len, added)) if drop else 0)
        run(version, start, next_offset, drop, *added)

    monkeypatch.setattr(cache, "_run", counted)
    batch, came = 50, 0
    waiting: deque[tuple[list[bytes], list[bytes]]] = deque()
    for first in range(0, 20_000, batch):
        own, labels = keys(*(f"id-{i}" for i in range(first, first + batch))), facts([5] * batch, first)
        came += 2 * sum(map(len, labels))
        cache.insert(own, labels, start=first, next_offset=first + batch)
        waiting.append((own, [as_counted(one) for one in labels]))
        if len(waiting) > 20:
            cache.settle(*waiting.popleft())
    assert 0 < max(cleaned) <= 200_000
    assert sum(cleaned) < 2 * came
    assert cache._bytes < 2 * cache._memory.held_bytes
    other = RedisLabelCache(client, f"{redis_prefix}:{{t}}")
    assert other.covered() == (0, 20_000)
    assert other._memory.entries == cache._memory.entries


def test_a_burst_of_labels_that_are_all_taken_leaves_no_journal_behind(client: redis.Redis, redis_prefix: str) -> None:
    cache = RedisLabelCache(client, f"{redis_prefix}:{{t}}")
    cache.reset(0)
    for turn in range(6):
        names = keys(*(f"id-{turn}-{i}" for i in range(150_000)))
        cache.insert(names, facts([5]) * len(names), start=turn, next_offset=turn + 1)
        cache.settle(names, [b""] * len(names))
    assert cache._bytes < 40 << 20


def test_an_id_that_every_label_bears_keeps_a_few(cache: LabelCache) -> None:
    cache.reset(0)
    many = facts(list(range(5_000)))
    over = cache.insert(keys("unknown") * len(many), many, start=0, next_offset=1)
    (held,) = cache.lookup(keys("unknown"))
    assert held is not None
    assert (len(read_facts(held)), over) == (64, 4_936)
    assert read_facts(held)[0].time_ms == 0, "the first label is the one that holds"
