"""Group messages on their way to the coordinator: once, with patience, and lists that say what is
missing in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from minilog.broker.http.groups import group_forward
from minilog.broker.http.groups.group_forward import answer_forwarded, group_call
from minilog.config import BrokerSettings, TopicSettings
from minilog.core.image import BrokerState, ClusterImage, TopicImage
from minilog.errors import (
    BrokerUnavailable,
    CoordinatorNotAvailable,
    InvalidRequest,
    MinilogError,
    NotCoordinator,
    Overloaded,
    UnknownMember,
)
from minilog.wire.group_messages import (
    GROUPS_TOPIC,
    DescribeGroup,
    ForwardedGroupRequest,
    GroupInfo,
    LeaveGroup,
    ListGroups,
    ListGroupsReply,
    MissingGroups,
)
from minilog.wire.journal.metadata_records import PartitionChanged
from minilog.wire.messages import Message, Metadata, Ok, Problem, decode, encode

URLS = {1: "http://b1:1", 2: "http://b2:1", 3: "http://b3:1"}
LEAVE = LeaveGroup("g", "m")


async def forwarded(context: Any, message: Any) -> Message:
    return await answer_forwarded(context, message, lambda inner: None)


class FakeRuntime:
    """``here``: what the local core answers, one after the other, the last for ever. ``there``:
    what others do, by URL."""

    def __init__(self, *here: Message | MinilogError) -> None:
        self.settings = BrokerSettings(broker_id=1, data_dir="/")
        self.image = ClusterImage()
        for broker_id, url in URLS.items():
            self.image.brokers[broker_id] = BrokerState(broker_id, 1, "i", url, "", fenced=False)
        self.here = list(here)
        self.there: dict[str, Callable[[Message], Message | MinilogError]] = {}
        self.asked: list[Message] = []
        self.sent: list[tuple[str, Message]] = []

    async def submit(self, request: Message, timeout_ms: int | None = None) -> Message:
        self.asked.append(request)
        return said(self.here.pop(0) if len(self.here) > 1 else self.here[0])

    async def call(self, url: str, request: Message, timeout_ms: int) -> Message:
        assert isinstance(request, ForwardedGroupRequest)
        inner = decode(request.message)
        self.sent.append((url, inner))
        return said(self.there[url](inner))


class FakeFace:
    def __init__(self, runtime: FakeRuntime) -> None:
        self.runtime, self.broker_id, self.image = runtime, 1, runtime.image


def said(answer: Message | MinilogError) -> Message:
    return Problem.of(answer) if isinstance(answer, MinilogError) else answer


def elsewhere(broker_id: int) -> NotCoordinator:
    return NotCoordinator("elsewhere", coordinator=broker_id, coordinator_url=URLS[broker_id])


def call(runtime: FakeRuntime, message: Any, function: Any = group_call) -> Message:
    answer: Message = asyncio.run(function(FakeFace(runtime), message))
    return answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_forward, "PAUSE_MS", 1)
    monkeypatch.setattr(group_forward, "PATIENCE_MS", 40)


def test_what_is_coordinated_here_is_answered_here() -> None:
    runtime = FakeRuntime(Ok())
    assert call(runtime, LEAVE) == Ok()
    assert not runtime.sent


def test_what_is_coordinated_elsewhere_is_sent_on_as_it_came() -> None:
    runtime = FakeRuntime(elsewhere(2))
    runtime.there[URLS[2]] = lambda message: UnknownMember("gone")
    answer = call(runtime, LEAVE)
    assert isinstance(answer, Problem)
    assert answer.code == "UNKNOWN_MEMBER"
    assert runtime.sent == [(URLS[2], LEAVE)]


def test_a_coordinator_that_is_not_there_yet_is_waited_for() -> None:
    runtime = FakeRuntime(CoordinatorNotAvailable("loading"), CoordinatorNotAvailable("loading"), Ok())
    assert call(runtime, LEAVE) == Ok()
    assert len(runtime.asked) == 3


def test_the_wait_has_an_end() -> None:
    answer = call(FakeRuntime(CoordinatorNotAvailable("loading")), LEAVE)
    assert isinstance(answer, Problem)
    assert answer.code == "COORDINATOR_NOT_AVAILABLE"


def test_an_answer_that_got_lost_is_not_asked_for_again() -> None:
    """It may have counted: whether to repeat it is the client's to say."""
    runtime = FakeRuntime(elsewhere(3))
    runtime.there[URLS[3]] = lambda message: BrokerUnavailable("reset")
    answer = call(runtime, LEAVE)
    assert isinstance(answer, Problem)
    assert not answer.definite
    assert len(runtime.sent) == 1


def test_who_is_asked_by_a_broker_asks_nobody_else() -> None:
    runtime = FakeRuntime(elsewhere(2))
    answer = call(runtime, ForwardedGroupRequest(memoryview(encode(DescribeGroup("g")))), forwarded)
    assert isinstance(answer, Problem)
    assert answer.code == "NOT_COORDINATOR"
    assert runtime.asked == [DescribeGroup("g")]
    assert not runtime.sent


@pytest.mark.parametrize("body", [b"\x00", b"", encode(Metadata())])
def test_only_group_messages_are_forwarded(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="forwarded"):
        call(FakeRuntime(Ok()), ForwardedGroupRequest(memoryview(body)), forwarded)


def with_groups_topic(runtime: FakeRuntime, *leaders: int) -> FakeRuntime:
    states = {n: PartitionChanged(GROUPS_TOPIC, "id", n, [1, 2, 3], b, 0, 0, [1, 2, 3]) for n, b in enumerate(leaders)}
    runtime.image.topics[GROUPS_TOPIC] = TopicImage(GROUPS_TOPIC, "id", {}, TopicSettings(), dict(states))
    return runtime


def part(*groups: str, partitions: list[int]) -> ListGroupsReply:
    return ListGroupsReply([GroupInfo(group, "stable", 1, 1) for group in groups], partitions)


def test_a_list_is_everybodys() -> None:
    runtime = with_groups_topic(FakeRuntime(part("c", partitions=[0])), 1, 2, 2)
    runtime.there[URLS[2]] = lambda message: part("a", partitions=[1, 2])
    runtime.there[URLS[3]] = lambda message: part(partitions=[])
    answer = call(runtime, ListGroups())
    assert isinstance(answer, ListGroupsReply)
    assert [info.group for info in answer.groups] == ["a", "c"]
    assert (answer.partitions, answer.missing) == ([0, 1, 2], [])


def test_a_list_with_holes_says_where_they_are() -> None:
    runtime = with_groups_topic(FakeRuntime(part("c", partitions=[0])), 1, 2, 3, -1, 3)
    refused = [MissingGroups(4, "COORDINATOR_NOT_AVAILABLE", "still reading"), MissingGroups(0, "TIMED_OUT", "old")]
    runtime.there[URLS[2]] = lambda message: BrokerUnavailable("no answer")
    runtime.there[URLS[3]] = lambda message: ListGroupsReply([], [], refused)
    answer = call(runtime, ListGroups())
    assert isinstance(answer, ListGroupsReply)
    assert [info.group for info in answer.groups] == ["c"]
    assert [(entry.partition, entry.code) for entry in answer.missing] == [
        (1, "BROKER_UNAVAILABLE"), (2, "COORDINATOR_NOT_AVAILABLE"), (3, "COORDINATOR_NOT_AVAILABLE"),
        (4, "COORDINATOR_NOT_AVAILABLE"),
    ]  # fmt: skip
    assert [entry.detail for entry in answer.missing][3] == "still reading"
    assert "no leader" in answer.missing[2].detail


def test_a_list_that_nobody_answers_is_no_list() -> None:
    runtime = with_groups_topic(FakeRuntime(Overloaded("too much")), 1)
    for url in (URLS[2], URLS[3]):
        runtime.there[url] = lambda message: BrokerUnavailable("no answer")
    answer = call(runtime, ListGroups())
    assert isinstance(answer, Problem)
    assert answer.code == Overloaded.code
