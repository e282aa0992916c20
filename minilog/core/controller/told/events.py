"""Events of the controller: what a step of the journal means, in sentences.

Pure: from the image before the step, and its records. Changes of one kind that belong together are
one event with a count, however many partitions they concern. Nothing is decided by an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from minilog.core.controller.decision import Decision, Leaving
from minilog.core.controller.told.failovers import FailoverKind
from minilog.core.controller.told.move_events import move_events
from minilog.core.controller.told.names import LISTED_MAX, asked_from, named
from minilog.core.image import ClusterImage, PartitionState, min_isr
from minilog.wire.journal.events import ERROR, INFO, WARNING, Event, EventKind, Facts
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    BrokerRemoved,
    BrokerShuttingDown,
    BrokerUnfenced,
    ControllerStarted,
    DiskState,
    EventNoted,
    FailoverNoted,
    LostClaimed,
    MetadataRecord,
    PartitionChanged,
    TopicConfigured,
    TopicCreated,
    TopicDeleted,
    UncleanElection,
)
from minilog.wire.messages import FailoverInfo, Heartbeat, IsrLeaver

_WHY = {
    FailoverKind.REFUSED: "its address refuses connections, so its process is dead",
    FailoverKind.REPLACED: "another process answers at its address",
    FailoverKind.TIMEOUT: "its heartbeats stopped",
    FailoverKind.SHUTDOWN: "it left as it had said",
}
_DISK = {
    DiskState.SAME: "",
    DiskState.UNCLEAN: ", after a stop that may have cost it what was not yet durable",
    DiskState.OTHER: ", with another disk than it had or an older copy: it counts for nothing until it has caught up",
}


def with_events(image: ClusterImage, decision: Decision, at_ms: int) -> list[MetadataRecord]:
    """The records of one step, and behind them what they mean. Events know their place."""
    noted = [EventNoted(0, event) for event in events_of(image, decision, at_ms)]
    step = [*decision.records, *noted]
    for place, record in enumerate(step):
        if isinstance(record, EventNoted):
            step[place] = replace(record, number=image.metadata_offset + 1 + place)
    return step


def restored(image: ClusterImage, step: Sequence[MetadataRecord], at_ms: int) -> list[MetadataRecord]:
    """Behind a step that ends failovers: that it does. A broker that was lost often is back
    once."""
    open_now = {info.number: info for info in image.failovers if info.restored_ms is None}
    back: dict[int, FailoverInfo] = {}
    for record in step:
        if isinstance(record, FailoverNoted) and record.info.restored_ms is not None and record.info.number in open_now:
            back[record.info.broker_id] = record.info
    first = image.metadata_offset + len(step) + 1
    return [EventNoted(number, _of_return(info, at_ms)) for number, info in enumerate(back.values(), first)]


def _of_return(info: FailoverInfo, at_ms: int) -> Event:
    after_ms = (info.restored_ms or 0) - info.last_heard_ms
    when = f"{after_ms} ms after it was last heard before it was lost"
    if not info.is_heard:
        when = f"more than {after_ms} ms after it was lost, before the controller had heard it"
    sentence = f"broker {info.broker_id} is in sync again everywhere, {when}"
    facts: Facts = {"failover": info.number, "after_ms": after_ms}
    return Event(at_ms, EventKind.BROKER_RESTORED, INFO, sentence, info.broker_id, facts=facts)


def untold(image: ClusterImage, request: Heartbeat) -> list[MetadataRecord]:
    """What the process has seen and nobody has noted. A late copy tells of nothing new."""
    noted = image.noted.get(request.incarnation, 0)
    return [
        EventNoted(0, seen.event, request.incarnation, seen.number) for seen in request.events if seen.number > noted
    ]


def lost_by_all(image: ClusterImage, state: PartitionState, missing: int, at_ms: int) -> Event:
    """A recovery has found less than was committed, on all who were complete."""
    policy = image.topics[state.topic].settings.flush_policy
    sentence = (
        f"at least {missing} committed records of {state.topic}-{state.partition} are lost: the longest of its logs ends "
        f"before them, after all replicas have stopped at once (flush.policy={policy}: what is acknowledged need not be "
        "on a disk)"
    )
    facts: Facts = {"leader_epoch": state.leader_epoch, "missing": missing, "flush_policy": policy}
    where = (None, state.topic, state.partition)
    return Event(at_ms, EventKind.COMMITTED_LOST, ERROR, sentence, *where, missing, facts)


def events_of(image: ClusterImage, decision: Decision, at_ms: int) -> list[Event]:
    """What ``decision`` will change in ``image``, for people."""
    return [*_of_cluster(image, decision, at_ms), *_of_partitions(image, decision, at_ms)]


def _of_cluster(image: ClusterImage, decision: Decision, at_ms: int) -> Iterator[Event]:
    records = decision.records
    partitions = sum(isinstance(record, PartitionChanged) for record in records)
    for record in records:
        match record:
            case ControllerStarted():
                yield Event(
                    at_ms,
                    EventKind.CONTROLLER_STARTED,
                    INFO,
                    f"the controller has started, in controller epoch {record.controller_epoch}"
                    + (f", with version {record.version}" if record.version else ""),
                    facts={"controller_epoch": record.controller_epoch, "version": record.version},
                )
            case BrokerRegistered() | BrokerUnfenced() | BrokerFenced() | BrokerShuttingDown():
                yield _of_broker(image, record, at_ms)
            case BrokerRemoved():
                sentence = f"broker {record.broker_id} was removed from the cluster{asked_from(decision.asked_by)}"
                yield Event(at_ms, EventKind.BROKER_REMOVED, INFO, sentence, broker_id=record.broker_id)
            case TopicCreated():
                sentence = (
                    f"topic {record.topic} was created with {partitions} partitions{asked_from(decision.asked_by)}"
                )
                facts: Facts = {"topic_id": record.topic_id, "partitions": partitions, "asked_by": decision.asked_by}
                yield Event(at_ms, EventKind.TOPIC_CREATED, INFO, sentence, topic=record.topic, facts=facts)
            case TopicConfigured():
                yield _of_settings(image, record, decision.asked_by, at_ms)
            case TopicDeleted():
                sentence = f"topic {record.topic} was deleted, and its records with it{asked_from(decision.asked_by)}"
                facts = {"topic_id": record.topic_id, "asked_by": decision.asked_by}
                yield Event(at_ms, EventKind.TOPIC_DELETED, INFO, sentence, topic=record.topic, facts=facts)
            case UncleanElection():
                yield _of_unclean(record)
            case LostClaimed():
                yield from _of_claim(image, record, at_ms)


def _of_settings(image: ClusterImage, record: TopicConfigured, asked_by: str, at_ms: int) -> Event:
    before, after = image.topics[record.topic].config, record.config
    keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    changes = [f"{key}={after[key]}" if key in after else f"{key} as by default" for key in keys]
    sentence = f"topic {record.topic} has other settings: {', '.join(changes)}{asked_from(asked_by)}"
    facts: Facts = {"topic_id": record.topic_id, "changes": changes, "asked_by": asked_by}
    return Event(at_ms, EventKind.TOPIC_CONFIGURED, INFO, sentence, topic=record.topic, facts=facts)


def _of_broker(
    image: ClusterImage, record: BrokerRegistered | BrokerUnfenced | BrokerFenced | BrokerShuttingDown, at_ms: int
) -> Event:
    broker = image.brokers.get(record.broker_id)
    name, level = f"broker {record.broker_id}", INFO
    facts: Facts = {"broker_epoch": record.broker_epoch}
    match record:
        case BrokerRegistered():
            kind, sentence = EventKind.BROKER_REGISTERED, f"{name} has registered from {record.url}"
            sentence += f" with version {record.version}" if record.version else ""
            if broker is not None and broker.version != record.version:
                sentence += f" (before: {broker.version or 'an older one'})"
            sentence += _DISK[record.disk] if broker is not None else ", for the first time"
            level = WARNING if record.disk is DiskState.OTHER else INFO
            facts |= {"disk": record.disk.value, "lost_replicas": len(record.lost), "version": record.version}
        case BrokerUnfenced():
            kind, sentence = EventKind.BROKER_UNFENCED, f"{name} is in service, in broker epoch {record.broker_epoch}"
        case BrokerShuttingDown():
            kind, sentence = EventKind.BROKER_SHUTTING_DOWN, f"{name} is shutting down as it was told"
        case BrokerFenced():
            kind = EventKind.BROKER_FENCED
            why = _WHY.get(FailoverKind(record.why), "") if record.why else ""
            sentence = f"{name} was fenced: {why or 'the controller gave it up'}"
            if record.silent_ms >= 0:
                sentence += f"; it was last heard {record.silent_ms} ms before"
            is_planned = broker is not None and broker.shutting_down
            level = INFO if is_planned else WARNING
            facts |= {"why": record.why, "silent_ms": record.silent_ms}
    return Event(at_ms, kind, level, sentence, broker_id=record.broker_id, facts=facts)


def _of_unclean(record: UncleanElection) -> Event:
    reaches = ", ".join(f"broker {c.broker_id} to {c.end_offset}" for c in record.candidates)
    decided = "unclean.leader.election.enable of the topic"
    if record.decided_by == "operator":
        decided = f"an operator{asked_from(record.asked_by)}"
    sentence = (
        f"broker {record.leader} was made the leader of {record.topic}-{record.partition} by {decided}, although nobody "
        f"was known to hold all of it (logs reach: {reaches}): at least {record.missing} committed records are lost"
    )
    return Event(
        record.at_ms,
        EventKind.UNCLEAN_ELECTION,
        ERROR,
        sentence,
        record.leader,
        record.topic,
        record.partition,
        facts={
            "leader_epoch": record.leader_epoch,
            "missing": record.missing,
            "decided_by": record.decided_by,
            "asked_by": record.asked_by,
            "candidates": [f"{c.broker_id}:{c.last_epoch}:{c.end_offset}" for c in record.candidates],
        },
    )


def _of_claim(image: ClusterImage, record: LostClaimed, at_ms: int) -> Iterator[Event]:
    """Who takes over what another broker has given up is told of as any other."""
    known = image.lost_claims.get((record.broker_id, record.tail, record.topic, record.partition))
    count = sum(end - base for _, base, end in record.runs)
    sentence = (
        f"broker {record.broker_id} writes lost records of {record.topic}-{record.partition} again, into "
        f"{record.into}-{record.into_partition}: up to {count} of {record.tail}"
    )
    facts: Facts = {"tail": record.tail, "into": record.into, "into_partition": record.into_partition}
    where = (record.broker_id, record.topic, record.partition)
    if record.finished:
        sentence = (
            f"broker {record.broker_id} has written again what it claimed of {record.tail}, into "
            f"{record.into}-{record.into_partition}"
        )
        yield Event(at_ms, EventKind.LOST_WRITTEN, INFO, sentence, *where, count, facts)
    elif known is None:
        yield Event(at_ms, EventKind.LOST_CLAIMED, INFO, sentence, *where, count, facts)
    else:
        before = sum(end - base for _, base, end in known.runs)
        sentence = (
            f"broker {record.broker_id} has another data directory, and had not said that {record.tail} was written again: "
            f"another copy takes over {before - count} records of it, of which some may be written twice"
        )
        yield Event(at_ms, EventKind.LOST_TAKEN_OVER, WARNING, sentence, *where, before - count, facts)


class _Groups:
    """Partitions to which the same happens at once."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, int, int], list[PartitionState]] = {}

    def add(self, kind: str, state: PartitionState, broker_id: int, other: int = NO_LEADER) -> None:
        self.of.setdefault((kind, broker_id, other), []).append(state)


def _of_partitions(image: ClusterImage, decision: Decision, at_ms: int) -> Iterator[Event]:
    records = decision.records
    leaving = {r.broker_id for r in records if isinstance(r, BrokerFenced | BrokerShuttingDown)}
    unclean = {(r.topic, r.partition) for r in records if isinstance(r, UncleanElection)}
    groups = _Groups()
    added: dict[str, list[PartitionState]] = {}
    changes: list[tuple[PartitionState, PartitionState]] = []
    for record in records:
        if not isinstance(record, PartitionChanged) or record.topic not in image.topics:
            continue
        topic = image.topics[record.topic]
        before = topic.partitions.get(record.partition)
        if before is None:
            added.setdefault(record.topic, []).append(record)
            continue
        changes.append((before, record))
        _sort_leader(image, groups, before, record, leaving, is_unclean=(record.topic, record.partition) in unclean)
        _sort_isr(groups, before, record, min_isr(topic, record))
    for topic_name, states in added.items():
        sentence = f"{len(states)} partitions were added to topic {topic_name}{asked_from(decision.asked_by)}"
        facts: Facts = {"asked_by": decision.asked_by}
        yield Event(at_ms, EventKind.PARTITIONS_ADDED, INFO, sentence, topic=topic_name, count=len(states), facts=facts)
    yield from move_events(changes, decision.asked_by, at_ms)
    for (kind, broker_id, other), states in groups.of.items():
        yield _grouped(kind, broker_id, other, states, decision.leaving, at_ms)


def _sort_leader(
    image: ClusterImage,
    groups: _Groups,
    before: PartitionState,
    after: PartitionState,
    leaving: set[int],
    *,
    is_unclean: bool,
) -> None:
    if is_unclean:
        return
    if after.leader != NO_LEADER:
        if before.leader != after.leader:
            groups.add(EventKind.LEADERS_ELECTED, after, after.leader, before.leader)
        return
    is_open = any(image.is_eligible(r) and r not in leaving for r in after.isr or after.elr)
    was_open = before.leader != NO_LEADER or any(image.is_eligible(r) for r in before.isr or before.elr)
    if was_open and not is_open:
        groups.add(EventKind.PARTITIONS_OFFLINE, after, NO_LEADER)
    elif before.leader != NO_LEADER:
        groups.add(EventKind.LEADERS_LOST, after, before.leader)


def _sort_isr(groups: _Groups, before: PartitionState, after: PartitionState, minimum: int) -> None:
    for broker_id in before.isr:
        if broker_id in after.replicas and broker_id not in after.isr:
            groups.add(EventKind.ISR_SHRUNK, after, broker_id)
    for broker_id in after.isr:
        if broker_id not in before.isr:
            groups.add(EventKind.ISR_EXPANDED, after, broker_id)
    if len(after.isr) < minimum <= len(before.isr):
        groups.add(EventKind.UNDER_MIN_ISR, after, NO_LEADER)


def _grouped(
    kind: str, broker_id: int, other: int, states: list[PartitionState], leaving: Leaving, at_ms: int
) -> Event:
    names = [f"{state.topic}-{state.partition}" for state in states]
    what, level = named(names), WARNING
    match kind:
        case EventKind.LEADERS_ELECTED:
            level = INFO
            sentence = f"broker {broker_id} leads {what}" + (
                f", in place of broker {other}" if other != NO_LEADER else ""
            )
        case EventKind.LEADERS_LOST:
            sentence = f"no leader for {what}: broker {broker_id} leads no more, an election is under way"
        case EventKind.PARTITIONS_OFFLINE:
            level = ERROR
            sentence = f"no leader for {what}, so no writes and no reads: nobody who holds all is there"
        case EventKind.ISR_SHRUNK:
            sentence = f"broker {broker_id} is no more in sync for {what}{_behind(broker_id, states, leaving)}"
        case EventKind.ISR_EXPANDED:
            level, sentence = INFO, f"broker {broker_id} is in sync for {what}"
        case _:
            level = ERROR
            sentence = f"too few in-sync replicas for {what}: writes with acks=all are refused"
    single = states[0] if len(states) == 1 else None
    facts: Facts = {"partitions": names[:LISTED_MAX]}
    if single is not None:
        facts |= {"leader_epoch": single.leader_epoch, "isr": " ".join(map(str, single.isr))}
    if kind == EventKind.ISR_SHRUNK:
        facts |= _behind_facts(broker_id, states, leaving)
    return Event(
        at_ms,
        kind,
        level,
        sentence,
        None if broker_id == NO_LEADER else broker_id,
        None if single is None else single.topic,
        None if single is None else single.partition,
        len(states),
        facts,
    )


def _left(broker_id: int, states: list[PartitionState], leaving: Leaving) -> list[tuple[str, IsrLeaver]]:
    """Those of which the leader has said how far behind they were."""
    keys = ((state.topic, state.partition, broker_id) for state in states)
    return [(f"{key[0]}-{key[1]}", leaving[key]) for key in keys if key in leaving]


def _behind(broker_id: int, states: list[PartitionState], leaving: Leaving) -> str:
    left = [one for _, one in _left(broker_id, states, leaving)]
    if not left:
        return ""
    records, for_ms = max(one.behind_records for one in left), max(one.behind_ms for one in left)
    far = f"{records} records" if records >= 0 else "by how many records is not known"
    return f": it was behind for {for_ms} ms, {far}" if len(left) == 1 else f": up to {for_ms} ms behind, {far}"


def _behind_facts(broker_id: int, states: list[PartitionState], leaving: Leaving) -> Facts:
    left = _left(broker_id, states, leaving)[:LISTED_MAX]
    return {"behind": [f"{name} {one.behind_records} records {one.behind_ms} ms" for name, one in left]} if left else {}
