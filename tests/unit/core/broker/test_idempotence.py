"""Numbered batches at a leader (R31): a repeated one is not written again, and is answered with
what it waits for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from minilog.errors import DuplicateSequence, OutOfOrderSequence, ProducerFenced
from minilog.wire.batch import split, stamp
from minilog.wire.journal.metadata_records import PartitionChanged
from minilog.wire.messages import ACKS_ALL, Produce, ProducePartition, ProduceResult
from minilog.wire.records import encode_values
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, partition_state

LED = partition_state()
P = 7


def batch(sequence: int, *values: bytes, epoch: int = 0, producer_id: int = P) -> bytes:
    return encode_values(values or (b"v",), 1000, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


def send(bench: BrokerBench, *batches: bytes, acks: int = ACKS_ALL, timeout_ms: int = 30_000) -> int:
    return bench.send(Produce(acks, timeout_ms, [ProducePartition(TOPIC, 0, memoryview(b"".join(batches)))]))


def result(bench: BrokerBench, request_id: int) -> ProduceResult:
    (found,) = bench.produced(request_id)
    return found


def code(bench: BrokerBench, request_id: int) -> str:
    problem = result(bench, request_id).problem
    assert problem is not None
    return problem.code


def commit(bench: BrokerBench) -> None:
    bench.flush()
    for follower in (2, 3):
        bench.acknowledge(follower, bench.log().end_offset)


def place(found: ProduceResult) -> tuple[Any, ...]:
    assert found.problem is None
    return found.base_offset, found.end_offset, found.leader_epoch, found.crc, found.timestamp


def with_leader(state: PartitionChanged, leader: int, isr: list[int] | None = None) -> PartitionChanged:
    epochs = {"leader_epoch": state.leader_epoch + 1, "partition_epoch": state.partition_epoch + 1}
    return replace(state, leader=leader, isr=isr or state.isr, **epochs)


def test_a_committed_batch_sent_again_is_answered_at_once_with_its_first_place() -> None:
    bench = BrokerBench.started(LED)
    first = send(bench, batch(0, b"a", b"b"))
    commit(bench)
    again = send(bench, batch(0, b"a", b"b"))
    assert place(result(bench, again)) == place(result(bench, first))
    assert (result(bench, first).duplicate, result(bench, again).duplicate) == (False, True)
    assert bench.log().end_offset == 2
    assert bench.waiting_count == 0


def test_an_uncommitted_batch_sent_again_waits_as_the_first_one_does() -> None:
    bench = BrokerBench.started(LED)
    first = send(bench, batch(0))
    bench.produce(b"other")
    again = send(bench, batch(0))
    bench.flush()
    bench.acknowledge(2, 2)
    assert not {first, again} & bench.replies.keys()
    bench.acknowledge(3, 1)
    assert place(result(bench, again)) == place(result(bench, first))
    assert bench.log().end_offset == 2
    bench.acknowledge(3, 2)
    assert bench.waiting_count == 0


def test_each_acks_level_asks_for_its_own() -> None:
    bench = BrokerBench.started(LED)
    send(bench, batch(0), acks=0)
    one, two, all_ = (send(bench, batch(0), acks=acks) for acks in (1, 2, ACKS_ALL))
    assert result(bench, send(bench, batch(0), acks=0)).duplicate
    assert not {one, two, all_} & bench.replies.keys()
    bench.flush()
    assert result(bench, one).base_offset == 0
    bench.acknowledge(2, 1)
    assert result(bench, two).acks == 2
    assert all_ not in bench.replies
    bench.acknowledge(3, 1)
    assert result(bench, all_).base_offset == 0


def test_a_repeated_batch_that_nobody_acknowledges_times_out_indefinitely() -> None:
    bench = BrokerBench.started(LED)
    send(bench, batch(0))
    again = send(bench, batch(0), timeout_ms=100)
    bench.tick(100)
    problem = result(bench, again).problem
    assert problem is not None
    assert (problem.code, problem.definite) == ("REQUEST_TIMED_OUT", False)


def test_a_repeated_batch_waits_for_the_epoch_it_was_sent_again_in() -> None:
    """R10: leadership goes away and comes back. What waited has failed, and a third attempt finds
    the entry of old."""
    bench = BrokerBench.started(LED)
    first = send(bench, batch(0))
    again = send(bench, batch(0))
    bench.flush()
    bench.metadata(with_leader(LED, 2))
    assert [code(bench, sent) for sent in (first, again)] == ["LEADERSHIP_LOST"] * 2
    bench.metadata(with_leader(with_leader(LED, 2), 1))
    third = send(bench, batch(0))
    assert third not in bench.replies
    commit(bench)
    assert result(bench, third).duplicate
    assert (result(bench, third).base_offset, result(bench, third).leader_epoch) == (0, LED.leader_epoch)
    assert bench.leader().leader_epoch == LED.leader_epoch + 2


def test_what_was_cut_from_the_log_is_not_known_any_more() -> None:
    bench = BrokerBench.started(LED)
    send(bench, batch(0))
    send(bench, batch(1))
    bench.flush()
    bench.metadata(with_leader(LED, 2))
    bench.log().truncate(1)
    bench.metadata(with_leader(with_leader(LED, 2), 1))
    assert code(bench, send(bench, batch(2))) == OutOfOrderSequence.code
    written = send(bench, batch(1))
    commit(bench)
    assert (result(bench, written).base_offset, result(bench, written).duplicate) == (1, False)


def test_refusals_write_nothing_and_say_why() -> None:
    bench = BrokerBench.started(LED)
    for sequence in range(7):
        send(bench, batch(sequence, epoch=1))
    end_offset = bench.log().end_offset
    assert code(bench, send(bench, batch(9, epoch=1))) == OutOfOrderSequence.code
    assert code(bench, send(bench, batch(7))) == ProducerFenced.code
    assert code(bench, send(bench, batch(0, epoch=1))) == DuplicateSequence.code
    problem = result(bench, send(bench, batch(9, epoch=1))).problem
    assert problem is not None
    assert (problem.definite, dict(problem.info)) == (True, {"expected": 7, "seen": 9})
    assert bench.log().end_offset == end_offset


def test_a_request_of_which_a_head_was_written_before_gets_one_receipt_for_all_of_it() -> None:
    bench = BrokerBench.started(LED)
    send(bench, batch(0, b"a"), batch(1, b"b", b"c"))
    bench.produce(b"between")
    sent = send(bench, batch(0, b"a"), batch(1, b"b", b"c"), batch(3, b"d"))
    commit(bench)
    found = result(bench, sent)
    assert (found.base_offset, found.end_offset, found.base_offsets) == (0, 5, [0, 1, 4])
    assert found.duplicate
    assert bench.log().end_offset == 5


MIXED_REFUSED: dict[str, tuple[int, bool, str]] = {
    # acks, whether the disk is full, the code
    "more copies than replicas": (4, False, "INVALID_ACKS"),
    "more copies than the ISR has": (2, False, "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
    "fewer than min ISR": (ACKS_ALL, False, "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
    "a full disk": (1, True, "DISK_FULL"),
    "a full disk, and no promise": (0, True, "DISK_FULL"),
}


@pytest.mark.parametrize("is_mixed", [True, False])
@pytest.mark.parametrize(("acks", "is_full", "code_"), MIXED_REFUSED.values(), ids=MIXED_REFUSED)
def test_a_refusal_is_definite_only_when_nothing_of_the_request_lies_in_the_log(
    acks: int, is_full: bool, code_: str, is_mixed: bool
) -> None:
    bench = BrokerBench.started(LED, min_isr=2)
    send(bench, batch(0), acks=0)
    bench.metadata(replace(LED, isr=[1], elr=[2, 3], partition_epoch=LED.partition_epoch + 1))
    if is_full:
        bench.log().room = 0
    batches = [batch(0), batch(1)] if is_mixed else [batch(1)]
    problem = result(bench, send(bench, *batches, acks=acks)).problem
    assert problem is not None
    assert (problem.code, problem.definite) == (
        code_ if is_mixed else code_.removesuffix("_AFTER_APPEND"),
        not is_mixed,
    )
    assert ("a part of the batches was written before" in problem.detail) is is_mixed
    assert "nothing was written, retry" not in problem.detail or not is_mixed
    assert bench.log().end_offset == 1
    assert bench.waiting_count == 0


@pytest.mark.parametrize("other", [batch(5), batch(5, epoch=1)], ids=["a gap", "another epoch"])
def test_a_wrong_sequence_behind_a_head_that_was_written_is_indefinite(other: bytes) -> None:
    bench = BrokerBench.started(LED)
    send(bench, batch(0), acks=0)
    alone = result(bench, send(bench, other)).problem
    behind = result(bench, send(bench, batch(0), other)).problem
    assert alone is not None
    assert behind is not None
    assert (alone.code, alone.definite) == ("OUT_OF_ORDER_SEQUENCE", True)
    assert (behind.code, behind.definite) == ("OUT_OF_ORDER_SEQUENCE", False)
    assert behind.info == alone.info


def test_batches_that_lie_in_a_row_need_no_list_of_places() -> None:
    bench = BrokerBench.started(LED)
    send(bench, batch(0), batch(1))
    again = send(bench, batch(0), batch(1))
    more = send(bench, batch(1), batch(2))
    commit(bench)
    assert (result(bench, again).end_offset, result(bench, again).base_offsets) == (2, [])
    assert (result(bench, more).base_offset, result(bench, more).end_offset) == (1, 3)
    assert result(bench, more).base_offsets == []


def test_a_committed_batch_is_acknowledged_again_whatever_has_become_of_the_isr() -> None:
    bench = BrokerBench.started(LED, min_isr=2)
    send(bench, batch(0))
    commit(bench)
    send(bench, batch(1))
    bench.metadata(replace(LED, isr=[1], elr=[2], partition_epoch=LED.partition_epoch + 1))
    assert result(bench, send(bench, batch(0))).base_offset == 0
    uncommitted = result(bench, send(bench, batch(1))).problem
    new = result(bench, send(bench, batch(2))).problem
    assert uncommitted is not None
    assert new is not None
    assert (uncommitted.code, uncommitted.definite) == ("NOT_ENOUGH_REPLICAS_AFTER_APPEND", False)
    assert (new.code, new.definite) == ("NOT_ENOUGH_REPLICAS", True)
    assert code(bench, send(bench, batch(0), acks=4)) == "INVALID_ACKS"


def test_a_follower_rejects_no_sequence_and_knows_them_when_it_begins_to_lead() -> None:
    """R32: what it took over says which batches were written, though nobody has asked it before."""
    bench = BrokerBench.started(with_leader(LED, 2))
    log = bench.log()
    for number, sequence in enumerate((0, 5, 6)):
        (sent,) = split(batch(sequence), 1 << 20)
        log.append([stamp(sent, number, 6, 3)])
    log.sync()
    bench.metadata(with_leader(with_leader(LED, 2), 1))
    again = send(bench, batch(6))
    assert code(bench, send(bench, batch(0))) == OutOfOrderSequence.code
    commit(bench)
    assert result(bench, again).base_offset == 2
