"""Every error minilog can report, and what the caller should do about it.

    MinilogError
    ├── RetriableError            the same request may succeed later
    │   ├── InconsistentTopicId   refresh metadata: another topic has the name now (definite)
    │   ├── NotLeader             refresh metadata, retry at the leader      (definite)
    │   ├── LeaderNotAvailable    wait for an election, retry                (definite)
    │   ├── LeadershipLost        appended, then the leader changed: retry   (indefinite)
    │   ├── FencedLeaderEpoch     your epoch is old: refresh metadata, retry (definite)
    │   ├── UnknownLeaderEpoch    your epoch is newer than mine: retry       (definite)
    │   ├── OffsetNotAvailable    a new leader does not know the end yet     (definite)
    │   ├── NotEnoughReplicas     refused before the append                  (definite)
    │   ├── NotEnoughReplicasAfterAppend   the record may still commit       (indefinite)
    │   ├── TimedOut              no answer in time                          (indefinite unless said)
    │   ├── BrokerUnavailable     could not be reached, or broke off         (indefinite unless said)
    │   ├── Throttled, Overloaded wait Retry-After, retry                    (definite)
    │   ├── DiskFull              an operator must make room                 (definite)
    │   ├── NotCoordinator        another broker coordinates this group      (definite)
    │   ├── CoordinatorNotAvailable   it is being elected or still loading   (definite)
    │   ├── StaleBrokerEpoch, NotController, DuplicateBrokerId, InvalidFetchSession,
    │   │   InvalidUpdateVersion, IneligibleReplica        (brokers and controller only)
    ├── FatalError                repeating the same request cannot help
    │   ├── UnknownTopic, UnknownPartition, UnknownRoute, TopicExists
    │   ├── InvalidRequest, InvalidTopic, InvalidConfig, InvalidAcks, InvalidReplication
    │   ├── InvalidRecord         a compacted topic takes no record without a key
    │   ├── RecordTooLarge, RequestTooLarge, UnsupportedMediaType, NotAcceptable, MethodNotAllowed, CorruptBatch
    │   ├── CorruptRange          stored data is damaged and no copy is whole
    │   ├── OutOfOrderSequence, ProducerFenced, DuplicateSequence (written before, where is not known any more)
    │   ├── UnknownGroup, InvalidGroup, GroupNotEmpty, InconsistentGroup
    │   ├── UnknownMember, StaleMemberEpoch, InstanceInUse (join anew), NotAssigned
    │   ├── BufferFull, ClientClosed          (raised by the clients alone)
    │   └── InternalError         a fault of minilog's own                   (indefinite)
    ├── OffsetOutOfRange          the answer names the valid range; the caller must choose
    └── LogTruncated              what the consumer read no longer exists; the caller must choose

``definite`` answers one question: is it proven that the write did *not* happen? When in doubt it is
False. The history checker and every retry decision rest on it, so nothing may guess it.
``code`` is the stable upper-case word on the wire, ``http_status`` the status of a whole-request error.

Source: RFC 9457 (problem details); Jepsen's ok/fail/info distinction; the tree by caller action is httpx's idea.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class MinilogError(Exception):
    """Base of all errors.

    ``detail`` is one sentence: what was wrong, what was seen, what is allowed, what to do.
    ``info`` holds machine-readable extras (JSON values), for example ``leader_url`` or ``lost_from``.
    """

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False
    definite: bool = False

    def __init__(self, detail: str, *, definite: bool | None = None, **info: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.info: dict[str, Any] = info
        if definite is not None:
            self.definite = definite

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.detail!r}, definite={self.definite}, info={self.info})"


class RetriableError(MinilogError):
    code = "RETRIABLE"
    http_status = 503
    retriable = True
    definite = True


class FatalError(MinilogError):
    code = "FATAL"
    http_status = 400
    definite = True


class InconsistentTopicId(RetriableError):
    """The topic of that name here is another one than the request means: deleted and made again, or not yet heard of."""

    code = "INCONSISTENT_TOPIC_ID"
    http_status = 409


class NotLeader(RetriableError):
    code = "NOT_LEADER"
    http_status = 421


class LeaderNotAvailable(RetriableError):
    code = "LEADER_NOT_AVAILABLE"


class LeadershipLost(RetriableError):
    code = "LEADERSHIP_LOST"
    definite = False


class FencedLeaderEpoch(RetriableError):
    code = "FENCED_LEADER_EPOCH"
    http_status = 409


class UnknownLeaderEpoch(RetriableError):
    code = "UNKNOWN_LEADER_EPOCH"
    http_status = 409


class OffsetNotAvailable(RetriableError):
    code = "OFFSET_NOT_AVAILABLE"


class NotEnoughReplicas(RetriableError):
    code = "NOT_ENOUGH_REPLICAS"


class NotEnoughReplicasAfterAppend(RetriableError):
    code = "NOT_ENOUGH_REPLICAS_AFTER_APPEND"
    definite = False


class TimedOut(RetriableError):
    code = "REQUEST_TIMED_OUT"
    http_status = 504
    definite = False


class BrokerUnavailable(RetriableError):
    code = "BROKER_UNAVAILABLE"
    http_status = 502
    definite = False


class Throttled(RetriableError):
    code = "THROTTLED"
    http_status = 429


class Overloaded(RetriableError):
    code = "OVERLOADED"


class DiskFull(RetriableError):
    code = "DISK_FULL"
    http_status = 507


class NotCoordinator(RetriableError):
    code = "NOT_COORDINATOR"
    http_status = 421


class CoordinatorNotAvailable(RetriableError):
    code = "COORDINATOR_NOT_AVAILABLE"


class StaleBrokerEpoch(RetriableError):
    code = "STALE_BROKER_EPOCH"
    http_status = 409


class NotController(RetriableError):
    code = "NOT_CONTROLLER"
    http_status = 409


class DuplicateBrokerId(RetriableError):
    code = "DUPLICATE_BROKER_ID"
    http_status = 409


class InvalidFetchSession(RetriableError):
    code = "INVALID_FETCH_SESSION"
    http_status = 409


class InvalidUpdateVersion(RetriableError):
    code = "INVALID_UPDATE_VERSION"
    http_status = 409


class IneligibleReplica(RetriableError):
    """The only answer to an ISR proposal that proves it was not and will not be applied (R14)."""

    code = "INELIGIBLE_REPLICA"
    http_status = 409


class UnknownTopic(FatalError):
    code = "UNKNOWN_TOPIC_OR_PARTITION"
    http_status = 404


class UnknownPartition(UnknownTopic):
    code = "UNKNOWN_PARTITION"


class UnknownRoute(FatalError):
    code = "UNKNOWN_ROUTE"
    http_status = 404


class MethodNotAllowed(FatalError):
    code = "METHOD_NOT_ALLOWED"
    http_status = 405


class TopicExists(FatalError):
    code = "TOPIC_EXISTS"
    http_status = 409


class InvalidRequest(FatalError):
    code = "INVALID_REQUEST"


class InvalidTopic(FatalError):
    code = "INVALID_TOPIC"
    http_status = 422


class InvalidConfig(FatalError):
    code = "INVALID_CONFIG"
    http_status = 422


class InvalidAcks(FatalError):
    code = "INVALID_ACKS"
    http_status = 422


class InvalidRecord(FatalError):
    code = "INVALID_RECORD"
    http_status = 422


class InvalidReplication(FatalError):
    code = "INVALID_REPLICATION_FACTOR"
    http_status = 422


class RecordTooLarge(FatalError):
    code = "RECORD_TOO_LARGE"
    http_status = 413


class RequestTooLarge(FatalError):
    code = "REQUEST_TOO_LARGE"
    http_status = 413


class UnsupportedMediaType(FatalError):
    code = "UNSUPPORTED_MEDIA_TYPE"
    http_status = 415


class NotAcceptable(FatalError):
    code = "NOT_ACCEPTABLE"
    http_status = 406


class CorruptBatch(FatalError):
    code = "CORRUPT_BATCH"


class CorruptRange(FatalError):
    code = "CORRUPT_RANGE"
    http_status = 500


class OutOfOrderSequence(FatalError):
    code = "OUT_OF_ORDER_SEQUENCE"
    http_status = 409


class ProducerFenced(FatalError):
    code = "PRODUCER_FENCED"
    http_status = 409


class DuplicateSequence(FatalError):
    """Written once already, so not definite; its offset is no longer remembered (R31)."""

    code = "DUPLICATE_SEQUENCE"
    http_status = 409
    definite = False


class UnknownGroup(FatalError):
    code = "UNKNOWN_GROUP"
    http_status = 404


class InvalidGroup(FatalError):
    code = "INVALID_GROUP"
    http_status = 422


class GroupNotEmpty(FatalError):
    code = "GROUP_NOT_EMPTY"
    http_status = 409


class InconsistentGroup(FatalError):
    """The members of a group must agree on their assignor."""

    code = "INCONSISTENT_GROUP"
    http_status = 409


class UnknownMember(FatalError):
    code = "UNKNOWN_MEMBER"
    http_status = 404


class StaleMemberEpoch(FatalError):
    code = "STALE_MEMBER_EPOCH"
    http_status = 409


class InstanceInUse(FatalError):
    code = "INSTANCE_IN_USE"
    http_status = 409


class NotAssigned(FatalError):
    code = "NOT_ASSIGNED"
    http_status = 409


class BufferFull(FatalError):
    code = "BUFFER_FULL"


class ClientClosed(FatalError):
    code = "CLIENT_CLOSED"


class InternalError(FatalError):
    code = "INTERNAL"
    http_status = 500
    definite = False


class OffsetOutOfRange(MinilogError):
    code = "OFFSET_OUT_OF_RANGE"
    http_status = 416
    definite = True


class LogTruncated(MinilogError):
    code = "LOG_TRUNCATED"
    http_status = 409
    definite = True


class StorageFailed(Exception):
    """The disk failed (EIO, a failed fsync): the process must stop, restart and re-read. Never sent to a client."""


class NameRefused(StorageFailed):
    """The file system takes no file of that name: nothing was done, and the disk is as good as before: whoever
    can do without the file goes on."""


class RefusesToStart(Exception):
    """A start that would be unsafe or senseless; the message is the one sentence the operator reads."""


def _subclasses(cls: type[MinilogError]) -> Iterator[type[MinilogError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


ERRORS_BY_CODE: Mapping[str, type[MinilogError]] = {
    error.code: error for error in _subclasses(MinilogError) if error not in (RetriableError, FatalError)
}


def partly_done(error: MinilogError) -> MinilogError:
    """The same refusal, of a request of which a part was carried out by an earlier attempt: so not definite for the whole."""
    return type(error)(f"{error.detail}; a part of the batches was written before", definite=False, **error.info)


def error_from(code: str, detail: str, definite: bool, info: Mapping[str, Any]) -> MinilogError:
    """Rebuild the error a peer reported. An unknown code becomes InternalError and keeps its ``definite`` flag."""
    cls = ERRORS_BY_CODE.get(code, InternalError)
    error = cls(detail, definite=definite)
    error.info.update(info)
    return error
