"""A group member's standing with its coordinator: what it may hold, must give back, and says next.
Pure.

    JOINING ──joined──> STABLE <──> GIVING_BACK   the coordinator wants partitions back
       ^                  │
       │                  ├─ UnknownMember, StaleMemberEpoch ──> FENCED ──joined──> STABLE
       └── polled ── AWAY <─ the application asked for nothing for too long
    REFUSED   joining cannot help as things are
    LEAVING ──> LEFT      from anywhere, for good

Invariants:
* A partition is held from the answer that grants it until the application has given it back or it
  is lost. Each grant has a number of its own: a partition that was lost and came back is not the
  one it was before. A grant is of one topic id, and one of a topic made anew is another grant.
* What is held is said in every heartbeat, also what is about to be given back. A partition is left
  out only after the application has let go of it, so nobody else can be given it before.
* When no heartbeat *sent* within the last ``session_timeout_ms`` was answered, somebody else may
  own what is held here: ``hold_until_ms`` has passed and nothing may be handed out. The partitions
  are lost only when the coordinator says so: if it was down itself, everything goes on where it
  stood.
* An answer counts for the request it answers, and only for the last one (R5): late and repeated
  ones change nothing.
* After everything but ``leave`` a member ends up joined again, as long as the application polls.

Source: KIP-848 (assignment by the coordinator, epochs), KIP-62 (heartbeats beside the poll loop).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final, NamedTuple

from minilog.errors import (
    FatalError,
    InstanceInUse,
    InternalError,
    MinilogError,
    NotAssigned,
    StaleMemberEpoch,
    UnknownMember,
)
from minilog.wire.group_messages import JOIN, GroupHeartbeat, GroupHeartbeatReply, LeaveGroup, TopicPartitions
from minilog.wire.message_base import Ok
from minilog_client.connection.backoff import retry_delay_ms
from minilog_client.values import PartitionKey

REFUSED_PAUSE_MS: Final = 100
_FENCED: Final = (UnknownMember, StaleMemberEpoch, NotAssigned)
_PATIENT: Final = (InternalError, InstanceInUse)
"""Not retriable by themselves, but asking again is right: a bug may pass, and whoever has the
instance's place may go."""
_BEATS_PER_SESSION: Final = 3


class Phase(Enum):
    JOINING = "joining"
    STABLE = "stable"
    GIVING_BACK = "giving back"
    FENCED = "fenced"
    AWAY = "away"
    REFUSED = "refused"
    LEAVING = "leaving"
    LEFT = "left"


_MEMBER: Final = (Phase.STABLE, Phase.GIVING_BACK)
_BEATING: Final = (*_MEMBER, Phase.JOINING, Phase.FENCED)
_OVER: Final = (Phase.LEAVING, Phase.LEFT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """What a member tells of itself; see GroupHeartbeat."""

    group: str
    topics: tuple[str, ...] = ()
    pattern: str = ""
    assignor: str = "sticky"
    instance_id: str = ""
    client_id: str = ""
    session_timeout_ms: int = 10_000
    max_poll_interval_ms: int = 300_000


class MemberView(NamedTuple):
    """A member as its application sees it. Never changed, so it may be read from any thread.

    ``granted``: grant number by partition, of all that may be held. ``topic_ids``: of which very
    topics these are. ``revoking``: those of them to be given back. ``hold_until_ms``: from then on
    nothing may be handed out, until a newer view says otherwise. ``error``: why the member was
    fenced, refused, or is away. ``loss``: why it last lost partitions. ``trouble``: what the last
    heartbeat failed with. ``answers`` counts the heartbeats that went well."""

    phase: Phase
    member_id: str = ""
    member_epoch: int = JOIN
    granted: Mapping[PartitionKey, int] = {}
    revoking: frozenset[PartitionKey] = frozenset()
    pending: int = 0
    hold_until_ms: int = 0
    error: MinilogError | None = None
    loss: MinilogError | None = None
    trouble: MinilogError | None = None
    answers: int = 0
    topic_ids: Mapping[PartitionKey, str] = {}

    @property
    def is_member(self) -> bool:
        return self.phase in _MEMBER

    def holds(self, key: PartitionKey, grant: int) -> bool:
        return self.granted.get(key) == grant

    def is_news_after(self, before: MemberView) -> bool:
        """It says something for the application to follow, and not only that a heartbeat went
        well."""
        return (
            (self.phase, self.granted, self.revoking) != (before.phase, before.granted, before.revoking)
            or self.error is not before.error
            or self.loss is not before.loss
        )


class Sent(NamedTuple):
    """A request to be made. ``token`` goes back in with its outcome."""

    token: int
    message: GroupHeartbeat | LeaveGroup


class Membership:
    """``name`` is unique in the world. Each time it joins the member takes a new id, ``name`` and a
    number, so that nothing still on its way from before can hurt who it is now."""

    def __init__(self, subscription: Subscription, name: str, random: Random) -> None:
        self.subscription = subscription
        self.name = name
        self.joins = 1
        self.phase = Phase.JOINING
        self.member_epoch = JOIN
        self.error: MinilogError | None = None
        self.loss: MinilogError | None = None
        self.trouble: MinilogError | None = None
        self.pending = 0
        self.answers = 0
        self.hold_until_ms = 0
        self.due_ms: int | None = 0
        """When the next request is to be made; None: when something happens."""
        self._random = random
        self._granted: dict[PartitionKey, int] = {}
        self._topic_ids: dict[PartitionKey, str] = {}
        self._assigned: Mapping[PartitionKey, str] = {}
        """Topic ids, by partition, "" from a coordinator that does not say."""
        self._grants = 0
        self._tokens = 0
        self._has_news = False
        """Something was given back since the last heartbeat was sent."""
        self._leaving_until_ms = 0
        self._in_flight: Sent | None = None
        self._sent_ms = 0
        self._failures = 0
        self._failing_since_ms = 0
        self._fences = 0

    @property
    def member_id(self) -> str:
        return f"{self.name}-{self.joins}"

    def view(self) -> MemberView:
        return MemberView(
            self.phase,
            self.member_id,
            self.member_epoch,
            dict(self._granted),
            self._revoking(),
            self.pending,
            self.hold_until_ms,
            self.error,
            self.loss,
            self.trouble,
            self.answers,
            dict(self._topic_ids),
        )

    # --- what to say ------------------------------------------------------------------------------

    def next_request(self, now_ms: int) -> Sent | None:
        """The request to make now, if one is due. There is one under way at most."""
        if self._in_flight is not None or self.due_ms is None or now_ms < self.due_ms:
            return None
        message = self._leave_group() if self.phase in (Phase.AWAY, Phase.LEAVING) else self._heartbeat()
        self._tokens += 1
        self._in_flight = Sent(self._tokens, message)
        self._sent_ms = now_ms
        self.due_ms = None
        self._has_news = False
        return self._in_flight

    def _heartbeat(self) -> GroupHeartbeat:
        assert self.phase in _BEATING, f"a member that is {self.phase.value} sends no heartbeats"
        wants = self.subscription
        return GroupHeartbeat(
            wants.group,
            self.member_id,
            self.member_epoch,
            topics=list(wants.topics),
            pattern=wants.pattern,
            owned=by_topic(self._granted, self._topic_ids),
            assignor=wants.assignor,
            instance_id=wants.instance_id,
            client_id=wants.client_id,
            session_timeout_ms=wants.session_timeout_ms,
            poll_timeout_ms=wants.max_poll_interval_ms,
        )

    def _leave_group(self) -> LeaveGroup:
        assert not self._granted, "whoever leaves holds nothing any more"
        return LeaveGroup(self.subscription.group, self.member_id)

    # --- what comes back --------------------------------------------------------------------------

    def on_reply(self, token: int, reply: GroupHeartbeatReply | Ok, now_ms: int) -> None:
        sent = self._answered(token)
        if sent is None:
            return
        if isinstance(sent.message, LeaveGroup):
            self.due_ms = None
            if self.phase is Phase.LEAVING:
                self.phase = Phase.LEFT
        elif (
            isinstance(reply, Ok) or reply.member_id != self.member_id or reply.member_epoch < max(1, self.member_epoch)
        ):
            self._on_failed(InternalError(f"the coordinator gave a senseless answer to a heartbeat: {reply}"), now_ms)
        else:
            self._on_assignment(reply, now_ms)

    def _on_assignment(self, reply: GroupHeartbeatReply, now_ms: int) -> None:
        if self.member_epoch != JOIN:
            self._fences = 0
        self._failures = 0
        self.error = self.trouble = None
        self.answers += 1
        self.member_epoch, self.pending = reply.member_epoch, reply.pending
        self.hold_until_ms = self._sent_ms + self.subscription.session_timeout_ms
        self._assigned = {(e.topic, partition): e.topic_id for e in reply.assignment for partition in e.partitions}
        self._grant()
        interval_ms = min(
            max(1, reply.heartbeat_interval_ms), self.subscription.session_timeout_ms // _BEATS_PER_SESSION
        )
        self.due_ms = now_ms if self._has_news else self._sent_ms + max(1, interval_ms)

    def _grant(self) -> None:
        """Take over what is assigned. What is held beyond it is to be given back."""
        for key in sorted(self._assigned.keys() - self._granted.keys()):
            self._grants += 1
            self._granted[key] = self._grants
            self._topic_ids[key] = self._assigned[key]
        self.phase = Phase.GIVING_BACK if self._revoking() else Phase.STABLE

    def _revoking(self) -> frozenset[PartitionKey]:
        """What is held and not assigned (any more), or was of another topic when it was."""
        return frozenset(key for key in self._granted if not self._is_assigned(key))

    def _is_assigned(self, key: PartitionKey) -> bool:
        return key in self._assigned and (self._assigned[key] == self._topic_ids[key] or not self._assigned[key])

    def on_error(self, token: int, error: MinilogError, now_ms: int) -> None:
        """The request failed or was refused."""
        sent = self._answered(token)
        if sent is None:
            return
        if isinstance(sent.message, LeaveGroup):
            self._on_leaving_failed(error, now_ms)
        elif isinstance(error, _FENCED):
            self._on_fenced(error, now_ms)
        elif isinstance(error, FatalError) and not isinstance(error, _PATIENT):
            self._lose(Phase.REFUSED, error)
            self.due_ms = None
        else:
            self._on_failed(error, now_ms)

    def _answered(self, token: int) -> Sent | None:
        """The request under way, if ``token`` is its. Answers to others are late and count for
        nothing."""
        sent = self._in_flight
        if sent is None or sent.token != token:
            return None
        self._in_flight = None
        return sent

    def _on_fenced(self, error: MinilogError, now_ms: int) -> None:
        self._lose(Phase.FENCED, error)
        self.joins += 1
        self._fences += 1
        self.due_ms = now_ms + (0 if self._fences == 1 else retry_delay_ms(error, self._fences, 0, self._random))

    def _on_failed(self, error: MinilogError, now_ms: int) -> None:
        """Nothing is known of what the coordinator thinks: ask again, and hold what is held while
        that is safe."""
        if self._failures == 0:
            self._failing_since_ms = now_ms
        self._failures += 1
        self.trouble = error
        self.due_ms = now_ms + retry_delay_ms(error, self._failures, now_ms - self._failing_since_ms, self._random)

    def _on_leaving_failed(self, error: MinilogError, now_ms: int) -> None:
        """A refusal means that the member is not known any more. Anything else is tried again for a
        session."""
        if not error.retriable or now_ms >= self._leaving_until_ms:
            self.due_ms = None
            if self.phase is Phase.LEAVING:
                self.phase = Phase.LEFT
            return
        self._on_failed(error, now_ms)

    def _lose(self, phase: Phase, error: MinilogError | None) -> None:
        self.phase, self.error = phase, error
        self.loss = error or self.loss
        self.member_epoch, self.pending, self.hold_until_ms = JOIN, 0, 0
        self._granted, self._topic_ids, self._assigned = {}, {}, {}
        self._failures = 0

    # --- what the application does ----------------------------------------------------------------

    def give_back(self, grants: Mapping[PartitionKey, int], now_ms: int) -> None:
        """The application has let go of these, by grant number, and processes nothing of them any
        more."""
        given = [key for key, grant in grants.items() if self._granted.get(key) == grant]
        for key in given:
            del self._granted[key], self._topic_ids[key]
        if given and self.phase in _MEMBER:
            self._grant()
            self._has_news = True
            if self._in_flight is None:
                self.due_ms = now_ms

    def on_idle(self, error: MinilogError, now_ms: int) -> None:
        """The application has asked for nothing for longer than it may: others shall have the
        partitions."""
        if self.phase in _BEATING:
            self._lose(Phase.AWAY, error)
            self._begin_leaving(now_ms)

    def on_polled(self, now_ms: int) -> None:
        """The application asks for records: a member that is away, or was refused, joins again."""
        if self.phase in (Phase.AWAY, Phase.REFUSED):
            self.due_ms = now_ms + (REFUSED_PAUSE_MS if self.phase is Phase.REFUSED else 0)
            self.phase, self.error = Phase.JOINING, None
            self.joins += 1
            self._in_flight = None

    def hurry(self, now_ms: int) -> None:
        """Somebody wants to know where the member stands: say the next heartbeat now."""
        if self.phase in _MEMBER and self._in_flight is None:
            self.due_ms = now_ms
        self._has_news = True

    def leave(self, now_ms: int) -> None:
        """For good. The coordinator keeps the place of a static member until its session would have
        ended."""
        if self.phase in _OVER:
            return
        was_known = self.phase is not Phase.REFUSED
        self._lose(Phase.LEAVING, None)
        self._begin_leaving(now_ms)
        if not was_known:
            self.phase, self.due_ms = Phase.LEFT, None

    def _begin_leaving(self, now_ms: int) -> None:
        self._leaving_until_ms = now_ms + self.subscription.session_timeout_ms
        self._in_flight = None
        self.due_ms = now_ms


def by_topic(
    keys: Iterable[PartitionKey], topic_ids: Mapping[PartitionKey, str] | None = None
) -> list[TopicPartitions]:
    """Partitions as messages name them: topics and numbers ascending, of the very topics that
    ``topic_ids`` says."""
    topics: dict[tuple[str, str], list[int]] = {}
    for key in sorted(keys):
        topic, partition = key
        topics.setdefault((topic, (topic_ids or {}).get(key, "")), []).append(partition)
    return [TopicPartitions(topic, partitions, topic_id) for (topic, topic_id), partitions in topics.items()]
