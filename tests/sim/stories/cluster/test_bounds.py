"""Stories of what one message may make a broker do: whatever it names or holds is added up before
anything is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from minilog.core.broker.requests import fetch, produce
from minilog.core.broker.requests.allowance import BATCHES_MAX
from minilog.core.broker.roles import FILES_MAX
from minilog.core.replication import replica_fetcher
from minilog.errors import InvalidRequest
from minilog.wire.batch import Batch
from minilog.wire.group_messages import CommittedOffsets, TopicPartitions
from minilog.wire.messages import (
    ACKS_ALL,
    LATEST,
    Fetch,
    FetchPartition,
    FetchReply,
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

APPENDS_MAX = produce.TURN_WORK // produce.APPEND_WORK
LOOKED_AT_MAX = fetch.TURN_LOOKS
TAKEN_MAX = replica_fetcher.TURN_WORK
"""Batches in one turn."""


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


def test_a_topic_of_many_partitions_is_made_in_many_turns() -> None:
    """R42: each turn makes a few logs, and the others are served between them. A position that is
    asked for meanwhile is told."""
    c = SimCluster(seed=1, brokers=3).start()
    made: Counter[int] = Counter()
    store = c.broker(1).store
    opened = store.open

    def open_and_count(*arguments: Any) -> Any:
        made[c.broker(1).turns] += 1
        return opened(*arguments)

    store.open = open_and_count  # type: ignore[assignment, method-assign]
    c.create_topic("wide", partitions=40, min_isr=2)
    c.until(lambda: made.total() == 40)
    assert max(made.values()) <= FILES_MAX
    for partition in range(40):
        c.settle("wide", partition)
    c.produce("wide", partition=39)
    c.delete_topic("wide")
    c.until(lambda: store.partitions() == [])


def test_what_one_request_writes_everywhere_is_written_in_many_turns() -> None:
    """R42: a leader appends to some logs in each turn."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("wide", assignment=[[1, 2, 3]] * 40, min_isr=2)
    c.settle("wide", 39)
    appends = _appended(c, 1, lambda batches: 1)
    _write(c, *(ProducePartition("wide", p, memoryview(encode_values([b"x"], 1000))) for p in range(40)))
    assert appends.total() == 40
    assert max(appends.values()) <= APPENDS_MAX


def test_what_a_leader_answers_is_taken_over_in_many_turns() -> None:
    """R42: a follower appends some batches in each turn, however many it is sent at once."""
    c = cluster()
    taken = [_appended(c, broker_id, len) for broker_id in (2, 3)]
    _write(c, ProducePartition("t", 0, memoryview(encode_values([b"x"], 1000) * BATCHES_MAX)))
    c.run(1000)
    for batches in taken:
        assert batches.total() == BATCHES_MAX
        assert max(batches.values()) <= TAKEN_MAX


def test_many_that_wait_for_one_commit_are_answered_in_many_turns() -> None:
    """R42: each is answered, and none of them twice."""
    c = cluster()
    count = 2 * LOOKED_AT_MAX + 1
    answers: list[Response] = []
    for _ in range(count):
        c.admin.ask(c.leader("t", 0), Fetch([FetchPartition("t", 0, 0)], 5000), answers.append, 6000)
    c.run(500)
    assert answers == []
    node, turns = c.broker(c.leader("t", 0)), Counter[int]()
    reply = node._reply

    def reply_and_count(request_id: int, response: Message) -> None:
        turns[node.turns] += isinstance(response, FetchReply)
        reply(request_id, response)

    node._reply = reply_and_count  # type: ignore[method-assign]
    _write(c, ProducePartition("t", 0, memoryview(encode_values([b"x"], 1000))))
    c.until(lambda: len(answers) == count, "all answers")
    assert all(isinstance(answer, FetchReply) and len(answer.partitions[0].batches) for answer in answers)
    assert max(turns.values()) <= LOOKED_AT_MAX


def _write(c: SimCluster, *entries: ProducePartition) -> None:
    answer = ask(c, Produce(ACKS_ALL, 2000, list(entries)))
    assert isinstance(answer, ProduceReply)
    assert [result.problem for result in answer.partitions] == [None] * len(entries)


def _appended(c: SimCluster, broker_id: int, count: Callable[[Sequence[Batch]], int]) -> Counter[int]:
    """How much a broker appends from now on, by its turns."""
    node, made = c.broker(broker_id), Counter[int]()

    def watch(log: Any) -> None:
        append = log.append

        def append_and_count(batches: Sequence[Batch]) -> None:
            made[node.turns] += count(batches)
            append(batches)

        log.append = append_and_count

    assert node.core is not None
    for replica in node.core.replicas.values():
        watch(replica.log)
    return made


def test_a_broker_that_may_open_no_more_files_refuses_these_and_goes_on() -> None:
    """R43: of a topic of many partitions it makes what it can. The others are led elsewhere until
    there are descriptors again."""
    c = cluster()
    c.produce("t", 3)
    disk = c.broker(1).machine.disk
    disk.files_max = len(disk._handles)
    c.create_topic("more", assignment=[[1, 2, 3]] * 4, min_isr=2)
    c.until(lambda: all(c.leader("more", partition) in (2, 3) for partition in range(4)))
    c.until(lambda: c.leader("t", 0) in (2, 3), "what it led is led elsewhere, too")
    c.produce("t", 3)
    c.produce("more", 3)
    assert c.broker(1).running
    disk.files_max = 10**9
    for partition in range(4):
        c.settle("more", partition)
