"""One suite, both stores: the memory store may stand in for Redis because it passes the same tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import redis

from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.state import AlertState, Source
from driftline.streams.alert.store import AlertStore, Applied, MemoryAlertStore, OutboxRow, Published
from tests.alert.conftest import MakeEvent

MakeStore = Callable[..., AlertStore]


@pytest.fixture(params=["memory", "redis"])
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    if request.param == "memory":
        yield lambda **options: MemoryAlertStore(**options)
        return
    url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
    client = redis.Redis.from_url(url)
    yield lambda **options: RedisAlertStore(client, prefix, **options)
    client.close()


@pytest.fixture
def store(make_store: MakeStore) -> AlertStore:
    return make_store()


StateOf = Callable[..., AlertState]


@pytest.fixture
def state_of(drift_event: MakeEvent) -> StateOf:
    def make(series: str, offset: int = 0, *, resolved_at: int | None = None) -> AlertState:
        pipeline = AlertPipeline()
        state = pipeline.process(drift_event(1, series=series, episode=series), Source("id", 0, offset), None).state
        assert state is not None
        if resolved_at is not None:
            recovery = drift_event(resolved_at, kind="recovery", series=series, episode=series)
            state = pipeline.process(recovery, Source("id", 0, offset + 1), state).state
            assert state is not None
        return state

    return make


def row(offset: int, place: int = 0) -> OutboxRow:
    return OutboxRow((offset, place), "driftline.alerts", "key", '{"a":"é"}', (("ce_id", f"{offset}/{place}"),))


def change(
    expected: int | None, next_offset: int, *, partition: str = "p", states: Sequence[AlertState] = (), outbox: Sequence[OutboxRow] = ()
) -> Applied:
    found = {state.alert.fingerprint: state for state in states}
    return Applied(partition=partition, expected=expected, next_offset=next_offset, states=found, outbox=outbox)


def test_new_store_knows_nothing(store: AlertStore) -> None:
    loaded = store.load("p", "f")
    assert (loaded.next_offset, loaded.state) == (None, None)
    assert (store.next_offset("p"), store.outbox("p", 10), store.open_alerts(), store.recent_alerts(10)) == (None, [], [], [])


def test_state_offset_and_outbox_are_written_together(store: AlertStore, state_of: StateOf) -> None:
    state = state_of("a", 4)
    assert store.apply(change(None, 5, states=[state], outbox=[row(4)]))
    loaded = store.load("p", state.alert.fingerprint)
    assert (loaded.next_offset, loaded.state) == (5, state)
    assert store.outbox("p", 10) == [row(4)]


def test_write_that_expects_another_offset_changes_nothing(store: AlertStore, state_of: StateOf) -> None:
    store.apply(change(None, 5))
    stale = state_of("a", 5)
    for expected in (None, 4, 6):
        assert not store.apply(change(expected, 7, states=[stale], outbox=[row(6)]))
    assert store.next_offset("p") == 5
    assert store.load("p", stale.alert.fingerprint).state is None
    assert store.outbox("p", 10) == []


def test_partitions_have_offsets_and_outboxes_of_their_own(store: AlertStore) -> None:
    store.apply(change(None, 5, partition="p", outbox=[row(4)]))
    store.apply(change(None, 9, partition="q", outbox=[row(8)]))
    assert (store.next_offset("p"), store.next_offset("q")) == (5, 9)
    assert (store.outbox("p", 10), store.outbox("q", 10)) == ([row(4)], [row(8)])


def test_outbox_keeps_the_order_of_offsets_and_places(store: AlertStore) -> None:
    store.apply(change(None, 3, outbox=[row(2, 0), row(2, 1)]))
    store.apply(change(3, 101, outbox=[row(100, 0), row(100, 1)]))
    store.apply(change(101, 10_001, outbox=[row(10_000, place) for place in range(12)]))
    rows = store.outbox("p", 100)
    assert [entry.order for entry in rows] == [(2, 0), (2, 1), (100, 0), (100, 1), *[(10_000, place) for place in range(12)]]
    assert store.outbox("p", 3) == rows[:3]


def test_published_rows_are_forgotten_and_may_be_forgotten_twice(store: AlertStore) -> None:
    store.apply(change(None, 3, outbox=[row(2, 0), row(2, 1)]))
    first, second = store.outbox("p", 10)
    store.published("p", [first])
    store.published("p", [first])
    assert store.outbox("p", 10) == [second]


def test_open_and_resolved_alerts_are_listed_apart(store: AlertStore, state_of: StateOf) -> None:
    first, second, third = state_of("a"), state_of("b", resolved_at=50), state_of("c", resolved_at=90)
    store.apply(change(None, 1, states=[first, second, third]))
    assert store.open_alerts() == [first]
    assert store.recent_alerts(10) == [third, second]
    assert store.recent_alerts(1) == [third]


def test_alert_moves_from_open_to_recent_and_back(store: AlertStore, state_of: StateOf) -> None:
    store.apply(change(None, 1, states=[state_of("a")]))
    store.apply(change(1, 2, states=[state_of("a", resolved_at=50)]))
    assert (store.open_alerts(), len(store.recent_alerts(10))) == ([], 1)
    store.apply(change(2, 3, states=[state_of("a", 7)]))
    assert (store.open_alerts(), store.recent_alerts(10)) == ([state_of("a", 7)], [])


def test_oldest_resolved_alerts_are_dropped_beyond_the_limit_and_open_ones_never(make_store: MakeStore, state_of: StateOf) -> None:
    store = make_store(recent_max=2)
    states = [state_of("open"), *[state_of(f"s{number}", resolved_at=number) for number in (30, 10, 20, 40)]]
    store.apply(change(None, 1, states=states))
    assert [state.alert.series for state in store.recent_alerts(10)] == ["s40", "s30"]
    assert store.load("p", states[2].alert.fingerprint).state is None
    assert [state.alert.series for state in store.open_alerts()] == ["open"]


def test_seeding_fills_gaps_and_overwrites_nothing(store: AlertStore, state_of: StateOf) -> None:
    known, other = state_of("a", 10), state_of("b", 3)
    store.apply(change(None, 11, states=[known]))
    store.seed(Published({known.alert.fingerprint: state_of("a", 2), other.alert.fingerprint: other}))
    assert store.load("p", known.alert.fingerprint).state == known
    assert store.load("p", other.alert.fingerprint).state == other
    assert store.next_offset("p") == 11
    assert len(store.open_alerts()) == 2


def test_seeding_of_many_alerts_keeps_each(store: AlertStore, state_of: StateOf) -> None:
    states = {state.alert.fingerprint: state for state in (state_of(f"s{number}") for number in range(450))}
    store.seed(Published(states))
    assert {state.alert.fingerprint for state in store.open_alerts()} == set(states)


def test_namespaces_do_not_meet(redis_url: str, redis_prefix: str, state_of: StateOf) -> None:
    client = redis.Redis.from_url(redis_url)
    staging, production = RedisAlertStore(client, f"{redis_prefix}:staging:c"), RedisAlertStore(client, f"{redis_prefix}:prod:c")
    staging.apply(change(None, 1, states=[state_of("a")], outbox=[row(0)]))
    assert (production.next_offset("p"), production.open_alerts(), production.outbox("p", 10)) == (None, [], [])
    client.close()
