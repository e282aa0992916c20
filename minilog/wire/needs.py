"""What a request needs: an operation, and the topic or group that it is about.

Routes say it in their table, messages in ``NEEDS``. A message without a row is no request that
anybody answers: the assertion below holds the table complete, so that access is refused by default
because of a table and not because somebody thought of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple, get_args

from minilog.wire.admin_messages import BalanceLeaders, ConfigureTopic, MoveReplicas, PlanReplicas, RemoveBroker
from minilog.wire.figure_messages import DescribeBroker
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffsets,
    DeleteGroup,
    DescribeGroup,
    ForwardedGroupRequest,
    GroupHeartbeat,
    LeaveGroup,
    ListGroups,
)
from minilog.wire.message_base import Ok, Problem
from minilog.wire.messages import (
    AddPartitions,
    AllocateProducerIds,
    AlterPartition,
    AnyMessage,
    ClaimLost,
    CreateTopic,
    DeleteTopic,
    DescribeCluster,
    ElectLeader,
    Fetch,
    Heartbeat,
    InitProducer,
    Message,
    Metadata,
    Offsets,
    Positions,
    Probe,
    Produce,
    Register,
    ReplicaFetch,
    StandBy,
)


class Operation(StrEnum):
    PUBLIC = "public"
    """Anybody."""
    METRICS = "metrics"
    DESCRIBE = "describe"
    """What the cluster is: brokers, topics, groups, health, events. Whoever may read, write, alter
    or be in a group may know it, for clients cannot work without."""
    READ = "read"
    WRITE = "write"
    ALTER = "alter"
    """Create a topic, add partitions, delete it."""
    GROUP = "group"
    ADMIN = "admin"
    PEER = "peer"
    """A broker, in its own name."""
    CLUSTER = "cluster"
    """A broker or a controller."""
    CONTROLLER = "controller"
    MESSAGE = "message"
    """What the message in the body needs. Only who is somebody may send one."""


RESOURCES: Final[Mapping[Operation, str]] = {
    Operation.READ: "topic",
    Operation.WRITE: "topic",
    Operation.ALTER: "topic",
    Operation.GROUP: "group",
}
"""What kind of thing an operation is done to. Others are done to the cluster."""


class Need(NamedTuple):
    """``of`` is the value of the path, or the field of the message, that names the resource. "":
    one of them will do, and the message inside decides. ``partitions``: each partition that the
    message names is decided for itself. ``own``: the field ``broker_id`` must be the asker's."""

    operation: Operation
    of: str = ""
    partitions: bool = False
    own: bool = False

    @classmethod
    def of_text(cls, text: str) -> Need:
        """As in the table of routes: ``read topic``. Raises ValueError for what is no operation."""
        operation, _, of = text.partition(" ")
        need = cls(Operation(operation), of)
        if of and RESOURCES.get(need.operation) != of:
            raise ValueError(f"{text!r}: {operation} is not done to a {of}")
        return need


TOPIC: Final = "topic"
NEEDS: Final[Mapping[type[Message], Need]] = {
    Produce: Need(Operation.WRITE, TOPIC, partitions=True),
    Fetch: Need(Operation.READ, TOPIC, partitions=True),
    Offsets: Need(Operation.DESCRIBE),
    Metadata: Need(Operation.DESCRIBE),
    InitProducer: Need(Operation.WRITE),
    CreateTopic: Need(Operation.ALTER, TOPIC),
    DeleteTopic: Need(Operation.ALTER, TOPIC),
    AddPartitions: Need(Operation.ALTER, TOPIC),
    ConfigureTopic: Need(Operation.ALTER, TOPIC),
    ElectLeader: Need(Operation.ADMIN),
    BalanceLeaders: Need(Operation.ADMIN),
    MoveReplicas: Need(Operation.ADMIN),
    PlanReplicas: Need(Operation.ADMIN),
    RemoveBroker: Need(Operation.ADMIN),
    DescribeCluster: Need(Operation.DESCRIBE),
    GroupHeartbeat: Need(Operation.GROUP, "group"),
    LeaveGroup: Need(Operation.GROUP, "group"),
    CommitOffsets: Need(Operation.GROUP, "group"),
    CommittedOffsets: Need(Operation.GROUP, "group"),
    DescribeGroup: Need(Operation.GROUP, "group"),
    DeleteGroup: Need(Operation.GROUP, "group"),
    ListGroups: Need(Operation.DESCRIBE),
    ForwardedGroupRequest: Need(Operation.PEER),
    DescribeBroker: Need(Operation.CLUSTER),
    ClaimLost: Need(Operation.PEER, own=True),
    AllocateProducerIds: Need(Operation.PEER, own=True),
    Register: Need(Operation.PEER, own=True),
    Heartbeat: Need(Operation.PEER, own=True),
    AlterPartition: Need(Operation.PEER, own=True),
    ReplicaFetch: Need(Operation.PEER, own=True),
    Positions: Need(Operation.CONTROLLER),
    Probe: Need(Operation.CONTROLLER),
    StandBy: Need(Operation.CONTROLLER),
}
_ANSWERS: Final = {kind for kind in get_args(AnyMessage) if kind.__name__.endswith("Reply")} | {Problem, Ok}
_UNDECIDED: Final = set(get_args(AnyMessage)) - _ANSWERS ^ set(NEEDS)
assert not _UNDECIDED, f"what {', '.join(kind.__name__ for kind in _UNDECIDED)} needs is not decided"


def need_of(message: Message) -> Need | None:
    """None for what is no request."""
    if isinstance(message, ElectLeader) and message.dry_run:
        return Need(Operation.DESCRIBE)  # who could lead, and nothing is changed
    return NEEDS.get(type(message))
