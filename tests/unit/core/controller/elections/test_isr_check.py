"""The controller's judgement of an ISR proposal (R16, R17): what is refused, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from minilog.core.controller.elections.isr_check import check_proposal
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.errors import (
    FencedLeaderEpoch,
    IneligibleReplica,
    InvalidRequest,
    InvalidUpdateVersion,
    MinilogError,
    NotController,
    UnknownTopic,
)
from minilog.wire.journal.metadata_records import BrokerFenced, BrokerShuttingDown, MetadataRecord
from minilog.wire.messages import IsrMember, IsrProposal
from tests.unit.core.builders import TOPIC, TOPIC_ID, image_of, partition_state, topic_records

STATE = partition_state(isr=[1, 2])
EPOCHS = {1: 2, 2: 4, 3: 6}


def proposal(
    isr: Sequence[int] = (1, 2, 3),
    *,
    leader_epoch: int = STATE.leader_epoch,
    partition_epoch: int = STATE.partition_epoch,
    topic_id: str = TOPIC_ID,
    partition: int = 0,
    epochs: dict[int, int] | None = None,
) -> IsrProposal:
    known = EPOCHS | (epochs or {})
    members = [IsrMember(r, known.get(r, 2)) for r in isr]
    return IsrProposal(TOPIC, topic_id, partition, leader_epoch, partition_epoch, members)


def judge(asked: IsrProposal, *records: MetadataRecord, sender: int = 1, unfit: Sequence[int] = ()) -> object:
    image = image_of(*topic_records(STATE), *records)
    return check_proposal(image, MetadataDraft(image), sender, asked, lambda broker_id, _: broker_id not in unfit)


@pytest.mark.parametrize("isr", [(1,), (1, 2), (1, 2, 3), (3, 2, 1), (1, 3)])
def test_what_a_leader_may_propose(isr: tuple[int, ...]) -> None:
    assert judge(proposal(isr)) == STATE


REFUSED: dict[str, tuple[IsrProposal, int, list[MetadataRecord], type[MinilogError]]] = {
    "unknown partition": (proposal(partition=9), 1, [], UnknownTopic),
    "an earlier topic of that name": (proposal(topic_id="old"), 1, [], UnknownTopic),
    "leader epoch I have not seen": (proposal(leader_epoch=6), 1, [], NotController),
    "partition epoch I have not seen": (proposal(partition_epoch=11), 1, [], NotController),
    "leader epoch is over": (proposal(leader_epoch=4), 1, [], FencedLeaderEpoch),
    "not from the leader": (proposal((2, 3)), 2, [], InvalidRequest),
    "partition epoch is over": (proposal(partition_epoch=9), 1, [], InvalidUpdateVersion),
    "without the leader": (proposal((2, 3)), 1, [], InvalidRequest),
    "a member twice": (proposal((1, 2, 2)), 1, [], InvalidRequest),
    "outside the replicas": (proposal((1, 4)), 1, [], InvalidRequest),
    "nobody": (proposal(()), 1, [], InvalidRequest),
    "an earlier process": (proposal(epochs={3: 5}), 1, [], IneligibleReplica),
    "a later process": (proposal(epochs={3: 7}), 1, [], IneligibleReplica),
    "a fenced member": (proposal(), 1, [BrokerFenced(3, 6)], IneligibleReplica),
    "a leaving member": (proposal(), 1, [BrokerShuttingDown(3, 6)], IneligibleReplica),
}


@pytest.mark.parametrize(("asked", "sender", "records", "error"), REFUSED.values(), ids=REFUSED)
def test_refusals(asked: IsrProposal, sender: int, records: list[MetadataRecord], error: type[MinilogError]) -> None:
    with pytest.raises(error) as caught:
        judge(asked, *records, sender=sender)
    assert type(caught.value) is error
    assert TOPIC in caught.value.detail


@pytest.mark.parametrize(
    ("isr", "unfit", "is_refused"),
    [
        ((1, 2, 3), (3,), True),
        ((1, 2, 3), (2, 3), True),
        ((1, 2), (3,), False),
        ((1,), (2, 3), False),
        # the leader stays while nobody else can lead, so what it knows of itself is no reason to
        # refuse the others
        ((1, 2, 3), (1,), False),
        ((1,), (1,), False),
    ],
)
def test_a_damaged_follower_is_not_let_in(isr: tuple[int, ...], unfit: tuple[int, ...], is_refused: bool) -> None:
    if not is_refused:
        assert judge(proposal(isr), unfit=unfit) == STATE
        return
    with pytest.raises(IneligibleReplica, match="may not be in the ISR, it is damaged or not open there"):
        judge(proposal(isr), unfit=unfit)


def test_who_leaves_in_the_same_step_is_not_eligible() -> None:
    image = image_of(*topic_records(STATE))
    draft = MetadataDraft(image)
    draft.ineligible.add(3)
    with pytest.raises(IneligibleReplica):
        check_proposal(image, draft, 1, proposal(), lambda *_: True)


def test_a_member_that_was_never_registered_is_not_eligible() -> None:
    image = image_of(*topic_records(STATE), brokers=(1, 2))
    with pytest.raises(IneligibleReplica, match="broker 3 of epoch 6 may not be in the ISR, it is unknown"):
        check_proposal(image, MetadataDraft(image), 1, proposal(), lambda *_: True)


ORDER: list[tuple[str, IsrProposal, int, type[MinilogError]]] = [
    # each proposal has its own fault and every fault that is checked later
    ("newer leader epoch", proposal((2, 2), leader_epoch=6, partition_epoch=9, epochs={2: 1}), 2, NotController),
    ("newer partition epoch", proposal((2, 2), leader_epoch=4, partition_epoch=11, epochs={2: 1}), 2, NotController),
    ("older leader epoch", proposal((2, 2), leader_epoch=4, partition_epoch=9, epochs={2: 1}), 2, FencedLeaderEpoch),
    ("another sender", proposal((2, 2), partition_epoch=9, epochs={2: 1}), 2, InvalidRequest),
    ("older partition epoch", proposal((2, 2), partition_epoch=9, epochs={2: 1}), 1, InvalidUpdateVersion),
    ("malformed ISR", proposal((2, 2), epochs={2: 1}), 1, InvalidRequest),
    ("ineligible member", proposal((1, 2), epochs={2: 1}), 1, IneligibleReplica),
]


@pytest.mark.parametrize(("asked", "sender", "error"), [row[1:] for row in ORDER], ids=[row[0] for row in ORDER])
def test_the_checks_come_in_the_order_of_r16(asked: IsrProposal, sender: int, error: type[MinilogError]) -> None:
    with pytest.raises(error) as caught:
        judge(asked, sender=sender)
    assert type(caught.value) is error
