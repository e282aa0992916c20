"""The member's state machine: tables for single steps, and members against a naive coordinator over
a bad network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import (
    BrokerUnavailable,
    CoordinatorNotAvailable,
    InconsistentGroup,
    InstanceInUse,
    InternalError,
    InvalidRequest,
    MinilogError,
    NotAssigned,
    StaleMemberEpoch,
    TimedOut,
    UnknownMember,
)
from minilog.wire.group_messages import GroupHeartbeat, GroupHeartbeatReply, LeaveGroup, TopicPartitions
from minilog.wire.message_base import Ok
from minilog_client.group.membership import Membership, Phase, Sent, Subscription, by_topic

SESSION_MS = 10_000
Key = tuple[str, int]


def keys(*partitions: int) -> list[Key]:
    return [("t", partition) for partition in partitions]


def reply(member: Membership, epoch: int, *partitions: int, pending: int = 0) -> GroupHeartbeatReply:
    return GroupHeartbeatReply(member.member_id, epoch, 1000, [TopicPartitions("t", list(partitions))], pending)


def new_member(**options: Any) -> Membership:
    return Membership(Subscription(group="g", topics=("t",), session_timeout_ms=SESSION_MS, **options), "m", Random(1))


def ask(member: Membership, now_ms: int) -> Sent:
    sent = member.next_request(now_ms)
    assert sent is not None, f"nothing to say at {now_ms}, due at {member.due_ms}"
    return sent


def stable(*partitions: int, epoch: int = 3, **options: Any) -> Membership:
    """Joined at 0 with these partitions."""
    member = new_member(**options)
    member.on_reply(ask(member, 0).token, reply(member, epoch, *partitions), 5)
    return member


# --- single steps ---------------------------------------------------------------------------------


def test_joining_says_what_the_member_wants_and_owns_nothing() -> None:
    member = new_member(assignor="range", instance_id="i", max_poll_interval_ms=7)
    sent = ask(member, 0)
    assert sent.message == GroupHeartbeat(
        "g", "m-1", 0, topics=["t"], assignor="range", instance_id="i", session_timeout_ms=SESSION_MS, poll_timeout_ms=7
    )
    assert member.next_request(10_000) is None, "one request at a time"
    member.on_reply(sent.token, reply(member, 3, 0, 2), 5)
    view = member.view()
    assert (view.phase, view.member_epoch, view.granted) == (Phase.STABLE, 3, {("t", 0): 1, ("t", 2): 2})
    assert view.hold_until_ms == SESSION_MS, "counted from the sending"
    assert member.next_request(999) is None
    again = ask(member, 1000).message
    assert isinstance(again, GroupHeartbeat)
    assert (again.member_epoch, again.owned) == (3, [TopicPartitions("t", [0, 2])])


def test_what_is_taken_away_is_held_until_it_is_given_back() -> None:
    member = stable(0, 1)
    member.on_reply(ask(member, 1000).token, reply(member, 4, 1), 1005)
    assert member.view().phase is Phase.GIVING_BACK
    assert member.view().revoking == {("t", 0)}
    sent = ask(member, 2000)
    assert isinstance(sent.message, GroupHeartbeat)
    assert sent.message.owned == by_topic(keys(0, 1)), "the application still works on it"
    member.give_back({("t", 0): 1}, 2003)
    assert member.next_request(2004) is None, "one is under way"
    member.on_reply(sent.token, reply(member, 4, 1), 2005)
    told = ask(member, 2005).message
    assert isinstance(told, GroupHeartbeat)
    assert told.owned == by_topic(keys(1)), "said at once, and not with the next turn"
    assert member.view().phase is Phase.STABLE


def test_giving_back_is_said_at_once() -> None:
    member = stable(0, 1)
    member.on_reply(ask(member, 1000).token, reply(member, 4, 1), 1005)
    member.give_back({("t", 0): 1}, 1010)
    assert isinstance(ask(member, 1010).message, GroupHeartbeat)


def test_a_grant_that_is_over_cannot_be_given_back() -> None:
    member = stable(0)
    member.on_error(ask(member, 1000).token, UnknownMember("gone"), 1005)
    member.on_reply(ask(member, 1005).token, reply(member, 5, 0), 1010)
    member.give_back({("t", 0): 1}, 1020)
    assert member.view().granted == {("t", 0): 2}


def test_a_partition_given_back_and_assigned_again_is_a_new_grant() -> None:
    member = stable(0, 1)
    member.on_reply(ask(member, 1000).token, reply(member, 4, 1), 1005)
    member.give_back({("t", 0): 1}, 1010)
    member.on_reply(ask(member, 1010).token, reply(member, 5, 0, 1), 1015)
    assert member.view().granted == {("t", 1): 2, ("t", 0): 3}


def test_a_partition_of_a_topic_made_anew_is_another_one_and_the_old_one_is_given_back_first() -> None:
    def assigned(topic_id: str) -> GroupHeartbeatReply:
        return GroupHeartbeatReply("m-1", 3, 1000, [TopicPartitions("t", [0, 1], topic_id)])

    member = new_member()
    member.on_reply(ask(member, 0).token, assigned("old"), 5)
    sent = ask(member, 1000)
    assert isinstance(sent.message, GroupHeartbeat)
    assert sent.message.owned == [TopicPartitions("t", [0, 1], "old")]
    member.on_reply(sent.token, assigned("new"), 1005)
    view = member.view()
    assert view.phase is Phase.GIVING_BACK
    assert view.revoking == {("t", 0), ("t", 1)}
    assert (view.granted, set(view.topic_ids.values())) == ({("t", 0): 1, ("t", 1): 2}, {"old"})
    member.give_back({("t", 0): 1, ("t", 1): 2}, 1010)
    view = member.view()
    assert (view.granted, set(view.topic_ids.values())) == ({("t", 0): 3, ("t", 1): 4}, {"new"})
    member.on_reply(ask(member, 1010).token, reply(member, 3, 0, 1), 1015)
    assert member.view().granted == view.granted, "a coordinator that does not say takes nothing away"


@pytest.mark.parametrize("error", [UnknownMember, StaleMemberEpoch, NotAssigned])
def test_fenced_loses_all_and_joins_under_a_new_id(error: type[MinilogError]) -> None:
    member = stable(0, 1)
    member.on_error(ask(member, 1000).token, error("you are out"), 1005)
    view = member.view()
    assert (view.phase, view.granted, view.hold_until_ms, view.member_epoch) == (Phase.FENCED, {}, 0, 0)
    assert isinstance(view.loss, error)
    message = ask(member, 1005).message
    assert isinstance(message, GroupHeartbeat)
    assert (message.member_id, message.member_epoch, message.owned) == ("m-2", 0, [])


@pytest.mark.parametrize("error", [BrokerUnavailable, TimedOut, CoordinatorNotAvailable, InternalError])
def test_an_unreachable_coordinator_takes_nothing_away_by_itself(error: type[MinilogError]) -> None:
    member = stable(0)
    now_ms = 1000
    for _ in range(30):
        member.on_error(ask(member, now_ms).token, error("no answer"), now_ms + 100)
        assert member.due_ms is not None
        assert now_ms < member.due_ms <= now_ms + 1200, "it keeps asking"
        now_ms = member.due_ms
    view = member.view()
    assert (view.phase, view.granted) == (Phase.STABLE, {("t", 0): 1})
    assert view.hold_until_ms == SESSION_MS < now_ms, "but nothing is handed out after the session"
    member.on_reply(ask(member, now_ms).token, reply(member, 3, 0), now_ms + 5)
    assert member.view().hold_until_ms == now_ms + SESSION_MS
    assert member.view().granted == {("t", 0): 1}


@pytest.mark.parametrize("error", [InconsistentGroup("sticky"), InvalidRequest("no such assignor")])
def test_refused_waits_for_the_application_and_tries_again(error: MinilogError) -> None:
    member = new_member()
    member.on_error(ask(member, 0).token, error, 5)
    assert (member.phase, member.due_ms) == (Phase.REFUSED, None)
    member.on_polled(1000)
    assert isinstance(ask(member, 1100).message, GroupHeartbeat)


def test_an_instance_in_use_is_asked_for_again_and_again() -> None:
    member = new_member(instance_id="i")
    now_ms = 0
    for _ in range(20):
        member.on_error(ask(member, now_ms).token, InstanceInUse("in session"), now_ms)
        assert member.due_ms is not None
        now_ms = member.due_ms
    assert now_ms < 20_000


def test_an_idle_application_leaves_and_comes_back() -> None:
    member = stable(0)
    member.on_idle(UnknownMember("idle"), 500)
    assert (member.phase, member.view().granted) == (Phase.AWAY, {})
    sent = ask(member, 500)
    assert sent.message == LeaveGroup("g", "m-1")
    member.on_reply(sent.token, Ok(), 505)
    assert member.due_ms is None
    member.on_polled(9000)
    message = ask(member, 9000).message
    assert isinstance(message, GroupHeartbeat)
    assert message.member_id == "m-2"


def test_leaving_is_for_good_and_ends() -> None:
    member = stable(0)
    under_way = ask(member, 1000)
    member.leave(1001)
    member.on_reply(under_way.token, reply(member, 3, 0), 1002)
    assert member.view().granted == {}, "the answer to what was said before is late"
    now_ms = 1002
    while member.phase is not Phase.LEFT:
        member.on_error(ask(member, now_ms).token, TimedOut("no answer"), now_ms + 10)
        now_ms = now_ms + 10 if member.due_ms is None else member.due_ms
    assert now_ms <= 1001 + SESSION_MS + 2000
    member.on_polled(99_999)
    assert member.next_request(99_999) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: GroupHeartbeatReply("somebody", 4, 1000, []),
        lambda m: reply(m, 2, 0, 1, 2),
        lambda m: GroupHeartbeatReply(m.member_id, 0, 1000, []),
        lambda m: Ok(),
    ],
)
def test_senseless_answers_change_nothing(spoil: Callable[[Membership], Any]) -> None:
    member = stable(0)
    sent = ask(member, 1000)
    member.on_reply(sent.token, spoil(member), 1005)
    assert (member.phase, member.member_epoch, member.view().granted) == (Phase.STABLE, 3, {("t", 0): 1})
    assert isinstance(member.trouble, InternalError)


def test_only_the_answer_to_the_last_request_counts() -> None:
    member = stable(0)
    first = ask(member, 1000)
    member.on_error(first.token, TimedOut("no answer"), 3000)
    assert member.due_ms is not None
    second = ask(member, member.due_ms)
    member.on_reply(first.token, reply(member, 9, 1, 2), 3500)
    member.on_error(first.token, UnknownMember("late"), 3501)
    assert (member.member_epoch, member.view().granted) == (3, {("t", 0): 1})
    member.on_reply(second.token, reply(member, 4, 0), 3502)
    member.on_reply(second.token, reply(member, 9, 1, 2), 3503)
    assert member.member_epoch == 4


# --- many members, a naive coordinator, a bad network ---------------------------------------------


@dataclass
class Known:
    epoch: int
    told: set[Key]
    deadline_ms: int


@dataclass
class Coordinator:
    """Every answer that tells a member something new has an epoch of its own, so that nothing late
    is believed."""

    partitions: list[Key]
    epoch: int = 0
    members: dict[str, Known] = field(default_factory=dict)
    owners: dict[Key, str] = field(default_factory=dict)

    def handle(self, message: GroupHeartbeat | LeaveGroup, now_ms: int) -> GroupHeartbeatReply | Ok:
        for name in [name for name, known in self.members.items() if now_ms > known.deadline_ms]:
            self.remove(name)
        if isinstance(message, LeaveGroup):
            self.remove(message.member_id)
            return Ok()
        name = message.member_id
        if message.member_epoch == 0 and name not in self.members:
            self.members[name] = Known(0, set(), 0)
        known = self.members.get(name)
        if known is None:
            raise UnknownMember("who?")
        if message.member_epoch not in (0, known.epoch):
            raise StaleMemberEpoch(f"{message.member_epoch} is not {known.epoch}")
        if message.member_epoch == known.epoch:
            owned = {(entry.topic, partition) for entry in message.owned for partition in entry.partitions}
            for key in [key for key, owner in self.owners.items() if owner == name]:
                if key not in owned and key not in known.told:
                    del self.owners[key]
        known.deadline_ms = now_ms + message.session_timeout_ms
        return self.tell(name, known)

    def tell(self, name: str, known: Known) -> GroupHeartbeatReply:
        names = sorted(self.members)
        share = {key: names[number % len(names)] for number, key in enumerate(self.partitions)}
        wanted = {key for key in self.partitions if share[key] == name}
        free = {key for key in wanted if self.owners.get(key, name) == name}
        self.owners.update(dict.fromkeys(free, name))
        if free != known.told or known.epoch == 0:
            self.epoch += 1
            known.epoch, known.told = self.epoch, free
        return GroupHeartbeatReply(name, known.epoch, 1000, by_topic(free), len(wanted) - len(free))

    def remove(self, name: str) -> None:
        self.members.pop(name, None)
        self.owners = {key: owner for key, owner in self.owners.items() if owner != name}


@dataclass
class Application:
    """Does what a view says, when it gets to it. ``working`` is what it processes right now."""

    member: Membership
    working: dict[Key, int] = field(default_factory=dict)

    def poll(self, now_ms: int) -> None:
        view = self.member.view()
        self.member.on_polled(now_ms)
        self.working = {key: grant for key, grant in self.working.items() if view.holds(key, grant)}
        back = {key: view.granted[key] for key in view.revoking}
        for key in back:
            self.working.pop(key, None)
        self.working.update({key: grant for key, grant in view.granted.items() if key not in back})
        if back:
            self.member.give_back(back, now_ms)

    def processes(self, now_ms: int) -> set[Key]:
        """What it may hand out now."""
        view = self.member.view()
        if now_ms >= view.hold_until_ms:
            return set()
        return {key for key, grant in self.working.items() if view.holds(key, grant)}


class World:
    def __init__(self, members: int) -> None:
        self.now_ms = 0
        self.coordinator = Coordinator(keys(0, 1, 2, 3))
        self.applications = [
            Application(Membership(Subscription(group="g", topics=("t",)), f"m{number}", Random(number)))
            for number in range(members)
        ]
        self.requests: list[tuple[Membership, Sent]] = []
        """Sent, and perhaps on their way. Some twice."""
        self.answers: list[tuple[Membership, int, Any]] = []

    def step(self, number: int, action: str, amount: int) -> None:
        application = self.applications[number % len(self.applications)]
        member = application.member
        self.now_ms += 1
        if action == "pass":
            self.now_ms += amount // 4
        elif action == "pass long":
            self.now_ms += 2 * amount
        elif action == "beat":
            self.beat(member)
        elif action == "poll":
            application.poll(self.now_ms)
        elif action == "idle":
            member.on_idle(UnknownMember("idle"), self.now_ms)
        elif action == "send":
            sent = member.next_request(self.now_ms)
            if sent is not None:
                self.requests.append((member, sent))
        elif action in ("deliver", "deliver and keep") and self.requests:
            at = amount % len(self.requests)
            self.deliver(*(self.requests[at] if action == "deliver and keep" else self.requests.pop(at)))
        elif action in ("answer", "answer and keep") and self.answers:
            at = amount % len(self.answers)
            self.hear(*(self.answers[at] if action == "answer and keep" else self.answers.pop(at)))
        elif action == "fail" and self.requests:
            asker, sent = self.requests[amount % len(self.requests)]
            asker.on_error(sent.token, TimedOut("no answer"), self.now_ms)
        elif action == "lose" and self.answers:
            asker, token, _ = self.answers.pop(amount % len(self.answers))
            asker.on_error(token, BrokerUnavailable("broken off"), self.now_ms)
        self.check()

    def beat(self, member: Membership) -> None:
        """One heartbeat that goes well, as most do."""
        sent = member.next_request(self.now_ms)
        if sent is not None:
            self.deliver(member, sent)
            self.hear(*self.answers.pop())

    def deliver(self, member: Membership, sent: Sent) -> None:
        try:
            answer: Any = self.coordinator.handle(sent.message, self.now_ms)
        except MinilogError as error:
            answer = error
        self.answers.append((member, sent.token, answer))

    def hear(self, member: Membership, token: int, answer: Any) -> None:
        if isinstance(answer, MinilogError):
            member.on_error(token, answer, self.now_ms)
        else:
            member.on_reply(token, answer, self.now_ms)

    def check(self) -> None:
        processed = [key for application in self.applications for key in application.processes(self.now_ms)]
        assert len(processed) == len(set(processed)), f"two work on one partition: {sorted(processed)}"
        for application in self.applications:
            for key in application.processes(self.now_ms):
                assert self.coordinator.owners.get(key) == application.member.member_id, (
                    f"{key} belongs to somebody else"
                )

    def calm_down(self) -> None:
        """A network that works, and applications that poll."""
        for member, sent in self.requests:
            member.on_error(sent.token, TimedOut("no answer"), self.now_ms)
        for member, token, _ in self.answers:
            member.on_error(token, TimedOut("no answer"), self.now_ms)
        self.requests, self.answers = [], []
        for _ in range(200):
            if self.is_settled():
                return
            self.now_ms += 100
            for number, _ in enumerate(self.applications):
                for action in ("poll", "beat", "poll"):
                    self.step(number, action, 0)

    def is_settled(self) -> bool:
        views = [application.member.view() for application in self.applications]
        held = sorted(key for application in self.applications for key in application.processes(self.now_ms))
        return all(view.phase is Phase.STABLE for view in views) and held == self.coordinator.partitions


_ACTIONS = [
    "pass", "pass", "pass long", "poll", "poll", "poll", "beat", "beat", "beat", "send", "send", "deliver", "deliver",
    "deliver and keep", "answer", "answer", "answer and keep", "fail", "fail", "lose", "idle",
]  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 3),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(_ACTIONS), st.integers(0, 6000)), min_size=30, max_size=150),
)
def test_nobody_works_on_what_is_somebody_elses_and_all_end_up_joined(
    members: int, steps: list[tuple[int, str, int]]
) -> None:
    world = World(members)
    for step in steps:
        world.step(*step)
    world.calm_down()
    assert world.is_settled(), [application.member.view() for application in world.applications]
