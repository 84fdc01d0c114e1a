"""The group coordinator of the Kafka in memory: members, generations, who owns which partition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from confluent_kafka import KafkaError, KafkaException

from driftline.streams.task import PartitionId

Kind = Literal["assign", "revoke", "lost"]


@dataclass(slots=True, eq=False)
class Member:
    """One consumer as the coordinator knows it; `fresh`: it has yet to be told what it owns; `left`: it said goodbye (KIP-848)."""

    id: str
    instance: str
    seen: float
    generation: int = -1
    assigned: set[PartitionId] = field(default_factory=set)
    joined: bool = False
    fresh: bool = False
    left: bool = False


def failed(code: int, *, abort: bool = False, fatal: bool = False, retriable: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, KafkaError(code).name(), fatal, retriable, abort))


class Group:
    """Classic: everybody gives up everything, then all join anew. Incremental (KIP-848): only what moves is given up.

    Attributes
    ----------
    turn : shifts which member gets which partition number; both topics of a number go to one member.
    pins : partitions given to the member of an instance whatever `turn` says: one topic of a number may so be apart.
    """

    def __init__(self, partitions: list[PartitionId], now: Callable[[], float], *, incremental: bool, session_seconds: float) -> None:
        self._partitions = partitions
        self._now = now
        self._session = session_seconds
        self._count = 0
        self.incremental = incremental
        self.members: dict[str, Member] = {}
        self.generation = 0
        self.preparing = False
        self.turn = 0
        self.pins: dict[PartitionId, str] = {}

    def join(self, instance: str) -> Member:
        """A member; it takes over from one of the same instance, which is fenced. By KIP-848 that one must have left."""
        old = next((m for m in self.members.values() if m.instance == instance), None)
        if old is not None and self.incremental and not old.left:
            raise failed(KafkaError.UNRELEASED_INSTANCE_ID, fatal=True)
        self._count += 1
        member = Member(f"{instance}-{self._count}", instance, self._now())
        self.members = {**{key: m for key, m in self.members.items() if m is not old}, member.id: member}
        if old is not None and (self.incremental or not self.preparing):
            member.assigned, member.generation, member.joined, member.fresh = old.assigned, old.generation, True, True
        else:
            self.rebalance()
        return member

    def rebalance(self) -> None:
        """Begin one: a member came or went, or partitions are to move."""
        if self.incremental:
            self.generation += 1
            return
        self.preparing = True
        for member in self.members.values():
            member.joined = False
        self._complete()

    def expire(self) -> None:
        """Throw out who was not heard of for a session."""
        gone = [m.id for m in self.members.values() if m.seen + self._session < self._now()]
        for id_ in gone:
            del self.members[id_]
        if gone:
            self.rebalance()

    def reconcile(self, member: Member) -> tuple[Kind, set[PartitionId]] | None:
        """The answer to a heartbeat: what the member has to give up or may take."""
        if self.incremental:
            return self._reconcile_incremental(member)
        if self.preparing and not member.joined:
            if member.assigned and not member.fresh:
                return "revoke", set(member.assigned)
            self.given_up(member, set(member.assigned))
        if not self.preparing and member.fresh:
            member.fresh = False
            return "assign", set(member.assigned)
        return None

    def given_up(self, member: Member, partitions: set[PartitionId]) -> None:
        """The member's answer to a revocation."""
        member.assigned -= partitions
        member.joined = True
        self._complete()

    def check(self, member_id: str, generation: int, instance: str) -> None:
        """What the broker checks of a transaction's offsets: membership, never ownership.

        Neither member nor generation passes, as Kafka lets producers from before KIP-447 pass.
        """
        self.expire()
        if generation < 0 and not member_id:
            return
        member = self.members.get(member_id)
        if member is None:
            fenced = any(m.instance == instance for m in self.members.values())
            raise failed(KafkaError.FENCED_INSTANCE_ID if fenced else KafkaError.UNKNOWN_MEMBER_ID, abort=True)
        if generation != member.generation:
            raise failed(KafkaError.ILLEGAL_GENERATION, abort=True)

    def _reconcile_incremental(self, member: Member) -> tuple[Kind, set[PartitionId]] | None:
        mine = {key for key in self._partitions if self._target(key) is member}
        if member.fresh:
            member.fresh = False
            return "assign", set(member.assigned)
        if surplus := member.assigned - mine:
            return "revoke", surplus
        member.generation = self.generation
        taken = set[PartitionId]().union(*(m.assigned for m in self.members.values()))
        if free := mine - taken:
            member.assigned |= free
            return "assign", free
        return None

    def _complete(self) -> None:
        if not self.preparing or not all(m.joined for m in self.members.values()):
            return
        self.preparing = False
        self.generation += 1
        for member in self.members.values():
            member.generation, member.fresh = self.generation, True
            member.assigned = {key for key in self._partitions if self._target(key) is member}

    def _target(self, key: PartitionId) -> Member:
        members = sorted(self.members.values(), key=lambda m: m.instance)
        pinned = next((m for m in members if m.instance == self.pins.get(key)), None)
        return pinned or members[(key[1] + self.turn) % len(members)]
