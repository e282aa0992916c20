"""Requests about several partitions: each is decided for itself, so that one topic that is refused
costs no other its answer. The core sees what is allowed. The answer has every partition, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from minilog.core.access.policy import refusal
from minilog.core.access.principal import Principal, Role
from minilog.wire.messages import (
    Fetch,
    FetchReply,
    FetchResult,
    Message,
    Problem,
    Produce,
    ProduceReply,
    ProduceResult,
)
from minilog.wire.needs import NEEDS, Operation

M = TypeVar("M", Produce, Fetch)
Refused = Mapping[int, ProduceResult | FetchResult]
"""By their place in the request."""


def divided(sender: Principal, asker: Principal, message: M) -> tuple[M, Refused]:
    """What of it the core may see, and the answers to the rest. ``asker``: whose rights count."""
    if sender.is_open:
        return message, {}
    operation = _operation(sender, asker, message)
    kind = ProduceResult if isinstance(message, Produce) else FetchResult
    refused = {
        place: kind(entry.topic, entry.partition, Problem.of(refusal(asker, operation, entry.topic)))
        for place, entry in enumerate(message.partitions)
        if not asker.may(operation, entry.topic)
    }
    if not refused:
        return message, {}
    allowed = [entry for place, entry in enumerate(message.partitions) if place not in refused]
    return replace(message, partitions=allowed), refused


def _operation(sender: Principal, asker: Principal, message: Produce | Fetch) -> Operation:
    """Whoever knows the cluster may ask about a receipt, so the broker that looks needs no more."""
    if isinstance(message, Fetch) and message.of_receipt and Role.PEER in sender.roles and asker is not sender:
        return Operation.DESCRIBE
    return NEEDS[type(message)].operation


def joined(reply: Message, refused: Refused) -> Message:
    """A Problem is one of the whole request."""
    if not refused or not isinstance(reply, ProduceReply | FetchReply):
        return reply
    answered = iter(reply.partitions)
    every = [refused.get(place) or next(answered) for place in range(len(reply.partitions) + len(refused))]
    return replace(reply, partitions=every)
