"""Registration: this process's standing with the controller: register, heartbeat, learn metadata,
leave.

    REGISTERING --broker epoch--> ACTIVE --begin_shutdown--> DRAINING --drained--> LEAVING
    --may_exit--> done
         ^                          |                            ^                    |
         +----- STALE_BROKER_EPOCH -+                            +-- there was news --+

While it drains it asks for news again and again, without waiting: it must hear what becomes of its
ISR proposals, and whether it was given another leadership meanwhile. The controller does not let it
go before it has heard (R28).

Owns: the broker epoch, the one request in flight to the controller, when to ask again. Soft state
only.

Invariants: one request in flight. An answer counts only if its sequence is that request's (R5). A
controller epoch below the highest one ever obeyed is ignored (R25); metadata is taken only where it
joins on exactly (R29). Heartbeats are long polls, so the next one goes out as soon as the last is
answered: the controller sees a dropped connection at once, and new metadata needs no extra message.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

from minilog.core.image import ClusterImage
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.messages import (
    Condition,
    FirstWrite,
    Heartbeat,
    HeartbeatReply,
    LoneEnd,
    Message,
    Register,
    RegisterReply,
    ReplicaName,
    SeenEvent,
)

RETRY_MS = 100
REGISTER_RETRY_MS = 200
DRAIN_POLL_MS = 20
DRAIN_PATIENCE_MS = 500
"""So long a broker told to stop takes writes on, while the controller does not answer."""
LEAVE_PATIENCE_MS = 2000
"""A broker told to stop while the controller does not answer leaves after this long without its
consent."""


class Directory(Protocol):
    """What the data directory says of itself (LogStore)."""

    @property
    def cluster_id(self) -> str: ...

    @property
    def directory_id(self) -> str: ...

    @property
    def broker_epoch(self) -> int: ...

    @property
    def lost(self) -> Sequence[ReplicaName]: ...

    @property
    def metadata(self) -> MetadataCopy: ...


class Standing(enum.Enum):
    REGISTERING = "registering"
    ACTIVE = "active"
    DRAINING = "draining"
    LEAVING = "leaving"


class Registration:
    def __init__(
        self,
        broker_id: int,
        incarnation: str,
        url: str,
        rack: str,
        wait_ms: int,
        *,
        clean: bool,
        directory: Directory,
        version: str = "",
    ) -> None:
        """``wait_ms``: how long the controller may hold a heartbeat."""
        self.broker_id, self.incarnation, self.url, self.rack, self.clean = broker_id, incarnation, url, rack, clean
        self._version = version
        self._wait_ms = wait_ms
        self._directory = directory
        self._applied = (directory.metadata.term_id, directory.metadata.metadata_offset)
        """The copy that the last process has left says what was applied until this one is
        registered."""
        self.standing = Standing.REGISTERING
        self.broker_epoch = -1
        self.may_exit = False
        self.wants_shutdown = False
        self.session_timeout_ms: int | None = None
        """The controller's word, with its last answer: another controller may have another one."""
        self.drain_deadline_ms = 0
        self.heard_ms: int | None = None
        """Send time of the last acknowledged registration or heartbeat (R30)."""
        self.ahead_of_controller_ms: int | None = None
        """How far the time of turns is ahead of the controller's wall clock, by its last answer;
        None before that, or where an older controller does not say."""
        self.last_problem = ""
        self._sequence = 0
        self._inflight: Message | None = None
        self._sent_ms = 0
        self._retry_ms = 0
        self._leave_ms = 0
        self._poll_ms = 0
        self._drain_timeout_ms = 0
        self._drain_ms = 0
        self._asked_away_ms: int | None = None
        """When it was first asked, without an answer since, that others may lead instead of this
        broker."""
        self._drained = False

    @property
    def draining(self) -> bool:
        return self.standing in (Standing.DRAINING, Standing.LEAVING)

    def begin_shutdown(self, now_ms: int, drain_timeout_ms: int) -> None:
        """Takes effect when the heartbeat in flight has returned, so that the next one can leave
        without delay; or soon, for draining needs no controller, only handing over does."""
        if self.wants_shutdown:
            return
        self.wants_shutdown = True
        self._drain_timeout_ms = drain_timeout_ms
        self._leave_ms = now_ms + LEAVE_PATIENCE_MS
        self._drain_ms = now_ms + DRAIN_PATIENCE_MS
        if self.standing is Standing.REGISTERING:
            self.may_exit = True

    def next_request(
        self,
        controller_epoch: int,
        image: ClusterImage,
        now_ms: int,
        *,
        drained: bool,
        unfit: Callable[[], list[ReplicaName]],
        lone_ends: Callable[[], list[LoneEnd]],
        ails: bool,
        conditions: list[Condition],
        wall_ms: int,
        events: Callable[[int], list[SeenEvent]],
        first_writes: Callable[[int], list[FirstWrite]],
    ) -> Message | None:
        """The request that should be sent now, if any. It is then in flight."""
        if self.wants_shutdown and now_ms >= self._drain_ms:
            self._drain(now_ms)
        if self._inflight is not None or now_ms < self._retry_ms or self.may_exit:
            return None
        if self.standing is Standing.DRAINING and (drained or now_ms >= self.drain_deadline_ms):
            self.standing = Standing.LEAVING
            self._drained = drained
        if self.standing is Standing.DRAINING and now_ms < self._poll_ms:
            return None
        if self.standing is Standing.REGISTERING:
            self._inflight = self._register(controller_epoch)
        else:
            self._sequence += 1
            leaving = self.standing is Standing.LEAVING
            self._inflight = Heartbeat(
                self.broker_id,
                self.broker_epoch,
                self.incarnation,
                self._sequence,
                image.metadata_offset,
                controller_epoch,
                leaving,
                self._drained if leaving else ails and drained,
                self.standing is not Standing.DRAINING,
                unfit(),
                self._wait_ms,
                image.term_id,
                self._directory.cluster_id,
                lone_ends(),
                self.session_timeout_ms or 0,
                wall_ms,
                conditions,
                ails=ails,
                events=events(wall_ms),
                first_writes=first_writes(now_ms),
            )
            if (leaving or self._inflight.unfit) and self._asked_away_ms is None:
                self._asked_away_ms = now_ms
        self._sent_ms = now_ms
        return self._inflight

    def _register(self, controller_epoch: int) -> Register:
        directory = self._directory
        return Register(
            self.broker_id,
            self.incarnation,
            directory.cluster_id,
            self.url,
            self.rack,
            self.clean,
            controller_epoch,
            directory.directory_id,
            directory.broker_epoch,
            list(directory.lost),
            *self._applied,
            self._version,
        )

    def _drain(self, now_ms: int) -> None:
        if self.standing is Standing.ACTIVE:
            self.standing = Standing.DRAINING
            self.drain_deadline_ms = now_ms + self._drain_timeout_ms

    @property
    def is_first(self) -> bool:
        """This process has never been registered: what refuses it now is for whoever has started
        it."""
        return self.heard_ms is None

    def matches(self, request: Message) -> bool:
        return request == self._inflight

    def is_answer(self, reply: RegisterReply | HeartbeatReply) -> bool:
        """The answer says by itself which process and which request it is for (R5)."""
        match self._inflight, reply:
            case Register(), RegisterReply():
                return reply.incarnation == self.incarnation
            case Heartbeat() as heartbeat, HeartbeatReply():
                return (reply.broker_epoch, reply.sequence) == (heartbeat.broker_epoch, heartbeat.sequence)
        return False

    def on_failed(self, detail: str, now_ms: int, pause_ms: int | None = None) -> None:
        """``pause_ms``: before another controller is asked; None: the same one is asked again."""
        self.last_problem = detail
        self._inflight = None
        usual_ms = REGISTER_RETRY_MS if self.standing is Standing.REGISTERING else RETRY_MS
        self._retry_ms = now_ms + (usual_ms if pause_ms is None else pause_ms)
        if self.wants_shutdown:
            self._drain(now_ms)
        if self.wants_shutdown and now_ms >= self._leave_ms:
            self.may_exit = True

    def on_registered(self, reply: RegisterReply) -> None:
        self._inflight = None
        self.last_problem = ""
        self.broker_epoch = reply.broker_epoch
        self.standing = Standing.ACTIVE
        self.heard_ms = self._sent_ms
        self.session_timeout_ms = reply.session_timeout_ms
        self._asked_away_ms = None

    def on_heartbeat(self, reply: HeartbeatReply, now_ms: int, *, is_shutting_down: bool) -> None:
        """``is_shutting_down``: by the metadata, with what this reply has brought."""
        if isinstance(self._inflight, Heartbeat) and reply.clock_skew_ms is not None:
            self.ahead_of_controller_ms = reply.clock_skew_ms - (self._inflight.wall_ms - self._sent_ms)
        self._inflight = None
        self.last_problem = ""
        self.heard_ms = self._sent_ms
        self.session_timeout_ms = reply.session_timeout_ms or self.session_timeout_ms
        self._asked_away_ms = None
        if reply.may_exit and self.standing is Standing.LEAVING:
            self.may_exit = True
        if self.standing is Standing.LEAVING and not is_shutting_down:
            self.standing = Standing.DRAINING
        if self.standing is Standing.DRAINING:
            self._poll_ms = now_ms + DRAIN_POLL_MS
        if self.wants_shutdown:
            self._drain(now_ms)

    def on_stale(self, image: ClusterImage, now_ms: int) -> None:
        """Another process holds this id, or the controller forgot us: begin again (the caller has
        dropped all roles)."""
        if image.metadata_offset:
            self._applied = (image.term_id, image.metadata_offset)
        self.on_failed("the controller does not know this broker epoch any more", now_ms)
        self.standing = Standing.REGISTERING
        self.broker_epoch = -1
        if self.wants_shutdown:
            self.may_exit = True

    def session_over_ms(self, now_ms: int, session_timeout_ms: int) -> int:
        """R30: for how long the session with the controller may have been over; 0 while it surely
        lasts."""
        if self.heard_ms is None:
            return now_ms
        return max(0, now_ms - self.heard_ms - session_timeout_ms)

    def asked_away_ms(self, now_ms: int) -> int:
        """For how long leaderships may have been moved because this broker itself has asked for
        that."""
        return 0 if self._asked_away_ms is None else now_ms - self._asked_away_ms
