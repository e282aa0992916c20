"""Offsets to commit, compared with where their partitions end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from minilog.errors import MinilogError, OffsetOutOfRange
from minilog.wire.messages import LATEST, Offsets, OffsetsPartition, OffsetsReply
from minilog_client.connection.cluster import Cluster
from minilog_client.group.holdings import Held, Mark
from minilog_client.values import PartitionKey


async def refuse_beyond_ends(
    cluster: Cluster, marks: Mapping[PartitionKey, Mark], helds: Mapping[PartitionKey, Held]
) -> None:
    """Raises OffsetOutOfRange for an offset that is beyond the end of its partition. Its leader is
    asked only where what is known here does not reach so far."""
    for key, mark in marks.items():
        held, state = helds[key], helds[key].state
        if mark.offset <= max(state.high_watermark or 0, state.position or 0, held.high):
            continue
        end = await _end(cluster, key, state.topic_id)
        if end is not None and mark.offset > end:
            raise OffsetOutOfRange(
                f"the offset to commit for {key[0]}-{key[1]} is {mark.offset}, and the partition ends at {end}: what is "
                "written up to there later would never be read; nothing was committed",
                high_watermark=end, topic=key[0], partition=key[1],
            )  # fmt: skip


async def _end(cluster: Cluster, key: PartitionKey, topic_id: str) -> int | None:
    """None where nobody tells."""
    leader = cluster.routing.leader(*key)
    if leader is None:
        return None
    message = Offsets([OffsetsPartition(*key, LATEST, topic_id=topic_id)])
    with suppress(MinilogError):
        reply = await cluster.call(leader.url, message, OffsetsReply, cluster.settings.request_timeout_ms)
        for result in reply.partitions:
            if result.problem is None:
                return result.offset
    return None
