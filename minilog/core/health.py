"""Health: what is wrong with the cluster, by evidence that has an age (R46).

A broker knows the metadata as of the last answer of the controller, and no more. So the controller
is asked for each report. Where it does not answer, that itself is a finding, what follows from the
metadata is as old as the last answer, and nothing is called healthy. Nor is it where the controller
has decided what this broker has not heard of.

Each finding is a state with a name, a sentence, and what to do next. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator

from minilog.core.image import BrokerState, ClusterImage, PartitionState, TopicImage, min_isr
from minilog.core.moves.moving import is_moving, missing
from minilog.wire.journal.metadata_records import NO_LEADER, DiskState
from minilog.wire.json.json_answers import Finding, Health, PartitionHealth
from minilog.wire.messages import DescribeClusterReply

RECENT_MS = 24 * 60 * 60 * 1000
"""So long an unclean election is shown."""
NAMED_MAX = 5


class Knowledge:
    """What the answering broker knows beside the metadata.

    ``controller``: its answer to this very question, and the broker has had time to hear what that
    speaks of; None when there was none, and then ``problem`` says why. ``heard_ms_ago``: since its
    last answer of any kind, None: never."""

    def __init__(
        self,
        broker_id: int,
        controller: DescribeClusterReply | None,
        controller_url: str,
        heard_ms_ago: int | None,
        problem: str,
        wall_ms: int,
        clock_skew_max_ms: int,
    ) -> None:
        self.broker_id, self.controller, self.controller_url = broker_id, controller, controller_url
        self.heard_ms_ago, self.problem, self.wall_ms = heard_ms_ago, problem, wall_ms
        self.clock_skew_max_ms = clock_skew_max_ms


def health_of(image: ClusterImage, known: Knowledge) -> Health:
    """Healthy: nothing is found that keeps anybody from reading, writing, or being told the truth.
    Missing replicas alone only warn."""
    offline, under_min_isr, under_replicated, not_preferred = [], [], [], []
    for topic, state in image.partitions():
        needed = min_isr(topic, state)
        about = PartitionHealth(state.topic, state.partition, state.leader, state.replicas, state.isr, needed)
        if state.leader == NO_LEADER:
            offline.append(about)
        elif state.leader != state.replicas[0] and not is_moving(state):
            not_preferred.append(about)
        if len(state.isr) < needed:
            under_min_isr.append(about)
        if missing(state):
            under_replicated.append(about)
    findings = [
        *_of_controller(known),
        *_of_metadata(image, known),
        *_of_versions(image),
        *_of_brokers(image, known),
        *_of_replicas(image),
        *_of_partitions(image),
        *_of_losses(image, known),
    ]
    down = sorted(broker.broker_id for broker in image.brokers.values() if not broker.eligible)
    return Health(
        all(finding.is_warning for finding in findings),
        offline,
        under_min_isr,
        under_replicated,
        not_preferred,
        down,
        findings,
        known.heard_ms_ago,
        known.broker_id,
        [] if known.controller is None else known.controller.controllers,
    )


def _of_controller(known: Knowledge) -> Iterator[Finding]:
    if known.controller is not None:
        return
    heard = "was never heard" if known.heard_ms_ago is None else f"was last heard {_seconds(known.heard_ms_ago)} ago"
    yield Finding(
        "controller_unheard",
        f"the controller at {known.controller_url} does not answer ({known.problem}); it {heard}, and what is said "
        "of brokers and partitions is as old as that",
        "start the controller, or look at its log: without it no leader is replaced and no topic is made",
    )


def _of_metadata(image: ClusterImage, known: Knowledge) -> Iterator[Finding]:
    decided = 0 if known.controller is None else known.controller.metadata_offset
    if decided <= image.metadata_offset:
        return
    heard = "never" if known.heard_ms_ago is None else f"{_seconds(known.heard_ms_ago)} ago"
    yield Finding(
        "metadata_behind",
        f"broker {known.broker_id}, which says this, knows the metadata up to record {image.metadata_offset}, and the "
        f"controller has decided record {decided}: what is said of partitions is older than that (its heartbeats were last "
        f"answered {heard})",
        "ask another broker, and look at the log of this one",
        broker_id=known.broker_id,
    )


def _of_versions(image: ClusterImage) -> Iterator[Finding]:
    """Of processes that are there. One that is away says its version when it is back."""
    by_version: dict[str, list[str]] = {}
    for broker in image.brokers.values():
        if broker.eligible:
            by_version.setdefault(broker.version, []).append(str(broker.broker_id))
    told = [
        f"broker {', '.join(ids[:NAMED_MAX])} runs {version or 'an older one'}" for version, ids in by_version.items()
    ]
    versions = {*by_version, image.controller_version}
    if by_version and len(versions) > 1:
        yield Finding(
            "mixed_versions",
            f"not all processes run the same version: {'; '.join(sorted(told))}; the controller runs "
            f"{image.controller_version or 'an older one'}",
            "end the upgrade: brokers one by one, then the controller",
            is_warning=True,
        )


def _of_brokers(image: ClusterImage, known: Knowledge) -> Iterator[Finding]:
    told = {} if known.controller is None else {broker.broker_id: broker for broker in known.controller.brokers}
    for broker in image.brokers.values():
        about = told.get(broker.broker_id)
        age_ms = -1 if about is None else about.heartbeat_age_ms
        if not broker.eligible:
            yield _not_running(broker, age_ms)
        elif known.controller is None and broker.broker_id != known.broker_id:
            yield Finding(
                "broker_unknown",
                f"whether broker {broker.broker_id} at {broker.url} is alive is not known: only the controller hears it",
                "ask it: /readyz",
                broker_id=broker.broker_id,
                is_warning=True,
            )
        elif known.controller is not None and age_ms < 0:
            yield Finding(
                "broker_unknown",
                f"whether broker {broker.broker_id} at {broker.url} is alive is not known yet: the controller has just "
                "started and has not heard it",
                "wait for the end of its session, a few seconds",
                broker_id=broker.broker_id,
            )
        if broker.disk is DiskState.OTHER and _lags(image, broker.broker_id):
            yield Finding(
                "disk_lost",
                f"broker {broker.broker_id} came back with another disk than it had, or an older copy, and has not caught up",
                "wait until it has copied its replicas; where no other copy was left: `minilog partition elect`",
                broker_id=broker.broker_id,
                is_warning=True,
            )
        skew_ms = 0 if about is None else about.clock_skew_ms or 0
        if abs(skew_ms) > known.clock_skew_max_ms:
            yield _clock_skew(broker, skew_ms, known.clock_skew_max_ms)
        for condition in () if about is None else about.conditions:
            yield Finding(
                condition.kind, f"broker {broker.broker_id}: {condition.sentence}", condition.next_step,
                broker_id=broker.broker_id, is_warning=condition.is_warning,
            )  # fmt: skip


def _clock_skew(broker: BrokerState, skew_ms: int, allowed_ms: int) -> Finding:
    way = "ahead of" if skew_ms > 0 else "behind"
    return Finding(
        "clock_skew",
        f"the clock of broker {broker.broker_id} is {_seconds(abs(skew_ms))} {way} the controller's, allowed are "
        f"{_seconds(allowed_ms)} (clock_skew_max_ms): it deletes nothing because of its age, and its stamps are wrong "
        "if its clock is",
        "compare the clocks of both machines with a right one, and let NTP keep them",
        broker_id=broker.broker_id,
        is_warning=True,
    )


def _not_running(broker: BrokerState, age_ms: int) -> Finding:
    if broker.fenced and age_ms >= 0:
        return Finding(
            "broker_fenced",
            f"broker {broker.broker_id} is fenced although it was heard {_seconds(age_ms)} ago: "
            "it has not caught up with the metadata, or its heartbeats come late",
            "look at its log and its load",
            broker_id=broker.broker_id,
            is_warning=True,
        )
    state = "is shutting down" if broker.shutting_down and not broker.fenced else "does not run, or cannot be reached"
    return Finding(
        "broker_not_running",
        f"broker {broker.broker_id} at {broker.url} {state}",
        "start it; if it does not stay up, the end of its log says why",
        broker_id=broker.broker_id,
        is_warning=True,
    )


def _lags(image: ClusterImage, broker_id: int) -> bool:
    return any(broker_id in missing(state) for _, state in image.partitions())


def _of_replicas(image: ClusterImage) -> Iterator[Finding]:
    """Replicas out of the ISR whose brokers run. A broker that is away, or has lost its disk, is a
    finding of its own."""
    for broker in image.brokers.values():
        if not broker.eligible or broker.disk is DiskState.OTHER:
            continue
        behind = [
            f"{state.topic}-{state.partition}" for _, state in image.partitions() if broker.broker_id in missing(state)
        ]
        if behind:
            named = f"{', '.join(behind[:NAMED_MAX])}{', ...' if len(behind) > NAMED_MAX else ''}"
            yield Finding(
                "replicas_behind",
                f"broker {broker.broker_id} runs, and is not in sync for {_partitions(len(behind))} ({named})",
                "wait while it catches up: `minilog partition list --under-replicated`; if that does not become shorter, "
                "look at its disk, its log, and the network to the leaders",
                broker_id=broker.broker_id,
                is_warning=True,
            )


def _of_partitions(image: ClusterImage) -> Iterator[Finding]:
    for topic, state in image.partitions():
        name = f"{state.topic}-{state.partition}"
        if state.leader == NO_LEADER:
            yield _offline(image, state, name)
        elif len(state.isr) < min_isr(topic, state):
            yield _under_min_isr(topic, state, name)


def _offline(image: ClusterImage, state: PartitionState, name: str) -> Finding:
    awaited = [r for r in (state.elr or state.last_known_elr) if not image.is_eligible(r)]
    if state.isr or state.elr or state.last_known_elr:
        waits = f", and waits for broker {_list(awaited)}" if awaited else ", and one is being elected"
        return Finding(
            "offline",
            f"{name} has no leader{waits}: nobody can read or write it",
            f"start broker {_list(awaited)}" if awaited else "wait",
            topic=state.topic,
            partition=state.partition,
        )
    return Finding(
        "lost",
        f"{name} has no leader, and no replica is left that is known to hold all of it: nobody can read or write it",
        f"bring the disk of its last leader back, or see what is left: `minilog partition elect {state.topic} {state.partition}`",
        topic=state.topic,
        partition=state.partition,
    )


def _under_min_isr(topic: TopicImage, state: PartitionState, name: str) -> Finding:
    return Finding(
        "under_min_isr",
        f"{name} has {len(state.isr)} replicas in sync and needs {min_isr(topic, state)}: acks=all is refused",
        f"bring back broker {_list(missing(state))}",
        topic=state.topic,
        partition=state.partition,
    )


def _of_losses(image: ClusterImage, known: Knowledge) -> Iterator[Finding]:
    for election in image.unclean_elections:
        if known.wall_ms - election.at_ms > RECENT_MS:
            continue
        loss = f"at least {election.missing} committed records were lost" if election.missing else "records may be lost"
        yield Finding(
            "unclean_election",
            f"{election.topic}-{election.partition}: broker {election.leader} was made the leader without being known to "
            f"hold all, by {'the setting of its topic' if election.decided_by == 'topic' else 'an operator'}; {loss}",
            "nothing; it is shown for a day",
            topic=election.topic,
            partition=election.partition,
            is_warning=True,
        )


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"


def _list(brokers: list[int]) -> str:
    return ", ".join(map(str, brokers[:NAMED_MAX]))
