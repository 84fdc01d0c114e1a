"""A savepoint back into Redis and Kafka, so that workers go on as if they had never stopped.

Everything that may refuse comes before the first write. Then the state of every task goes to Redis, and last the offsets
with the names of the checkpoints, group by group: a crash between leaves state without offsets, which a worker refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from confluent_kafka.admin import AdminClient

from driftline.schemas.config import Config
from driftline.schemas.topics import TOPICS
from driftline.streams.cluster import Cluster, live_since_key
from driftline.streams.errors import SavepointError, StateError
from driftline.streams.redis_client import connect, redis_errors
from driftline.streams.savepoint.contents import Contents, SavedTask, SavepointReader, World
from driftline.streams.savepoint.groups import GroupOffsets, check_left
from driftline.streams.savepoint.tasks import scope_of
from driftline.streams.state.checkpoints import Checkpoints
from driftline.streams.state.manifest import encode_reference
from driftline.streams.state.retention import all_keys
from driftline.streams.state.store import Store
from driftline.streams.task import PartitionId, StateDelta
from driftline.streams.wiring import TaskPlace, tasks_of

_LISTED_MAX: Final = 5
# The join's label cache is not saved: without it, the labels topic fills it as of the checkpoint.
_CACHES: Final = ("labels", "labels:bounds")


@dataclass(frozen=True, slots=True)
class _Move:
    """A task of the savepoint, where it goes, and its offsets there."""

    saved: SavedTask
    place: TaskPlace
    offsets: dict[PartitionId, int]


class Import:
    """One import: `changes` to show, `check`, then `write`.

    Parameters
    ----------
    now_ms : wall time, noted in the checkpoints.
    say : told, for a person, that it waits.

    Raises
    ------
    SavepointError : the savepoint's tasks or partitions are not those of this installation.
    """

    def __init__(
        self, reader: SavepointReader, config: Config, cluster: Cluster, store: Store, *, now_ms: Callable[[], int],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._reader = reader
        self._config, self._cluster = config, cluster
        self._store = store
        self._now_ms = now_ms
        self._say = say
        self.contents: Contents = reader.contents
        self._here = World.of(config, cluster)
        self.changes = changes(self.contents.world, self._here)
        _check_partitions(self.contents.world, self._here)
        places = {(place.processor, place.name): place for place in tasks_of(config, cluster)}
        self._moves = [self._move(saved, places) for saved in self.contents.tasks]
        held = {(saved.processor, saved.task) for saved in self.contents.tasks}
        self.absent = [place.name for key, place in places.items() if key not in held]

    def check(self, admin: AdminClient, *, replace: bool) -> None:
        """Refuse whatever would make the workers go on wrongly; writes nothing.

        Raises
        ------
        StateError : workers run, state exists and `replace` is not given, records after the offsets are gone, or the tasks
            wrote more after the savepoint.
        """
        check_left(admin, dict.fromkeys(place.group for place in tasks_of(self._config, self._cluster)), self._say)
        with ExitStack() as opened:
            groups = self._groups(opened)
            if not replace:
                self._check_empty(groups)
            for move in self._moves:
                for key, offset in move.offsets.items():
                    low, high = groups[move.place.group].bounds(key)
                    if not low <= offset <= high:
                        place = f'task "{move.place.name}": {key[0]}/{key[1]}'
                        raise StateError(
                            f"{place}: the savepoint goes on at {offset}, the topic holds {low} to {high}",
                            hint="the topics must hold the same records at the same offsets as when the savepoint was taken",
                        )
            self._check_ends(next(iter(groups.values())))

    def write(self) -> None:
        """State to Redis, then offsets to Kafka.

        Raises
        ------
        StateError : a worker started meanwhile.
        AwayError : Kafka or Redis does not answer; import again with `replace`.
        """
        references = [(move, self._write_state(move)) for move in self._moves]
        self._write_live_since()
        with ExitStack() as opened:
            for name, group in self._groups(opened).items():
                group.commit(
                    {key: (at, text) for move, text in references if move.place.group == name for key, at in move.offsets.items()}
                )

    def _move(self, saved: SavedTask, places: dict[tuple[str, str], TaskPlace]) -> _Move:
        place = places.get((saved.processor, saved.task))
        if place is None:
            raise SavepointError(
                f'task "{saved.task}" of the savepoint is none of this configuration\'s',
                hint="import with the configuration it was exported with (sources, label ages); change that after a first run",
            )
        world = self.contents.world
        offsets = {(_topic_here(topic, world, self._here), partition): offset for topic, partition, offset in saved.offsets}
        if offsets.keys() != place.inputs:
            raise SavepointError(f'task "{saved.task}" of the savepoint reads other partitions than the configuration has for it')
        return _Move(saved, place, offsets)

    def _groups(self, opened: ExitStack) -> dict[str, GroupOffsets]:
        names = dict.fromkeys(move.place.group for move in self._moves)
        return {name: opened.enter_context(GroupOffsets(self._config.kafka, name)) for name in names}

    def _check_empty(self, groups: dict[str, GroupOffsets]) -> None:
        heads = [scope_of(move.place, self._config, self._cluster).keys(move.place.name).head for move in self._moves]
        found = [
            move.place.name
            for move, head in zip(self._moves, self._store.read(heads), strict=True)
            if head or groups[move.place.group].committed(move.place.inputs)
        ]
        if found:
            more = f" and {len(found) - _LISTED_MAX} more" if len(found) > _LISTED_MAX else ""
            raise StateError(
                f"there is state of {', '.join(found[:_LISTED_MAX])}{more}: a checkpoint in Redis or a committed offset",
                hint="--replace gives it up for the savepoint's",
            )

    def _check_ends(self, reader: GroupOffsets) -> None:
        """The same topics must end where they ended, or what was written since would be written a second time."""
        world = self.contents.world
        same = {t for t, id_ in world.topic_ids.items() if world.cluster_id == self._here.cluster_id and self._here.topic_ids.get(t) == id_}
        sizes = self._here.partitions
        ends = {(topic, number): offset for topic, number, offset in self.contents.ends if topic in same and number < sizes.get(topic, 0)}
        found = reader.records_after(ends)
        if found is not None:
            raise StateError(
                f"{found[0]}/{found[1]} has records that were written after the savepoint: going on from it would write them again",
                hint="take a savepoint of stopped workers and import it before they run again",
            )

    def _write_state(self, move: _Move) -> str:
        """One task into Redis; the metadata to commit with its offsets."""
        place, saved = move.place, move.saved
        # The configuration it was made under goes with it: a run under another one must notice.
        scope = replace(scope_of(place, self._config, self._cluster), config=saved.config)
        keys = scope.keys(place.name)
        former = all_keys(self._store.read, keys, place.name)
        checkpoints = Checkpoints(self._store, scope, place.name, place.inputs, now_ms=self._now_ms)
        checkpoints.claim(saved.epoch)
        # A base checkpoint in Kafka stands for this state only where it is this installation's own.
        checkpoints.seed(self._reader.state(saved), saved.sequence, "" if self.changes else saved.base)
        write, reference = checkpoints.prepare(StateDelta(), move.offsets)
        write.deletes.extend([*former, *map(keys.of, _CACHES)])
        self._store.write([write])
        return encode_reference(reference)

    def _write_live_since(self) -> None:
        if self.contents.live_since_ms is None:
            return
        key = live_since_key(self._config.redis.key_prefix, self._config.environment, self._cluster.cluster_id)
        client = connect(self._config.redis, timeout_seconds=5)
        try:
            with redis_errors(client):
                client.set(key, self.contents.live_since_ms)
        finally:
            client.close()


def changes(saved: World, here: World) -> list[str]:
    """What is not as it was where the savepoint was taken, a line each; empty = the same installation on the same topics."""
    found = []
    ids = "every event and episode gets another id than it would have had"
    if saved.environment != here.environment:
        found.append(f'environment "{saved.environment}" -> "{here.environment}": {ids}')
    if saved.cluster_id != here.cluster_id:
        found.append(f'cluster "{saved.cluster_id}" -> "{here.cluster_id}": {ids}')
    if saved.topics_prefix != here.topics_prefix:
        found.append(f'topics "{saved.topics_prefix}.*" -> "{here.topics_prefix}.*": read and written there, from the same offsets on')
    if saved.group_prefix != here.group_prefix:
        found.append(f'groups "{saved.group_prefix}.*" -> "{here.group_prefix}.*"')
    if saved.key_prefix != here.key_prefix:
        found.append(f'keys in Redis "{saved.key_prefix}:*" -> "{here.key_prefix}:*"')
    for topic, id_ in saved.topic_ids.items():
        now = here.topic_ids.get(_topic_here(topic, saved, here))
        if now is not None and now != id_:
            found.append(f'topic "{topic}" {id_} -> {now}: must hold the same records at the same offsets; events carry their source\'s id')
    return found


def _check_partitions(saved: World, here: World) -> None:
    for topic, count in saved.partitions.items():
        name = _topic_here(topic, saved, here)
        now = here.partitions.get(name)
        if now is not None and now != count:
            raise SavepointError(
                f'topic "{name}" has {now} partitions, the savepoint was taken with {count}: its state belongs to partitions',
                hint="another number of partitions needs a new topics.prefix and a run from the predictions on",
            )


def _topic_here(topic: str, saved: World, here: World) -> str:
    """The name of a topic in this installation: ours go by the prefix, the users' have the same name everywhere."""
    prefix, _, name = topic.rpartition(".")
    ours = prefix == saved.topics_prefix and name in {table.name for table in TOPICS}
    return f"{here.topics_prefix}.{name}" if ours else topic
