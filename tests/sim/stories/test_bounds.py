"""Stories of what one message may make a broker do: whatever it names or holds is added up before
anything is done."""

from __future__ import annotations

from minilog.errors import InvalidRequest
from minilog.wire.group_messages import CommittedOffsets, TopicPartitions
from minilog.wire.messages import (
    ACKS_ALL,
    LATEST,
    Message,
    Offsets,
    OffsetsPartition,
    Produce,
    ProducePartition,
    ProduceReply,
)
from minilog.wire.records import encode_values
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Response


def cluster() -> SimCluster:
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3], [1, 2, 3]], min_isr=2)
    return c


def ask(c: SimCluster, request: Message) -> Response:
    answers: list[Response] = []
    c.admin.ask(1, request, answers.append, 2000)
    c.until(lambda: bool(answers), "an answer")
    return answers[0]


def test_a_message_that_names_too_much_is_refused_before_it_is_looked_at() -> None:
    """R71: one entry too many, in one list or in many; as many as are allowed are answered."""
    c = cluster()
    count = c.broker(1).settings.limits.partitions_max + 1
    many = Offsets([OffsetsPartition("t", 0, LATEST)] * count)
    nested = CommittedOffsets("g", [TopicPartitions("t", list(range(count // 2 + 1))) for _ in range(2)])
    for request in (many, nested):
        answer = ask(c, request)
        assert isinstance(answer, InvalidRequest), answer
    assert not isinstance(ask(c, Offsets(many.partitions[1:])), InvalidRequest)


def test_the_batches_of_a_request_are_added_up_over_its_partitions() -> None:
    """R71: a log forgets a producer for each new one, and neither partition is sent many by
    itself."""
    c = cluster()
    lots = [b"".join(batch_of(producer_id) for producer_id in ids) for ids in (range(6), range(6, 12))]
    answer = ask(c, Produce(ACKS_ALL, 1000, [ProducePartition("t", p, memoryview(lot)) for p, lot in enumerate(lots)]))
    assert isinstance(answer, ProduceReply)
    first, second = answer.partitions
    assert first.problem is None
    assert second.problem is not None
    assert (second.problem.code, second.problem.definite) == ("INVALID_REQUEST", True)


def batch_of(producer_id: int) -> bytes:
    return encode_values([b"x"], 1000, producer_id=producer_id, producer_epoch=0, base_sequence=0)
