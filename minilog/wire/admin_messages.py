"""Requests about topics and the cluster, and their answers: any broker takes them and forwards them
to the controller."""

from __future__ import annotations

import msgspec

from minilog.wire.bounded import (
    BrokerId,
    Config,
    Count,
    Counts,
    Few,
    Id,
    Int64,
    Many,
    Milliseconds,
    Name,
    Text,
    Told,
    ToldConfig,
)
from minilog.wire.journal.failovers import FailoverInfo
from minilog.wire.message_base import Message
from minilog.wire.peer_messages import Condition


class PartitionInfo(msgspec.Struct, omit_defaults=True):
    """``adding`` and ``removing``: of the replicas, those that are to come and to go, while they
    move."""

    partition: Int64
    leader: Int64
    leader_epoch: Int64
    partition_epoch: Int64
    replicas: Few[Int64]
    isr: Few[Int64]
    elr: Few[Int64] = []
    adding: Few[Int64] = []
    removing: Few[Int64] = []


class TopicInfo(msgspec.Struct, omit_defaults=True):
    topic: Name
    topic_id: Id
    partitions: Many[PartitionInfo]
    config: ToldConfig = {}


class CreateTopic(Message):
    """0 partitions or replicas: the cluster's default. ``assignment`` fixes the replicas of each
    partition. ``asked_by``, here and elsewhere: for people, from where the broker that passes it on
    was asked. ``principal``: who asked that broker, "" where it asks by itself. It is believed of
    brokers only."""

    topic: Name
    partitions: Int64 = 0
    replication_factor: Int64 = 0
    config: Config = {}
    assignment: Many[Many[Int64]] = []
    asked_by: Name = ""
    principal: Name = ""


class CreateTopicReply(Message):
    topic: TopicInfo
    metadata_offset: Count


class DeleteTopic(Message):
    """``topic_id`` says which topic of that name; "" the one there is, which may be a successor of
    the one meant."""

    topic: Name
    topic_id: Id = ""
    asked_by: Name = ""
    principal: Name = ""


class AddPartitions(Message):
    """Let a topic have ``partitions`` in all. There can only be more of them than before."""

    topic: Name
    partitions: Int64
    topic_id: Id = ""
    asked_by: Name = ""
    principal: Name = ""


class ConfigureTopic(Message):
    """Let a topic have the settings ``config``, and those in ``reset`` as by default. All others
    stay as they are. ``dry_run``: say what that would be, and change nothing."""

    topic: Name
    config: Config
    reset: Few[Name] = []
    topic_id: Id = ""
    dry_run: bool = False
    asked_by: Name = ""
    principal: Name = ""


class ConfigureTopicReply(Message):
    """``before`` and ``config``: what the topic had, and has now. ``under_min_isr``: partitions
    that refuse acks=all by the new settings, as long as their ISR is what it is."""

    topic: Name
    topic_id: Id
    before: ToldConfig
    config: ToldConfig
    under_min_isr: Many[Int64]
    metadata_offset: Count


class BalanceLeaders(Message):
    """Let the first replica of each partition lead it, of these topics or of all, where it is in
    sync. ``dry_run``: say what that would be, and change nothing."""

    topics: Few[Name] = []
    dry_run: bool = False
    asked_by: Name = ""
    principal: Name = ""


class LeaderMove(msgspec.Struct, omit_defaults=True):
    """``leader`` is to hand over to ``to``, unless there is a ``problem``. -1: there is no
    leader."""

    topic: Name
    partition: Int64
    leader: Int64
    to: Int64
    problem: Text = ""


class BalanceLeadersReply(Message):
    """What was not led by its first replica. The leaders hand over after this answer."""

    moves: Many[LeaderMove]
    metadata_offset: Count


class ReplicaMove(msgspec.Struct, omit_defaults=True):
    """Let a partition have these ``replicas``, the preferred leader first. None: let a move that is
    under way go back. ``partition_epoch``: as of which the partition is meant, -1: as it is."""

    topic: Name
    partition: Int64
    replicas: Few[BrokerId] = []
    topic_id: Id = ""
    partition_epoch: Int64 = -1


class MoveReplicas(Message):
    """Begin or cancel all of these moves, or none of them. ``dry_run``: say what that would be, and
    change nothing."""

    moves: Many[ReplicaMove]
    dry_run: bool = False
    asked_by: Name = ""
    principal: Name = ""


class MovedReplicas(msgspec.Struct, omit_defaults=True):
    """A partition goes from ``before`` to ``replicas``. Those that are ``adding`` have to catch up
    first. ``partition_epoch``: as of which that was said."""

    topic: Name
    topic_id: Id
    partition: Int64
    before: Few[Int64]
    replicas: Few[Int64]
    adding: Few[Int64] = []
    partition_epoch: Int64 = -1


class MoveReplicasReply(Message):
    moves: Many[MovedReplicas]
    metadata_offset: Count


class RemoveBroker(Message):
    """Forget a broker that has no replicas and does not run."""

    broker_id: BrokerId
    asked_by: Name = ""
    principal: Name = ""


class PlanReplicas(Message):
    """What would have to move so that the brokers in ``off`` have no replicas, onto those in
    ``onto`` or any that run, so that ``topic`` has ``replication_factor`` replicas, or so that all
    brokers have about as many. Nothing is changed."""

    off: Few[BrokerId] = []
    onto: Few[BrokerId] = []
    topic: Name = ""
    replication_factor: Int64 = 0
    spread: bool = False
    principal: Name = ""


class PlanReplicasReply(Message):
    """``problems``: what stays as it is although it should not, and why."""

    moves: Many[MovedReplicas]
    problems: Few[Text] = []


ANY_REPLICA = -1


class ElectLeader(Message):
    """Let a partition that has no leader, and nobody who is known to hold all of it, have one:
    ``leader``, or ANY_REPLICA for the one with the longest log. What it lacks is lost.
    ``expected``: whom the person was shown as the longest one. Nothing is decided when it is
    another one by now.

    ``dry_run``: say who could lead, and change nothing. Without ``unclean`` nothing is lost, and
    the request is refused where that cannot be."""

    topic: Name
    partition: Int64
    topic_id: Id = ""
    leader: Int64 = ANY_REPLICA
    unclean: bool = False
    dry_run: bool = False
    expected: Int64 = ANY_REPLICA
    asked_by: Name = ""
    principal: Name = ""


class Candidate(msgspec.Struct, omit_defaults=True):
    """A replica of a partition without a leader. ``end_offset`` and ``last_epoch`` are None when
    its broker did not answer, and ``problem`` says why. ``is_complete``: it is known to hold all
    that was committed. ``is_next``: an unclean election takes it, unless somebody names another.
    ``missing``: at least so many committed records it does not hold."""

    broker_id: BrokerId
    last_epoch: Int64 | None = None
    end_offset: Int64 | None = None
    is_complete: bool = False
    problem: Text = ""
    is_next: bool = False
    missing: Int64 = 0


class ElectLeaderReply(Message):
    """``leader`` is None where nobody leads yet. ``kind``: clean, recovery, unclean, or "" while
    there is no election to be held. ``missing``: at least so many committed records the leader does
    not hold, and where there is none yet no candidate, by what the candidates know."""

    topic: Name
    topic_id: Id
    partition: Int64
    leader: Int64 | None
    leader_epoch: Int64
    kind: Name
    candidates: Many[Candidate]
    missing: Int64
    metadata_offset: Count


class LostRun(msgspec.Struct, array_like=True, frozen=True):
    """Records that were cut from the end of a log: of one leader epoch, ``end_offset`` exclusive.
    Epoch and offset together name a record of a partition for ever."""

    leader_epoch: Count
    base_offset: Count
    end_offset: Count


class ClaimLost(Message):
    """``broker_id`` keeps these ``runs`` of ``partition`` of the topic ``topic_id``, as the tail
    ``tail`` of its quarantine, and is to write them again with ``producer_id``, into one partition
    of a topic that exists. ``topic_id`` is "" where an older version has cut them.
    ``directory_id``: of its data directory. ``finished``: all it was given is written."""

    broker_id: BrokerId
    tail: Name
    topic: Name
    topic_id: Id
    partition: Int64
    runs: Few[LostRun]
    into: Name
    into_topic_id: Id
    into_partition: Int64
    producer_id: Int64
    directory_id: Id = ""
    finished: bool = False


class ClaimLostReply(Message):
    """What of it this tail is to write, into which partition, and with which producer id: as
    decided when it was claimed first. What is not in ``runs`` another tail has claimed."""

    runs: Few[LostRun]
    into: Name
    into_topic_id: Id
    into_partition: Int64
    producer_id: Int64
    metadata_offset: Count


class InitProducer(Message):
    """A client asks any broker for a producer id of its own. Epochs it counts by itself, from 0
    (R33, KIP-360)."""


class InitProducerReply(Message):
    producer_id: Int64


class AllocateProducerIds(Message):
    broker_id: BrokerId
    broker_epoch: Int64
    incarnation: Name


class AllocateProducerIdsReply(Message):
    """Ids from ``first`` below ``end`` belong to the asker."""

    first: Int64
    end: Int64


class DescribeCluster(Message):
    """Asks the controller for its own view: broker sessions and failovers as well as metadata."""


class BrokerHealth(msgspec.Struct, omit_defaults=True):
    """``clock_skew_ms``: how far its wall clock is ahead of the controller's. ``heartbeat_age_ms``:
    -1 when this controller has not heard it."""

    broker_id: BrokerId
    url: Told
    state: Name
    broker_epoch: Int64
    metadata_offset: Count
    heartbeat_age_ms: Milliseconds
    rack: Told = ""
    clock_skew_ms: Milliseconds | None = None
    conditions: Few[Condition] = []
    version: Told = ""


class ControllerInfo(msgspec.Struct, omit_defaults=True):
    """One of several. ``role`` is active or standby. ``metadata_offset``: what it has replayed.
    ``heard_age_ms``: since a standby was last heard by the active one."""

    url: Told
    role: Name
    metadata_offset: Count
    heard_age_ms: Milliseconds = 0


class DescribeClusterReply(Message):
    """``version``: of the controller's program."""

    cluster_id: Name
    controller_epoch: Int64
    metadata_offset: Count
    brokers: Many[BrokerHealth]
    failovers: Many[FailoverInfo]
    elections: Counts = {}
    version: Told = ""
    controllers: Few[ControllerInfo] = []


PersonsChange = (
    CreateTopic
    | DeleteTopic
    | AddPartitions
    | ElectLeader
    | ConfigureTopic
    | BalanceLeaders
    | MoveReplicas
    | RemoveBroker
)
"""What people ask the controller to change. A broker that passes it on says from where
(``asked_by``)."""
AdminMessage = (
    PersonsChange
    | CreateTopicReply
    | ElectLeaderReply
    | ConfigureTopicReply
    | BalanceLeadersReply
    | MoveReplicasReply
    | PlanReplicas
    | PlanReplicasReply
    | ClaimLost
    | ClaimLostReply
    | InitProducer
    | InitProducerReply
    | AllocateProducerIds
    | AllocateProducerIdsReply
    | DescribeCluster
    | DescribeClusterReply
)
