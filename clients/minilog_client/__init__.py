"""The Python clients of minilog.

``AsyncClient`` is the implementation; ``Client`` offers the same without ``await``. Errors are those of
``minilog.errors``: each says whether a retry can help (``retriable``) and whether a write provably did not happen
(``definite``).
"""

from minilog.errors import (
    BrokerUnavailable,
    BufferFull,
    ClientClosed,
    DuplicateSequence,
    FatalError,
    GroupNotEmpty,
    InconsistentGroup,
    InstanceInUse,
    InvalidGroup,
    InvalidRequest,
    LogTruncated,
    MinilogError,
    NotAssigned,
    OffsetOutOfRange,
    OutOfOrderSequence,
    ProducerFenced,
    RecordTooLarge,
    RetriableError,
    StaleMemberEpoch,
    TimedOut,
    UnknownGroup,
    UnknownMember,
    UnknownPartition,
    UnknownTopic,
)
from minilog.wire.group_messages import GroupInfo, GroupMember
from minilog_client.admin.admin import Admin, ClusterInfo, Health
from minilog_client.admin.group_admin import GroupAdmin, GroupDescription, GroupLag, OffsetChange
from minilog_client.blocking.client import Client, SyncProducer
from minilog_client.blocking.consumer import SyncConsumer, SyncGroupConsumer
from minilog_client.client import AsyncClient
from minilog_client.consumer.consumer import Consumer, Lag
from minilog_client.consumer.records import Record
from minilog_client.group.group_consumer import GroupConsumer
from minilog_client.producer.producer import Producer
from minilog_client.producer.receipts import BatchReceipt, Receipt
from minilog_client.settings import ClientSettings, ConsumerSettings, GroupSettings, ProducerSettings

__all__ = [
    "Admin",
    "AsyncClient",
    "BatchReceipt",
    "BrokerUnavailable",
    "BufferFull",
    "Client",
    "ClientClosed",
    "ClientSettings",
    "ClusterInfo",
    "Consumer",
    "ConsumerSettings",
    "DuplicateSequence",
    "FatalError",
    "GroupAdmin",
    "GroupConsumer",
    "GroupDescription",
    "GroupInfo",
    "GroupLag",
    "GroupMember",
    "GroupNotEmpty",
    "GroupSettings",
    "Health",
    "InconsistentGroup",
    "InstanceInUse",
    "InvalidGroup",
    "InvalidRequest",
    "Lag",
    "LogTruncated",
    "MinilogError",
    "NotAssigned",
    "OffsetChange",
    "OffsetOutOfRange",
    "OutOfOrderSequence",
    "Producer",
    "ProducerFenced",
    "ProducerSettings",
    "Receipt",
    "Record",
    "RecordTooLarge",
    "RetriableError",
    "StaleMemberEpoch",
    "SyncConsumer",
    "SyncGroupConsumer",
    "SyncProducer",
    "TimedOut",
    "UnknownGroup",
    "UnknownMember",
    "UnknownPartition",
    "UnknownTopic",
]
