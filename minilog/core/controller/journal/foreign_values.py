"""Foreign values: what brokers say of themselves, checked before anything is decided or journalled
(R44).

How long each text and list may be is a matter of its type (wire/bounded.py). Here is the form: an
address is one that can be connected to, and a replica has a name that a topic can have.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from minilog.config import url_fault
from minilog.core.topic_names import check_topic_name
from minilog.errors import InvalidRequest, InvalidTopic
from minilog.wire.bounded import ID_CHARS_MAX, NAME_CHARS_MAX
from minilog.wire.journal.metadata_records import ReplicaName
from minilog.wire.messages import ClaimLost, Heartbeat, LoneEnd, Register

PARTITIONS_MAX = 2**31 - 1
CONDITIONS_MAX = 32
EVENTS_MAX = 32
EVENT_BYTES_MAX = 8 * 1024
SHOWN_MAX = 100


def check_register(request: Register) -> None:
    """Raises InvalidRequest, which names what is wrong."""
    fault = url_fault(request.url)
    if fault is not None:
        raise InvalidRequest(
            f"the address {request.url[:SHOWN_MAX]!r} of broker {request.broker_id} is not allowed: {fault}"
        )
    texts = (("incarnation", request.incarnation), ("rack", request.rack), ("directory_id", request.directory_id))
    for field, text in texts:
        if len(text) > (ID_CHARS_MAX if field == "directory_id" else NAME_CHARS_MAX):
            raise InvalidRequest(f"{field} of broker {request.broker_id} has {len(text)} characters, which is too long")
    _check_replicas(request.broker_id, request.lost)


def check_heartbeat(request: Heartbeat) -> None:
    """Raises InvalidRequest, which names what is wrong."""
    _check_replicas(request.broker_id, request.unfit)
    _check_replicas(request.broker_id, request.lone_ends)
    if len(request.conditions) > CONDITIONS_MAX:
        raise InvalidRequest(
            f"broker {request.broker_id} tells of {len(request.conditions)} conditions, allowed are {CONDITIONS_MAX}"
        )
    _check_events(request)


def check_lost(request: ClaimLost) -> None:
    """Raises InvalidRequest, which names what is wrong."""
    _check_replicas(request.broker_id, [ReplicaName(request.topic, request.topic_id, request.partition)])
    epochs = [run.leader_epoch for run in request.runs]
    if not epochs or epochs != sorted(epochs) or len(request.tail) > NAME_CHARS_MAX:
        raise InvalidRequest(
            f"broker {request.broker_id} claims lost records that cannot be: leader epochs {epochs[:8]}"
        )
    ends = [0, *(offset for run in request.runs for offset in (run.base_offset, run.end_offset))]
    if ends != sorted(ends) or any(run.base_offset == run.end_offset for run in request.runs):
        raise InvalidRequest(f"broker {request.broker_id} claims lost records whose offsets do not rise: {ends[1:9]}")


def _check_events(request: Heartbeat) -> None:
    if len(request.events) > EVENTS_MAX:
        raise InvalidRequest(
            f"broker {request.broker_id} tells of {len(request.events)} events at once, allowed are {EVENTS_MAX}"
        )
    for seen in request.events:
        if len(msgspec.msgpack.encode(seen)) > EVENT_BYTES_MAX:
            raise InvalidRequest(
                f"event {seen.number} of broker {request.broker_id} is too long, allowed are {EVENT_BYTES_MAX} bytes"
            )


def _check_replicas(broker_id: int, replicas: Iterable[ReplicaName | LoneEnd]) -> None:
    for replica in replicas:
        try:
            check_topic_name(replica.topic)
        except InvalidTopic as error:
            raise InvalidRequest(f"broker {broker_id} names a replica that cannot be: {error.detail}") from None
        if len(replica.topic_id) > ID_CHARS_MAX or not 0 <= replica.partition <= PARTITIONS_MAX:
            raise InvalidRequest(
                f"broker {broker_id} names a replica that cannot be: partition {replica.partition} of {replica.topic}, "
                f"topic id {replica.topic_id[:SHOWN_MAX]!r}"
            )
