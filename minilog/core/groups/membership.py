"""Membership: one step of one group in the making: who is in it, who is to own what, who has been
given what.

Owns the working copy only: a ``GroupDraft`` is made from a group's value, changed, and turned into
its next value.

Two things are kept apart. ``target`` is what a member is to own in the end. It is computed for all
members at once, and each time that happens the group's epoch grows by one. ``held`` is what a
member was given and has not given back. Invariants:
* A partition is in the ``held`` of one member at most, whatever the targets say: it is given only
  when nobody holds it.
* What leaves a member's target stays in its ``held``, marked with the epoch in which it was told to
  give it back, until the member names that epoch (or a later one) and does not list the partition
  any more. So neither a lost answer nor a late copy of an older heartbeat can free what a member
  still works on.
* A topic that was deleted and made anew is given to nobody while partitions of the old one are
  held. So ``held_ids`` has one topic id for a name: what members hold, commit and are told is about
  that very topic.
* ``target`` and ``topics`` are functions of members, their subscriptions, the former target, and
  the topics there are.

Source: KIP-848 (epochs, cooperative hand-over on the server), KIP-429 (revoke before give).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping

from msgspec.structs import replace

from minilog.core.groups.assignment import Subscriber, TopicPart, assign
from minilog.wire.group_messages import TopicPartitions
from minilog.wire.journal.group_records import NOT_REVOKED, GroupValue, Held, MemberValue, TopicShape

EMPTY = GroupValue(0, "")
Topics = Mapping[str, TopicShape]
Matches = Callable[[str], Iterable[str]]
"""pattern -> names of the topics it fits."""


def parts_of(partitions: Mapping[str, Iterable[int]]) -> set[TopicPart]:
    return {(topic, partition) for topic, numbers in partitions.items() for partition in numbers}


def listed_parts(entries: Iterable[TopicPartitions]) -> set[TopicPart]:
    """All of them, however many entries a topic has."""
    return {(entry.topic, partition) for entry in entries for partition in entry.partitions}


def owners_of(group: GroupValue) -> dict[TopicPart, str]:
    """Who holds what. Every partition at most once."""
    owners: dict[TopicPart, str] = {}
    for member_id, member in group.members.items():
        for part in parts_of(member.held):
            assert part not in owners, f"{part} is held by {owners[part]} and by {member_id}"
            owners[part] = member_id
    return owners


def missing(member: MemberValue) -> list[TopicPart]:
    """What the member is to own and has not been given yet."""
    return [
        (topic, partition)
        for topic, numbers in member.target.items()
        for partition in numbers
        if partition not in member.held.get(topic, ())
    ]


def held_id(group: GroupValue, topic: str) -> str:
    """The id of the topic that members hold partitions of under this name. A group of an older
    version says for which topics its targets are. Of another one nothing was given. "" when it does
    not say that either."""
    shape = group.topics.get(topic)
    return group.held_ids.get(topic) or ("" if shape is None else shape.topic_id)


def revoked(member: MemberValue) -> bool:
    return any(held.revoked for of_topic in member.held.values() for held in of_topic.values())


def has_given_back(member: MemberValue, owned: set[TopicPart], told_epoch: int) -> bool:
    """The member has been told everything it was to give back, and works on none of it any more."""
    return all(
        part not in owned and given.revoked <= told_epoch for part, given in _flat(member).items() if given.revoked
    )


def is_settled(group: GroupValue) -> bool:
    """Everybody has what it is to own, and nothing else."""
    return not any(revoked(member) or missing(member) for member in group.members.values())


def subscriptions(members: Mapping[str, MemberValue], topics: Topics, matches: Matches) -> dict[str, frozenset[str]]:
    """The topics there are that each member subscribes to. One set for all that subscribe alike."""
    known: dict[tuple[str, ...], frozenset[str]] = {}
    wanted = {}
    for member_id, member in members.items():
        key = (member.pattern,) if member.pattern else ("", *member.topics)
        if key not in known:
            names = matches(member.pattern) if member.pattern else member.topics
            known[key] = frozenset(name for name in names if name in topics)
        wanted[member_id] = known[key]
    return wanted


class GroupDraft:
    def __init__(self, group: GroupValue, topics: Topics, matches: Matches) -> None:
        self.group = group
        self.members = dict(group.members)
        self.epoch, self.assignor, self.topics = group.epoch, group.assignor, group.topics
        self.emptied_ms = group.emptied_ms
        self.is_changed = False
        self._all_topics, self._matches = topics, matches
        self._held_ids: dict[str, str] = {}
        """Of what is given in this step."""
        self.is_due = False
        """Targets must be computed anew."""
        self.waits_for_topic = False
        """A topic was made anew and takes part again when all of the old one is given back."""

    def value(self) -> GroupValue:
        held = {topic for member in self.members.values() for topic in member.held}
        ids = {topic: topic_id for topic in sorted(held) if (topic_id := self.held_id(topic))}
        return GroupValue(self.epoch, self.assignor, self.members, self.topics, self.emptied_ms, ids)

    def held_id(self, topic: str) -> str:
        """The id of the topic that members hold partitions of under this name; "" unknown."""
        return self._held_ids.get(topic) or held_id(self.group, topic)

    # --- members ----------------------------------------------------------------------------------

    def put(self, member_id: str, member: MemberValue, *, retarget: bool) -> None:
        """Add a member or change one. ``retarget``: its subscription is new."""
        self.members[member_id] = member
        self.is_changed = True
        self.is_due = self.is_due or retarget

    def remove(self, member_id: str, wall_ms: int) -> None:
        del self.members[member_id]
        self.is_changed = self.is_due = True
        if not self.members:
            self.emptied_ms = wall_ms

    def send_away(self, member_id: str) -> None:
        """A static member is gone for now: what it was to own waits for it, what it was giving back
        is free."""
        member = self.members[member_id]
        self.put(member_id, replace(member, away=True, held=_unrevoked(member)), retarget=False)

    def of_instance(self, instance_id: str) -> str | None:
        return next((m for m, v in self.members.items() if v.instance_id == instance_id), None)

    def succeed(self, old_id: str, new_id: str) -> None:
        """A static member comes back under another id, in the place of the old one."""
        old = self.members[old_id]
        joined_epoch = self.epoch
        if old_id == new_id:  # another epoch, or what its old process said would count for the new one
            joined_epoch, self.is_due = self.epoch + 1, True
        heir = replace(old, away=False, held=_unrevoked(old), joined_epoch=joined_epoch)
        self.members = {(new_id if m == old_id else m): (heir if m == old_id else v) for m, v in self.members.items()}
        self.is_changed = True

    # --- partitions -------------------------------------------------------------------------------

    def release(self, member_id: str, owned: set[TopicPart], told_epoch: int) -> None:
        """Free what the member was told, in ``told_epoch`` at the latest, to give back, and does
        not list any more."""
        member = self.members[member_id]
        held = _flat(member)
        kept = {p: h for p, h in held.items() if p in owned or not NOT_REVOKED < h.revoked <= told_epoch}
        if len(kept) < len(held):
            self._hold(member_id, kept)

    def give(self, member_id: str, owners: Mapping[TopicPart, str]) -> None:
        """Give the member what it is to own and nobody holds. ``owners``: who held what before this
        step."""
        member = self.members[member_id]
        wanted = [part for part in missing(member) if self._is_free(part, owners)]
        if wanted:
            self._hold(member_id, {**_flat(member), **{part: Held(self.epoch) for part in wanted}})
            self._held_ids.update((topic, self.topics[topic].topic_id) for topic, _ in wanted)

    def _is_free(self, part: TopicPart, owners: Mapping[TopicPart, str]) -> bool:
        owner = self.members.get(owners.get(part, ""))
        return owner is None or part[1] not in owner.held.get(part[0], ())

    def _hold(self, member_id: str, held: Mapping[TopicPart, Held]) -> None:
        self.members[member_id] = replace(self.members[member_id], held=_nested(held))
        self.is_changed = True

    # --- targets ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Compute the targets anew, in a new epoch, when members, subscriptions or topics have
        changed."""
        wanted = subscriptions(self.members, self._all_topics, self._matches)
        topics = self._shapes(set(wanted.values()))
        if not self.is_due and topics == self.topics:
            return
        self.is_due, self.is_changed = False, True
        self.epoch, self.topics = self.epoch + 1, topics
        if not self.members:
            self.assignor, self.topics = "", {}
            return
        self.emptied_ms = 0
        self.assignor = next(iter(self.members.values())).assignor
        same = {t for t, shape in topics.items() if self.group.topics.get(t, shape).topic_id == shape.topic_id}
        subscribers = [
            Subscriber(m, v.instance_id or m, wanted[m], _parts_in(v.target, same)) for m, v in self.members.items()
        ]
        targets = assign(self.assignor, subscribers, {t: shape.partitions for t, shape in topics.items()})
        for subscriber in subscribers:
            target = targets[subscriber.member_id]
            if target != subscriber.current or not _is_as_aimed(self.members[subscriber.member_id], len(target)):
                self._aim(subscriber.member_id, target)

    def _shapes(self, wanted: Iterable[frozenset[str]]) -> dict[str, TopicShape]:
        """The topics to share out. One that was deleted and made anew is none until all of the old
        one is given back."""
        held = {name for member in self.members.values() for name in member.held}
        names = sorted(frozenset().union(*wanted))
        remade = {name for name in names if name in held and self._is_remade(name)}
        self.waits_for_topic = bool(remade)
        return {name: self._all_topics[name] for name in names if name not in remade}

    def _is_remade(self, name: str) -> bool:
        """What is held under this name is of another topic; or nobody knows of which."""
        return self.held_id(name) != self._all_topics[name].topic_id

    def _aim(self, member_id: str, target: set[TopicPart]) -> None:
        member = self.members[member_id]
        held = {}
        for part, given in _flat(member).items():
            if part in target:
                held[part] = Held(given.epoch)
            elif not member.away:
                held[part] = given if given.revoked else Held(given.epoch, self.epoch)
        self.members[member_id] = replace(member, target=_listed(target), held=_nested(held))


def _is_as_aimed(member: MemberValue, count: int) -> bool:
    """The member is to own ``count`` partitions already, holds no other ones, and gives none of
    them back. Most members are so, and the same target changes nothing of them."""
    if sum(map(len, member.target.values())) != count:
        return False  # some are of a topic that is another one by now
    for topic, of_topic in member.held.items():
        numbers = member.target.get(topic, ())
        for partition, held in of_topic.items():
            if held.revoked or partition not in numbers:
                return False
    return True


def _parts_in(target: Mapping[str, Iterable[int]], topics: Container[str]) -> frozenset[TopicPart]:
    """What was to be owned so far of topics that are still the same ones."""
    return frozenset((topic, partition) for topic in target if topic in topics for partition in target[topic])


def _flat(member: MemberValue) -> dict[TopicPart, Held]:
    return {(topic, p): held for topic, of_topic in member.held.items() for p, held in of_topic.items()}


def _nested(held: Mapping[TopicPart, Held]) -> dict[str, dict[int, Held]]:
    nested: dict[str, dict[int, Held]] = {}
    for topic, partition in sorted(held):
        nested.setdefault(topic, {})[partition] = held[topic, partition]
    return nested


def _unrevoked(member: MemberValue) -> dict[str, dict[int, Held]]:
    return _nested({part: held for part, held in _flat(member).items() if not held.revoked})


def _listed(parts: Iterable[TopicPart]) -> dict[str, list[int]]:
    listed: dict[str, list[int]] = {}
    for topic, partition in sorted(parts):
        listed.setdefault(topic, []).append(partition)
    return listed
