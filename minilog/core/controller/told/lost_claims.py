"""Lost claims: who writes which lost records again. Pure.

Several replicas may have cut the same records, and each keeps a copy. Leader epoch and offset name
a record for ever (R2), so the journal can say which copy is the one to be written again: whoever
claims records first has them, and what another tail has claimed is left out of a later claim. A
claim that is made again is answered as it was decided, also when the broker has forgotten it.

Whoever has written all that it claimed says so. A claim that is open, and whose broker has another
data directory by now, is given up: its tail has gone, and nobody knows how much of it was written.
Another copy takes over what it holds of that, so these records are written at least once, not
exactly once. Their headers name where each was, so that readers can tell.

Invariant: no two claims hold the same record of a partition of a topic.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from minilog.core.controller.journal.foreign_values import check_lost
from minilog.core.image import ClusterImage, check_topic_id
from minilog.core.lost_replay import without
from minilog.errors import InvalidRequest, UnknownPartition, UnknownTopic
from minilog.wire.bounded import FEW_MAX
from minilog.wire.journal.metadata_records import LostClaimed
from minilog.wire.messages import ClaimLost, ClaimLostReply, LostRun


def claim_lost(request: ClaimLost, image: ClusterImage) -> tuple[list[LostClaimed], ClaimLostReply]:
    """Raises InvalidRequest, UnknownTopic, UnknownPartition or InconsistentTopicId."""
    check_lost(request)
    claimed = _same_partition(request, image)
    known = next((c for c in claimed if (c.broker_id, c.tail) == (request.broker_id, request.tail)), None)
    if known is not None:
        return _again(known, request, image)
    if request.finished:  # so long ago that the claim is forgotten
        return [], ClaimLostReply([], *_target_of(request), request.producer_id, image.metadata_offset)
    _check_target(request, image)
    given_up = [claim for claim in claimed if image.is_given_up(claim)]
    runs = without(request.runs, [LostRun(*run) for claim in claimed if claim not in given_up for run in claim.runs])
    left = [replace(claim, runs=_tuples(without(_runs_of(claim), runs))) for claim in given_up]
    if max(len(runs), *(len(claim.runs) for claim in left), 0) > FEW_MAX:
        raise InvalidRequest(
            f"what others have not claimed of {request.tail} lies in {len(runs)} pieces, allowed are {FEW_MAX}; "
            "`minilog lost export` prints it"
        )
    record = LostClaimed(
        request.broker_id,
        request.tail,
        request.topic,
        request.topic_id,
        request.partition,
        _tuples(runs),
        *_target_of(request),
        request.producer_id,
        request.directory_id,
    )
    records = [*(claim for claim in left if claim not in given_up), record]
    return records, _reply(record, request, image.metadata_offset + len(records))


def _again(known: LostClaimed, request: ClaimLost, image: ClusterImage) -> tuple[list[LostClaimed], ClaimLostReply]:
    """What was decided. Nothing of it changes, but that it is finished now."""
    finished = [replace(known, finished=True)] if request.finished and not known.finished else []
    return finished, _reply(known, request, image.metadata_offset + len(finished))


def _runs_of(claim: LostClaimed) -> list[LostRun]:
    return [LostRun(*run) for run in claim.runs]


def _tuples(runs: Iterable[LostRun]) -> list[tuple[int, int, int]]:
    return [(run.leader_epoch, run.base_offset, run.end_offset) for run in runs]


def _target_of(it: ClaimLost | LostClaimed) -> tuple[str, str, int]:
    return it.into, it.into_topic_id, it.into_partition


def _same_partition(request: ClaimLost, image: ClusterImage) -> list[LostClaimed]:
    """Claims of the partition that was cut. Where an id is not known, the name has to do."""
    return [
        claim
        for claim in image.lost_claims.values()
        if (claim.topic, claim.partition) == (request.topic, request.partition)
        and (claim.topic_id == request.topic_id or not claim.topic_id or not request.topic_id)
    ]


def _check_target(request: ClaimLost, image: ClusterImage) -> None:
    topic = image.topics.get(request.into)
    if topic is None:
        raise UnknownTopic(f"there is no topic {request.into!r} to write lost records into", topic=request.into)
    check_topic_id(request.into, request.into_topic_id, topic.topic_id)
    if request.into_partition not in topic.partitions:
        raise UnknownPartition(
            f"topic {request.into} has partitions 0 to {len(topic.partitions) - 1}, not {request.into_partition}"
        )


def _reply(claim: LostClaimed, request: ClaimLost, metadata_offset: int) -> ClaimLostReply:
    target = _target_of(claim)
    if target != _target_of(request):
        raise InvalidRequest(
            f"the tail {request.tail} of broker {request.broker_id} is being written into {claim.into}-"
            f"{claim.into_partition} (topic id {claim.into_topic_id}) since it was first asked for; the rest can go nowhere else"
        )
    return ClaimLostReply(_runs_of(claim), *target, claim.producer_id, metadata_offset)
