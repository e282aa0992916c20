from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import InvalidRequest
from minilog.wire.messages import BrokerInfo, MetadataReply, PartitionInfo, TopicInfo
from minilog_client.connection.routing import Leader, Routing

URLS = {1: "http://a", 2: "http://b", 3: "http://c"}


def reply(offset: int, *partitions: PartitionInfo, topic_id: str = "id", cluster: str = "c") -> MetadataReply:
    brokers = [BrokerInfo(i, url, "running", 1, "rack-b" if i == 2 else "") for i, url in URLS.items()]
    topics = [TopicInfo("t", topic_id, list(partitions), {"max.message.bytes": "2000"})] if partitions else []
    return MetadataReply(cluster, offset, 1, brokers, topics)


def part(partition: int, leader: int, leader_epoch: int, partition_epoch: int = 0) -> PartitionInfo:
    return PartitionInfo(partition, leader, leader_epoch, partition_epoch, [1, 2, 3], [1, 2, 3])


def test_nothing_is_known_at_first() -> None:
    routing = Routing(["http://a"])
    assert routing.leader("t", 0) is None
    assert routing.candidates(0) == ["http://a"]
    with pytest.raises(InvalidRequest):
        Routing([])


def test_leader_and_topic() -> None:
    routing = Routing(["http://x"])
    assert routing.on_metadata(reply(5, part(0, 2, 7), part(1, -1, 3)), ["t"], 0)
    assert routing.leader("t", 0) == Leader(2, "http://b", 7)
    assert routing.leader("t", 1) is None
    topic = routing.topic("t")
    assert topic is not None
    assert (topic.partition_count, topic.message_bytes_max) == (2, 2000)


def test_a_count_with_a_gap_is_not_believed() -> None:
    routing = Routing(["http://x"])
    routing.on_metadata(reply(5, part(0, 1, 0), part(2, 1, 0)), ["t"], 0)
    topic = routing.topic("t")
    assert topic is not None
    assert topic.partition_count == 1


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(5)))
def test_epochs_never_go_back_whatever_the_order_of_answers(order: list[int]) -> None:
    routing = Routing(["http://x"])
    highest = -1
    for step in order:
        routing.on_metadata(reply(10 + step, part(0, 1 + step % 3, step, step)), ["t"], 0)
        highest = max(highest, step)
        leader = routing.leader("t", 0)
        assert leader is not None
        assert (leader.leader_epoch, leader.broker_id) == (highest, 1 + highest % 3)


def test_a_topic_created_anew_replaces_the_old_one_in_any_order() -> None:
    answers = [
        reply(10, part(0, 1, 9), part(1, 1, 9), topic_id="old"),
        reply(20),
        reply(30, part(0, 2, 0), topic_id="new"),
    ]
    for order in permutations(answers):
        routing = Routing(["http://x"])
        for answer in order:
            routing.on_metadata(answer, ["t"], 0)
        topic = routing.topic("t")
        assert topic is not None, order
        assert (topic.topic_id, topic.partition_count) == ("new", 1), order


def test_absence_counts_from_the_newest_answers_only() -> None:
    routing = Routing(["http://x"])
    routing.on_metadata(reply(10, part(0, 1, 0)), ["t"], 0)
    routing.on_metadata(reply(5), ["t"], 1)
    assert routing.topic("t") is not None
    routing.on_metadata(reply(11), ["t"], 2)
    assert routing.topic("t") is None
    assert routing.missing_since_ms("t") == 2
    routing.on_metadata(reply(12), ["t"], 9)
    assert routing.missing_since_ms("t") == 2
    routing.on_metadata(reply(13, part(0, 1, 0)), [], 10, is_all=True)
    assert routing.missing_since_ms("t") is None


def test_a_hint_counts_when_it_is_news() -> None:
    routing = Routing(["http://x"])
    routing.on_metadata(reply(10, part(0, 1, 4)), ["t"], 0)
    assert not routing.on_leader_hint("t", 0, {"leader": 2, "leader_epoch": 4})
    assert not routing.on_leader_hint("t", 0, {"leader": 9, "leader_epoch": 5})
    assert not routing.on_leader_hint("t", 0, {"leader": 2})
    assert not routing.on_leader_hint("t", 7, {"leader": 2, "leader_epoch": 5})
    assert routing.on_leader_hint("t", 0, {"leader": 2, "leader_epoch": 5})
    assert routing.leader("t", 0) == Leader(2, "http://b", 5)


def test_a_hint_ends_an_election() -> None:
    routing = Routing(["http://x"])
    routing.on_metadata(reply(10, part(0, -1, 5)), ["t"], 0)
    assert routing.on_leader_hint("t", 0, {"leader": 3, "leader_epoch": 5})
    assert routing.leader("t", 0) == Leader(3, "http://c", 5)


def test_another_cluster_is_refused() -> None:
    routing = Routing(["http://x"])
    routing.on_metadata(reply(10, part(0, 1, 0)), ["t"], 0)
    with pytest.raises(InvalidRequest, match="cluster other"):
        routing.on_metadata(reply(11, part(0, 1, 0), cluster="other"), ["t"], 0)


def test_brokers_that_failed_lately_are_asked_last() -> None:
    routing = Routing(["http://a", "http://b", "http://c"])
    routing.on_failed("http://a", 100)
    routing.on_failed("http://b", 200)
    for _ in range(5):
        assert routing.candidates(300) == ["http://c", "http://a", "http://b"]
    firsts = {routing.candidates(10_000)[0] for _ in range(9)}
    assert firsts == {"http://a", "http://b", "http://c"}
    routing.on_answered("http://a")
    assert routing.candidates(300)[2] == "http://b"


def test_known_brokers_and_bootstrap_are_all_candidates() -> None:
    routing = Routing(["http://x"])
    routing.on_metadata(reply(10), [], 0)
    assert set(routing.candidates(0)) == {"http://x", *URLS.values()}


def test_reading_anywhere_prefers_the_rack_and_spreads_otherwise() -> None:
    routing = Routing(["http://x"])
    routing.on_metadata(reply(10, *(part(p, 1, 0) for p in range(6))), ["t"], 0)
    assert {replica.broker_id for p in range(6) if (replica := routing.replica("t", p, ""))} == {1, 2, 3}
    assert {replica.broker_id for p in range(6) if (replica := routing.replica("t", p, "rack-b"))} == {2}
