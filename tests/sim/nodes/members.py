"""Members of a simulated consumer group: as small as a client of the protocol can be, and as
careful as it must be.

A member drops everything when its session may be over by its own clock, gives back before it goes
on, starts where the group has committed, and commits what it has done. It may crash, freeze, leave,
and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minilog.errors import MinilogError
from minilog.wire.group_messages import (
    JOIN,
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffsets,
    CommittedOffsetsReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.messages import Message
from tests.sim.checks.group_watch import Commit, GroupWatch, Part
from tests.sim.nodes.clients import Client
from tests.sim.nodes.network import Network, Response
from tests.sim.nodes.world import World

ASK_MS = 600
LOST_CODES = ("UNKNOWN_MEMBER", "STALE_MEMBER_EPOCH", "NOT_ASSIGNED")


@dataclass
class Habits:
    """How a member behaves. ``session_share``: the part of its session a member trusts, so that
    clocks may differ. ``work_ms``: how long it may take to give a partition back. ``keeps_id``: it
    comes back under the id it left with."""

    topics: tuple[str, ...] = ("t",)
    pattern: str = ""
    assignor: str = "sticky"
    is_static: bool = False
    session_timeout_ms: int = 3000
    poll_timeout_ms: int = 300_000
    session_share: float = 0.9
    work_ms: int = 50
    commit_ms: int = 60
    keeps_id: bool = False


class GroupClient(Client):
    """Knows which broker coordinates its group, as well as it was told."""

    def __init__(
        self, world: World, network: Network, node_id: int, name: str, brokers: Sequence[int], group: str
    ) -> None:
        super().__init__(world, network, node_id, name, brokers)
        self.group = group
        self._coordinator: int | None = None

    def _ask(self, request: Message, on_answer: Callable[[Response], None]) -> None:
        target = self._coordinator if self._coordinator is not None else self.rng.choice(self.brokers)
        self.ask(target, request, on_answer, ASK_MS)

    def _seek(self, answer: Response) -> None:
        if isinstance(answer, MinilogError):
            coordinator = answer.info.get("coordinator")
            self._coordinator = coordinator if isinstance(coordinator, int) else None


class Reader(GroupClient):
    """Asks for everything that the group has committed until it is told."""

    offsets: dict[Part, int | None] | None = None

    def begin(self) -> None:
        self._ask(CommittedOffsets(self.group), self._on_answer)

    def _on_answer(self, answer: Response) -> None:
        if isinstance(answer, CommittedOffsetsReply):
            self.offsets = {(o.topic, o.partition): o.offset for o in answer.offsets}
        else:
            self._seek(answer)
            self.later(50, "asks again", self.begin)


class Member(GroupClient):
    def __init__(
        self,
        world: World,
        network: Network,
        node_id: int,
        name: str,
        brokers: Sequence[int],
        group: str,
        habits: Habits,
        watch: GroupWatch,
    ) -> None:
        super().__init__(world, network, node_id, name, brokers, group)
        self.habits, self.watch = habits, watch
        self.member_id = ""
        self.epoch = JOIN
        self.held: dict[Part, int | None] = {}
        """By partition, what it has done last; None: where to begin is not known yet."""
        self.giving_back: dict[Part, None] = {}
        self.pending = 0
        self.session_end_ms = 0
        self.is_in = False
        self.gives_back = True
        """False: an application that never returns, for stories."""
        self._is_asking = False
        self._is_committing = False
        watch.members.append(self)

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process, or one that has left, joins."""
        if not self.running:
            self.begin_life()
            self.member_id = ""
        if self.member_id == "":
            self.member_id = f"{self.name}-{self.rng.getrandbits(32):08x}"
        self._is_asking = self._is_committing = False
        self._forget()
        self.is_in = True
        life = self.life
        self._beat(life)
        self._work(life)

    def kill(self) -> None:
        if self.running:
            self.network.on_process_end(self, host_up=True)
            self._forget()
            self.is_in = False
            self.end_life()

    def start_again(self) -> None:
        if not self.running or not self.is_in:
            self.start()

    def go_on(self) -> None:
        if self.paused:
            self.resume()

    def leave(self) -> None:
        if not self.running or not self.is_in or self.paused:
            return
        self.is_in = False
        epoch = self.epoch
        self._forget()
        self._ask(LeaveGroup(self.group, self.member_id, epoch), lambda _: None)
        if not self.habits.keeps_id:
            self.member_id = ""

    def _forget(self) -> None:
        self.epoch, self.pending = JOIN, 0
        self.session_end_ms = 0
        self.giving_back = {}
        self.held = {}

    def _is_valid(self) -> bool:
        """In session, by its own clock. If not it holds nothing from now on."""
        if self.epoch != JOIN and self.now_ms >= self.session_end_ms:
            self._forget()
        return self.epoch != JOIN

    # --- heartbeats -------------------------------------------------------------------------------

    def _again(self, delay_ms: int) -> None:
        life, member_id = self.life, self.member_id
        self.later(delay_ms, "beat", lambda: self._beat(life) if member_id == self.member_id else None)

    def _beat(self, life: int) -> None:
        if self._is_asking or not self.is_in or life != self.life:
            return
        self._is_valid()
        owned: dict[str, list[int]] = {}
        for topic, partition in sorted(self.held):
            owned.setdefault(topic, []).append(partition)
        habits = self.habits
        request = GroupHeartbeat(
            self.group,
            self.member_id,
            self.epoch,
            [] if habits.pattern else list(habits.topics),
            habits.pattern,
            [TopicPartitions(*item) for item in owned.items()],
            habits.assignor,
            f"{self.name}" if habits.is_static else "",
            self.name,
            habits.session_timeout_ms,
            habits.poll_timeout_ms,
        )
        self._is_asking = True
        sent_ms = self.now_ms
        self._ask(request, lambda answer: self._on_beaten(request, sent_ms, answer))

    def _on_beaten(self, request: GroupHeartbeat, sent_ms: int, answer: Response) -> None:
        if request.member_id != self.member_id:
            return
        self._is_asking = False
        if isinstance(answer, GroupHeartbeatReply):
            stale = request.member_epoch != self.epoch
            self.session_end_ms = sent_ms + int(self.habits.session_timeout_ms * self.habits.session_share)
            if not stale and self.now_ms < self.session_end_ms:
                self._take(answer)
            interval_ms = answer.heartbeat_interval_ms
            self._again(self.rng.randint(interval_ms * 4 // 5, interval_ms))
            return
        assert isinstance(answer, MinilogError)
        if answer.code in LOST_CODES:
            self._forget()
        self._seek(answer)
        self._again(self.rng.randint(20, 150))

    def _take(self, answer: GroupHeartbeatReply) -> None:
        self.epoch, self.pending = answer.member_epoch, answer.pending
        assigned = {(entry.topic, p): None for entry in answer.assignment for p in entry.partitions}
        for part in self.held:
            if part not in assigned and part not in self.giving_back:
                self._give_back(part)
        for part in assigned:
            self.giving_back.pop(part, None)
            if part not in self.held:
                self.held[part] = None
                self.watch.on_taken(self, part)
                self._find_start(part)

    def _give_back(self, part: Part) -> None:
        self.giving_back[part] = None
        if self.gives_back:
            self.later(self.rng.randint(0, self.habits.work_ms), f"gives back {part}", lambda: self._given_back(part))

    def _given_back(self, part: Part) -> None:
        if part in self.giving_back:
            del self.giving_back[part]
            self.held.pop(part, None)
            if not self.giving_back:
                self._beat(self.life)

    # --- work -------------------------------------------------------------------------------------

    def _find_start(self, part: Part) -> None:
        """Ask where the group is. Until that is known the partition rests."""
        epoch, begun_ms = self.epoch, self.world.now_ms
        since = self.watch.since(self, part)

        def on_answer(answer: Response) -> None:
            if self.watch.since(self, part) != since or part not in self.held or self.held[part] is not None:
                return
            if isinstance(answer, CommittedOffsetsReply):
                self.watch.on_read(self.group, part, answer.offsets[0].offset, begun_ms)
                self.held[part] = answer.offsets[0].offset or 0
            else:
                self._seek(answer)
                self.later(self.rng.randint(20, 100), "finds start", lambda: self._find_start(part))

        if part in self.held and self._is_valid() and epoch == self.epoch:
            request = CommittedOffsets(self.group, [TopicPartitions(part[0], [part[1]])])
            self._ask(request, on_answer)

    def _work(self, life: int) -> None:
        if life != self.life:
            return
        if self.is_in and self._is_valid() and not self._is_committing:
            ready = [part for part, done in self.held.items() if done is not None]
            if ready:
                self.commit(self.rng.choice(ready))
        self.later(self.rng.randint(1, 2 * self.habits.commit_ms), "works", lambda: self._work(life))

    def commit(self, part: Part) -> Commit:
        """Whatever it believes to own. A zombie is refused by the coordinator, not by its
        conscience."""
        commit = self.watch.begin_commit(self, part)
        self._is_committing = True
        entry = OffsetCommit(*part, commit.offset)
        request = CommitOffsets(self.group, [entry], self.member_id, self.epoch, commit.offset)  # both grow

        def on_answer(answer: Response) -> None:
            self._is_committing = False
            if isinstance(answer, CommitOffsetsReply):
                self.watch.end_commit(commit, "ok")
                if part in self.held:
                    self.held[part] = commit.offset
                return
            assert isinstance(answer, MinilogError)
            self.watch.end_commit(commit, "failed" if answer.definite else "unknown")
            self._seek(answer)
            if answer.code in LOST_CODES and request.member_epoch == self.epoch and request.member_id == self.member_id:
                self._on_refused(answer)

        self._ask(request, on_answer)
        return commit

    def _on_refused(self, error: MinilogError) -> None:
        """Not assigned may mean no more than that a heartbeat has overtaken the commit. The others
        end the membership."""
        if error.code != "NOT_ASSIGNED":
            self._forget()
            self._again(1)
