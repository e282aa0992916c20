"""Every error minilog can report, and what the caller should do about it.

    MinilogError
    ├── RetriableError     the same request may succeed later
    ├── FatalError         repeating the same request cannot help
    ├── OffsetOutOfRange   the answer names the valid range. The caller must choose
    └── LogTruncated       what the consumer read no longer exists. The caller must choose

``definite`` answers one question: is it proven that the write did *not* happen? When in doubt it is
False. The history checker and every retry decision rest on it, so nothing may guess it. That of a
class is the rule, and an error may say otherwise of itself. ``code`` is the stable upper-case word
on the wire, ``http_status`` the status of a whole-request error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from minilog.error_base import FatalError as FatalError
from minilog.error_base import MinilogError as MinilogError
from minilog.error_base import RetriableError as RetriableError
from minilog.failures import Deposed as Deposed
from minilog.failures import NameRefused as NameRefused
from minilog.failures import RefusesToStart as RefusesToStart
from minilog.failures import StorageFailed as StorageFailed


class InconsistentTopicId(RetriableError):
    """The topic of that name here is another one than the request means: deleted and made again, or
    not yet heard of."""

    code = "INCONSISTENT_TOPIC_ID"
    http_status = 409


class NotLeader(RetriableError):
    """Another broker leads the partition: refresh the metadata, then ask that one (``leader``,
    ``leader_url``)."""

    code = "NOT_LEADER"
    http_status = 421


class LeaderNotAvailable(RetriableError):
    """The partition has no leader, or this broker is not sure to lead: retry after the election."""

    code = "LEADER_NOT_AVAILABLE"


class LeadershipLost(RetriableError):
    """The record was appended, and then the leader changed before it was committed. It may be in
    the log or not."""

    code = "LEADERSHIP_LOST"
    definite = False


class FencedLeaderEpoch(RetriableError):
    """The leader epoch that was named is over: refresh the metadata."""

    code = "FENCED_LEADER_EPOCH"
    http_status = 409


class UnknownLeaderEpoch(RetriableError):
    """The leader epoch that was named is newer than what this broker knows: retry."""

    code = "UNKNOWN_LEADER_EPOCH"
    http_status = 409


class OffsetNotAvailable(RetriableError):
    """A new leader does not know yet how far the log is committed: retry shortly."""

    code = "OFFSET_NOT_AVAILABLE"


class NotEnoughReplicas(RetriableError):
    """Fewer replicas are in sync than ``min.insync.replicas`` asks for. Nothing was written."""

    code = "NOT_ENOUGH_REPLICAS"


class NotEnoughReplicasAfterAppend(RetriableError):
    """The ISR shrank below ``min.insync.replicas`` after the append. The record may commit."""

    code = "NOT_ENOUGH_REPLICAS_AFTER_APPEND"
    definite = False


class TimedOut(RetriableError):
    """No answer came in time; unless ``definite`` is set, what was asked may have happened."""

    code = "REQUEST_TIMED_OUT"
    http_status = 504
    definite = False


class BrokerUnavailable(RetriableError):
    """The broker could not be reached, or broke off; unless ``definite`` is set, what was asked
    may have happened."""

    code = "BROKER_UNAVAILABLE"
    http_status = 502
    definite = False


class Throttled(RetriableError):
    """The client is over its share: wait for ``Retry-After``."""

    code = "THROTTLED"
    http_status = 429


class Overloaded(RetriableError):
    """The broker has no room for more at the moment. Nothing was done. Wait for ``Retry-After``."""

    code = "OVERLOADED"


class DiskFull(RetriableError):
    """The broker's disk is full: an operator must make room. Nothing was written."""

    code = "DISK_FULL"
    http_status = 507


class TooManyOpenFiles(DiskFull):
    """This process may open no more files. Nothing was written: retry later, or raise the limit."""

    code = "TOO_MANY_OPEN_FILES"


class NotCoordinator(RetriableError):
    """Another broker coordinates the group (``coordinator``, ``coordinator_url``)."""

    code = "NOT_COORDINATOR"
    http_status = 421


class CoordinatorNotAvailable(RetriableError):
    """The group's coordinator is being elected, or reads the group's past: retry shortly."""

    code = "COORDINATOR_NOT_AVAILABLE"


class StaleBrokerEpoch(RetriableError):
    """Between brokers and controller: the process that is meant was replaced, or not registered."""

    code = "STALE_BROKER_EPOCH"
    http_status = 409


class NotController(RetriableError):
    """Between brokers and controller: the controller epoch that was named is not in force."""

    code = "NOT_CONTROLLER"
    http_status = 409


class DuplicateBrokerId(RetriableError):
    """Another living process has registered this broker id."""

    code = "DUPLICATE_BROKER_ID"
    http_status = 409


class InvalidFetchSession(RetriableError):
    """Between brokers: the fetch session is not known. The follower begins a new one."""

    code = "INVALID_FETCH_SESSION"
    http_status = 409


class InvalidUpdateVersion(RetriableError):
    """Between brokers and controller: the proposal is for an older state of the partition."""

    code = "INVALID_UPDATE_VERSION"
    http_status = 409


class IneligibleReplica(RetriableError):
    """The only answer to an ISR proposal that proves it was not and will not be applied (R14)."""

    code = "INELIGIBLE_REPLICA"
    http_status = 409


class Unauthenticated(FatalError):
    """Nobody is known by what the request shows, or it shows nothing: present a token, or a client
    certificate."""

    code = "UNAUTHENTICATED"
    http_status = 401


class Forbidden(FatalError):
    """Who asks may not do this: an operator must allow it in the security file."""

    code = "FORBIDDEN"
    http_status = 403


class UnknownTopic(FatalError):
    """There is no topic of that name, or none with that id."""

    code = "UNKNOWN_TOPIC_OR_PARTITION"
    http_status = 404


class UnknownPartition(UnknownTopic):
    """The topic has no partition of that number."""

    code = "UNKNOWN_PARTITION"


class UnknownRoute(FatalError):
    """There is nothing at that path. ``/openapi.json`` lists what there is."""

    code = "UNKNOWN_ROUTE"
    http_status = 404


class MethodNotAllowed(FatalError):
    """The path exists, for other methods (``allow``)."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405


class TopicExists(FatalError):
    """A topic of that name exists."""

    code = "TOPIC_EXISTS"
    http_status = 409


class ReplicasMoving(FatalError):
    """The replicas of a partition are on the move, or have changed since a move was planned.
    Nothing was done."""

    code = "REPLICAS_MOVING"
    http_status = 409


class InvalidRequest(FatalError):
    """The request says something that is not allowed. The sentence names what, and what is."""

    code = "INVALID_REQUEST"


class InvalidTopic(FatalError):
    """The name cannot be a topic's, or is minilog's own."""

    code = "INVALID_TOPIC"
    http_status = 422


class InvalidConfig(FatalError):
    """A setting of the topic does not exist, or its value is not allowed."""

    code = "INVALID_CONFIG"
    http_status = 422


class InvalidAcks(FatalError):
    """``acks`` is neither 0, 1, a number of copies, nor all."""

    code = "INVALID_ACKS"
    http_status = 422


class InvalidRecord(FatalError):
    """The topic takes no such record: a compacted one needs a key."""

    code = "INVALID_RECORD"
    http_status = 422


class InvalidTimestamp(InvalidRecord):
    """A record's time is further from the broker's clock than its topic allows."""

    code = "INVALID_TIMESTAMP"


class InvalidReplication(FatalError):
    """The number of replicas cannot be had, or the assignment is not possible."""

    code = "INVALID_REPLICATION_FACTOR"
    http_status = 422


class RecordTooLarge(FatalError):
    """A record, or a batch, exceeds ``max.message.bytes`` of its topic."""

    code = "RECORD_TOO_LARGE"
    http_status = 413


class RequestTooLarge(FatalError):
    """The body exceeds what this route takes: send it in several requests."""

    code = "REQUEST_TOO_LARGE"
    http_status = 413


class UnsupportedMediaType(FatalError):
    """The body is of a type that this route does not read."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    http_status = 415


class NotAcceptable(FatalError):
    """The answer cannot be given in any of the types that ``Accept`` names."""

    code = "NOT_ACCEPTABLE"
    http_status = 406


class CorruptBatch(FatalError):
    """The batch does not match its checksum, or what it claims cannot be."""

    code = "CORRUPT_BATCH"


class CorruptRange(FatalError):
    """Stored records are damaged (``start_offset``, ``end_offset``), and no copy was whole."""

    code = "CORRUPT_RANGE"
    http_status = 500


class OutOfOrderSequence(FatalError):
    """A numbered batch does not follow the producer's last one: something before it is missing."""

    code = "OUT_OF_ORDER_SEQUENCE"
    http_status = 409


class ProducerFenced(FatalError):
    """A newer epoch of this producer id is in use."""

    code = "PRODUCER_FENCED"
    http_status = 409


class DuplicateSequence(FatalError):
    """Written once already, so not definite. Its offset is no longer remembered (R31)."""

    code = "DUPLICATE_SEQUENCE"
    http_status = 409
    definite = False


class UnknownGroup(FatalError):
    """There is no group of that name."""

    code = "UNKNOWN_GROUP"
    http_status = 404


class InvalidGroup(FatalError):
    """The name cannot be a group's."""

    code = "INVALID_GROUP"
    http_status = 422


class GroupNotEmpty(FatalError):
    """The group has members. What was asked is possible only without."""

    code = "GROUP_NOT_EMPTY"
    http_status = 409


class GroupChanged(FatalError):
    """The request is older than what was decided about the group since. Nothing was changed."""

    code = "GROUP_CHANGED"
    http_status = 409
    definite = True


class InconsistentGroup(FatalError):
    """The members of a group must agree on their assignor."""

    code = "INCONSISTENT_GROUP"
    http_status = 409


class UnknownMember(FatalError):
    """The group does not know the member any more: join anew."""

    code = "UNKNOWN_MEMBER"
    http_status = 404


class StaleMemberEpoch(FatalError):
    """The member's epoch is over, or not the one it was told: join anew."""

    code = "STALE_MEMBER_EPOCH"
    http_status = 409


class InstanceInUse(FatalError):
    """Another living member has that ``instance_id``."""

    code = "INSTANCE_IN_USE"
    http_status = 409


class NotAssigned(FatalError):
    """The partition does not belong to this member at the moment."""

    code = "NOT_ASSIGNED"
    http_status = 409


class BufferFull(FatalError):
    """The producer's buffer had no room in time. Raised by the client: nothing was sent."""

    code = "BUFFER_FULL"


class ClientClosed(FatalError):
    """The client, producer or consumer was closed; raised by the client."""

    code = "CLIENT_CLOSED"


class InternalError(FatalError):
    """A fault of minilog's own. The broker's log says more. What was asked may have happened."""

    code = "INTERNAL"
    http_status = 500
    definite = False


class EndOffsetMismatch(FatalError):
    """The partition does not end where the request expects (``end_offset``): somebody else has
    written. Nothing was. Look at what is new, then decide anew."""

    code = "END_OFFSET_MISMATCH"
    http_status = 409


class OffsetOutOfRange(MinilogError):
    """The offset is outside the log, whose range the error names: the caller must choose."""

    code = "OFFSET_OUT_OF_RANGE"
    http_status = 416
    definite = True


class LogTruncated(MinilogError):
    """What the consumer has read is gone (``lost_from``, ``lost_to``): the caller must choose."""

    code = "LOG_TRUNCATED"
    http_status = 409
    definite = True


def _subclasses(cls: type[MinilogError]) -> Iterator[type[MinilogError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


ERRORS_BY_CODE: Mapping[str, type[MinilogError]] = {
    error.code: error for error in _subclasses(MinilogError) if error not in (RetriableError, FatalError)
}


def partly_done(error: MinilogError) -> MinilogError:
    """The same refusal, not definite: an earlier attempt has carried out a part of the request."""
    return type(error)(f"{error.detail}; a part of the batches was written before", definite=False, **error.info)


def error_from(code: str, detail: str, definite: bool, info: Mapping[str, Any]) -> MinilogError:
    """The error a peer reported; of an unknown code InternalError, with the same ``definite``."""
    cls = ERRORS_BY_CODE.get(code, InternalError)
    error = cls(detail, definite=definite)
    error.info.update(info)
    return error
