"""A journal made anew from what brokers have applied (R38): when the controller's disk is lost, or
its backup is older than the cluster.

The copy that holds all others is what the cluster goes on from. What no broker has applied had no
effect on any. Epochs and indexes only ever go up: the new journal begins beyond every number that
any broker has noted, and in a term of its own, so that a broker that comes later with more is
noticed.

Copies that were saved may be older than what their brokers had applied in the end. So somebody may
have led in an epoch that no copy knows, and written; and who was in the ISR last is not known. Each
partition goes on in an epoch far beyond, without a leader: its logs are compared. Where not all who
were complete have said themselves what they have applied, nobody is known to be complete, and all
of them are asked (R22).

Pure functions. Source: KIP-595 (the log with the highest epoch and end wins).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

from msgspec.structs import replace

from minilog.core.image import ClusterImage, PartitionState
from minilog.errors import InvalidRequest
from minilog.wire.journal.metadata_copy import BrokerCopy
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    ControllerStarted,
    MetadataRecord,
    PartitionChanged,
    ProducerIdsAllocated,
)

PRODUCER_IDS_SKIPPED = 1_000_000
"""More than can have been handed out since the copy was made."""
EPOCHS_SKIPPED = 100_000
"""Of leaders and of partitions: as above."""


class Chosen(NamedTuple):
    source: BrokerCopy
    image: ClusterImage


def choose(copies: Sequence[BrokerCopy]) -> Chosen:
    """The copy that holds all the others. Raises InvalidRequest when there is none, saying how they
    differ."""
    known = [Chosen(copy, _image_of(copy)) for copy in copies if copy.metadata.metadata_offset > 0]
    if not known:
        raise InvalidRequest("none of the brokers has a copy of the metadata; nothing can be made from that")
    clusters = sorted({one.source.metadata.cluster_id for one in known})
    if len(clusters) > 1:
        raise InvalidRequest(f"the brokers belong to different clusters: {', '.join(clusters)}; name those of one")
    for one in known:
        if all(_holds(one.image, other.source) for other in known):
            return one
    told = "; ".join(_place(one.source) for one in known)
    raise InvalidRequest(
        f"the brokers have followed different journals, and none holds what the others have applied: {told}. "
        "Name those whose journal the cluster is to go on from; the others must be given empty data directories"
    )


def recovered(chosen: Chosen, copies: Sequence[BrokerCopy], term_id: str) -> tuple[int, list[MetadataRecord]]:
    """(index, records) of the snapshot that the new journal begins with."""
    image = chosen.image
    first = image.metadata_offset + 1
    index = max(first, *(copy.broker_epoch for copy in copies))
    epoch = 1 + max(image.controller_epoch, *(copy.controller_epoch for copy in copies))
    live = {copy.broker_id for copy in copies if copy.is_live}
    records = [
        _reopened(record, live) if isinstance(record, PartitionChanged) else record
        for record in image.snapshot()
        if not isinstance(record, ProducerIdsAllocated)
    ]
    terms = sum(isinstance(record, ControllerStarted) for record in records)
    records.insert(terms, ControllerStarted(image.cluster_id, epoch, term_id, first))
    records.append(ProducerIdsAllocated(-1, image.next_producer_id + PRODUCER_IDS_SKIPPED))
    return index, records


def left_out(chosen: Chosen, copies: Sequence[BrokerCopy]) -> list[int]:
    """Brokers that were registered, or have obeyed a controller, in a part of the journal that no
    copy has."""
    image = chosen.image
    return sorted(
        copy.broker_id
        for copy in copies
        if copy.broker_epoch > image.metadata_offset or copy.controller_epoch > image.controller_epoch
    )


def _reopened(state: PartitionState, live: Set[int]) -> PartitionState:
    opened = replace(
        state,
        leader=NO_LEADER,
        leader_epoch=state.leader_epoch + EPOCHS_SKIPPED,
        partition_epoch=state.partition_epoch + EPOCHS_SKIPPED,
    )
    if live >= {*state.isr, *state.elr}:
        return opened
    last_known = [r for r in state.replicas if r in (*state.isr, *state.elr, *state.last_known_elr)]
    return replace(opened, isr=[], elr=[], last_known_elr=last_known)


def _image_of(copy: BrokerCopy) -> ClusterImage:
    image = ClusterImage()
    image.load(copy.metadata.metadata_offset, copy.metadata.records)
    return image


def _holds(image: ClusterImage, other: BrokerCopy) -> bool:
    return image.holds(other.metadata.term_id, other.metadata.metadata_offset)


def _place(copy: BrokerCopy) -> str:
    metadata = copy.metadata
    return (
        f"broker {copy.broker_id} stands at record {metadata.metadata_offset} of controller epoch "
        f"{metadata.controller_epoch} (term {metadata.term_id or 'unknown'})"
    )
