"""The Python clients of minilog.

``AsyncClient`` is the implementation; ``Client`` offers the same without ``await``. Errors are those of
``minilog.errors``: each says whether a retry can help (``retriable``) and whether a write provably did not happen
(``definite``).
"""

from minilog.errors import (
    BrokerUnavailable,
    BufferFull,
    ClientClosed,
    FatalError,
    InvalidRequest,
    LogTruncated,
    MinilogError,
    OffsetOutOfRange,
    RecordTooLarge,
    RetriableError,
    TimedOut,
    UnknownTopic,
)
from minilog_client.admin import Admin, ClusterInfo, Health
from minilog_client.client import AsyncClient
from minilog_client.consumer import Consumer, Lag
from minilog_client.producer import Producer
from minilog_client.receipts import BatchReceipt, Receipt
from minilog_client.records import Record
from minilog_client.settings import ClientSettings, ConsumerSettings, ProducerSettings
from minilog_client.sync import Client, SyncConsumer, SyncProducer

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
    "FatalError",
    "Health",
    "InvalidRequest",
    "Lag",
    "LogTruncated",
    "MinilogError",
    "OffsetOutOfRange",
    "Producer",
    "ProducerSettings",
    "Receipt",
    "Record",
    "RecordTooLarge",
    "RetriableError",
    "SyncConsumer",
    "SyncProducer",
    "TimedOut",
    "UnknownTopic",
]
