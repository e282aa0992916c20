"""Kinds of requests: who waits for one of them keeps nobody from another."""

from __future__ import annotations

from minilog.core.shares import Shares
from minilog.errors import Overloaded
from minilog.wire.group_messages import GroupRequest
from minilog.wire.messages import Fetch, Message, Positions, Probe, Produce, ReplicaFetch

KINDS = ("produce", "fetch", "group", "other")
UNLIMITED = (ReplicaFetch, Positions, Probe)
"""Requests the cluster itself depends on. Each peer has at most one of a kind under way."""


def kind_of(request: Message) -> str:
    """Each kind has a limit of its own, so that those who wait for records, or for their groups,
    keep nobody from writing."""
    if isinstance(request, Produce):
        return "produce"
    if isinstance(request, Fetch):
        return "fetch"
    return "group" if isinstance(request, GroupRequest) else "other"


def crowded(kind: str, shares: Shares, client: str) -> Overloaded:
    """Why one more of a client may not wait."""
    return Overloaded(
        f"{shares.total} {kind} requests already wait here, {shares.held[client]} of them of this client: of "
        f"{shares.places_max} (limits.parked_requests_max) a client may have as many as are free; retry later"
    )
