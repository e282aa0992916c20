"""Events of consumer groups, as their coordinator sees them: members that were put out, and
partitions of the groups' topic that moved here.

Owns who led each partition of that topic before, and what happened since the last tick.

Invariants
* Nothing is decided by it.
* However many groups there are, a bounded number of members is named in a while. The others are
  counted, and told of in one event when the while is over.
* Partitions that come from the same broker are one event, told once their groups can be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from minilog.core.broker.coordinator.group_shard import GroupShard
from minilog.core.broker.state import LocalState
from minilog.core.groups.sessions import MemberOut
from minilog.core.replication.leader import LeaderState
from minilog.wire.group_messages import GROUPS_TOPIC
from minilog.wire.journal.events import ERROR, INFO, WARNING, Event, EventKind, Facts
from minilog.wire.journal.metadata_records import NO_LEADER

NAMED_MAX: Final = 10
"""Members that are named in ``WHILE_MS``."""
WHILE_MS: Final = 10_000
LISTED_MAX: Final = 20


class GroupEvents:
    def __init__(self, state: LocalState) -> None:
        self._state = state
        self._led_by: dict[int, int] = {}
        """By partition of the groups' topic: who led it last, beside this leadership."""
        self._from: dict[int, int | None] = {}
        """By partition that is led here: who led it before; None where nobody here has seen
        that."""
        self._loaded: dict[int | None, list[GroupShard]] = {}
        self._named = self._unnamed = self._ends_ms = 0

    def on_metadata(self) -> None:
        topic = self._state.image.topics.get(GROUPS_TOPIC)
        for state in topic.partitions.values() if topic is not None else ():
            if state.leader not in (NO_LEADER, self._state.broker_id):
                self._led_by[state.partition] = state.leader

    def on_lead(self, role: LeaderState) -> None:
        self._from[role.state.partition] = self._led_by.get(role.state.partition)

    def on_leave(self, partition: int) -> None:
        self._led_by[partition] = self._state.broker_id
        self._from.pop(partition, None)
        for shards in self._loaded.values():
            shards[:] = [shard for shard in shards if shard.partition.partition != partition]

    def on_loaded(self, shard: GroupShard, now_ms: int) -> None:
        """Its groups can be asked for from now on. The first leadership there ever was is no
        move."""
        if shard.role.leader_epoch > 0:
            shard.loaded_after_ms = now_ms - shard.role.began_ms
            self._loaded.setdefault(self._from.get(shard.partition.partition), []).append(shard)

    def on_damage(self, shard: GroupShard, now_ms: int) -> None:
        broker_id = self._state.broker_id
        sentence = f"broker {broker_id} cannot read the groups in {shard.partition}: {shard.damage}"
        where = broker_id, *shard.partition
        self._add(Event(self._state.wall_ms(now_ms), EventKind.GROUPS_UNREADABLE, ERROR, sentence, *where))

    def on_out(self, out: Sequence[MemberOut], now_ms: int) -> None:
        if out and now_ms >= self._ends_ms:
            self._tell_unnamed(now_ms)
            self._named, self._ends_ms = 0, now_ms + WHILE_MS
        for one in out:
            if self._named < NAMED_MAX:
                self._named += 1
                self._add(self._out(one, now_ms))
            else:
                self._unnamed += 1

    def tick(self, now_ms: int) -> None:
        if self._unnamed and now_ms >= self._ends_ms:
            self._tell_unnamed(now_ms)
        loaded, self._loaded = self._loaded, {}
        for before, shards in loaded.items():
            if shards:
                self._add(self._moved(before, shards, now_ms))

    # --- sentences --------------------------------------------------------------------------------

    def _add(self, event: Event) -> None:
        self._state.events.add(event)

    def _out(self, out: MemberOut, now_ms: int) -> Event:
        client = f" ({out.client_id})" if out.client_id else ""
        what = "is not heard any more before it joins anew" if out.is_expelled else "was put out"
        sentence = f"member {out.member_id}{client} of group {out.group} {what}: {out.why}"
        sentence += f"; it held {out.partitions} partition{'' if out.partitions == 1 else 's'}"
        facts: Facts = {
            "group": out.group,
            "member_id": out.member_id,
            "silent_ms": out.silent_ms,
            "partitions": out.partitions,
        }
        at_ms = self._state.wall_ms(now_ms)
        return Event(at_ms, EventKind.MEMBER_EXPELLED, WARNING, sentence, self._state.broker_id, facts=facts)

    def _tell_unnamed(self, now_ms: int) -> None:
        count, self._unnamed = self._unnamed, 0
        if count:
            broker_id = self._state.broker_id
            sentence = f"{count} more members were put out of groups that broker {broker_id} coordinates"
            at_ms = self._state.wall_ms(now_ms)
            self._add(Event(at_ms, EventKind.MEMBER_EXPELLED, WARNING, sentence, broker_id, count=count))

    def _moved(self, before: int | None, shards: list[GroupShard], now_ms: int) -> Event:
        broker_id, groups = self._state.broker_id, sum(len(shard.groups.groups) for shard in shards)
        names = [f"{shard.partition} in leader epoch {shard.role.leader_epoch}" for shard in shards]
        what = names[0] if len(names) == 1 else f"{len(names)} partitions of {GROUPS_TOPIC}"
        whom = "in place of whom this broker has not seen"
        if before is not None:
            whom = "again" if before == broker_id else f"in place of broker {before}"
        took_ms = max(shard.loaded_after_ms for shard in shards)
        sentence = (
            f"broker {broker_id} coordinates the {groups} groups of {what}, {whom}; it had read them after {took_ms} ms"
        )
        facts: Facts = {"partitions": names[:LISTED_MAX], "groups": groups, "read_after_ms": took_ms}
        if before is not None:
            facts["from"] = before
        single = shards[0].partition.partition if len(shards) == 1 else None
        where = (broker_id, GROUPS_TOPIC, single, len(shards), facts)
        return Event(self._state.wall_ms(now_ms), EventKind.COORDINATOR_MOVED, INFO, sentence, *where)
