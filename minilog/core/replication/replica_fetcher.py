"""ReplicaFetcher: how this broker follows one leader: one session, one request in flight, for all
partitions at once.

Owns: the session with that leader (id, sequence), which partitions the next request must name, and
which wait (for a flush, for a pause after an error). One request names only what changed since the
one before (KIP-227), so an idle partition costs nothing.

Invariants
* At most one request in flight. An answer counts only if it carries that request's session and
  sequence, and per partition only if leader epoch and fetch offset are still the current ones (R5).
* A request is made only when nothing appended here still waits for its flush, for a fetch
  acknowledges (R8).
* A result counts only for the very topic it names: another topic of that name may have been made
  meanwhile.
* Every partition an answer mentions is named in the next request, so leader and follower agree on
  positions again after anything was dropped.
* What did not come through, or took longer than peer_timeout_ms, makes the next portion smaller,
  down to BYTES_MIN. Portions grow again while twice as much would come in peer_timeout_ms. So a
  poor link carries something, and no partition waits long behind another.
* How fresh a replica is rests on evidence: the time of an answer is when its request was sent, plus
  how long the leader kept it, less for how long that leader may have been replaced. Silence is
  evidence only about what the leader leads and had room to mention.
* An answer is taken over in as many turns as it takes (R42). Until all of it is, it is no evidence,
  and there is no next request.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec.structs import replace

from minilog.core.effects import Flush
from minilog.core.moves.moving import adding
from minilog.core.replication.budget import Budget
from minilog.core.replication.follower import FollowerState
from minilog.errors import CorruptBatch, CorruptRange, DiskFull, OffsetOutOfRange, RecordTooLarge
from minilog.wire.batch import first_batches
from minilog.wire.messages import ReplicaFetch, ReplicaFetchPartition, ReplicaFetchReply, ReplicaFetchResult
from minilog.wire.topic_partition import TopicPartition

RETRY_MS = 50
DISK_FULL_RETRY_MS = 1000
BYTES_MIN = 16 * 1024
TURN_WORK: Final = 512
"""What one turn takes over, in batches."""
APPEND_WORK: Final = 16
"""What an append costs besides."""


class ReplicaFetcher:
    def __init__(
        self,
        broker_id: int,
        leader: int,
        max_wait_ms: int,
        max_bytes: int,
        peer_timeout_ms: int,
        budget: Budget | None = None,
    ) -> None:
        self.broker_id, self.leader = broker_id, leader
        self._budget = budget or Budget()
        """Of what moves here."""
        self._coming: dict[TopicPartition, int] = {}
        """Partitions that move here of which the last answer had something, and how much."""
        self.max_wait_ms, self.max_bytes = max_wait_ms, max_bytes
        self.peer_timeout_ms = peer_timeout_ms
        self.portion_bytes = max_bytes
        """What the next request asks for."""
        self.followers: dict[TopicPartition, FollowerState] = {}
        self.inflight: ReplicaFetch | None = None
        self.session_id = 0
        self.sequence = 0
        self.is_open = False
        self.retry_ms = 0
        self.answered_ms: int | None = None
        """As of when the last answer spoke for everything it does not call untold."""
        self.fetched_bytes = 0
        self.flushing: dict[TopicPartition, None] = {}
        self._changed: dict[TopicPartition, None] = {}
        self._forgotten: dict[TopicPartition, None] = {}
        self._asleep: dict[TopicPartition, int] = {}
        self._resting: set[TopicPartition] = set()
        """Of these: what rests for the budget, until it is in sync."""
        self._named: set[TopicPartition] = set()
        """Partitions that the request in flight names."""
        self._untold: set[tuple[str, int]] = set()
        self._sent_ms = 0
        self._results: deque[ReplicaFetchResult] = deque()
        """Of the last answer, what is still to be taken over."""
        self._answer: tuple[int, set[tuple[str, int]]] = 0, set()
        """As of when it was, and what it left untold."""
        self.taken: list[TopicPartition] = []
        """What was taken over last."""

    def add(self, follower: FollowerState) -> Flush | None:
        """Start following. Answers with the flush that must come before the first fetch, if any."""
        assert follower.leader == self.leader
        partition = follower.partition
        self.followers[partition] = follower
        follower.quiet_ms = self.quiet_ms
        self._changed[partition] = None
        self._forgotten.pop(partition, None)
        self._asleep.pop(partition, None)
        self._resting.discard(partition)
        return self._flush(follower)

    def remove(self, partition: TopicPartition) -> None:
        if self.followers.pop(partition, None) is not None:
            for waiting in (self._changed, self._asleep, self.flushing):
                waiting.pop(partition, None)
            self._resting.discard(partition)
            self._forgotten[partition] = None

    def on_flushed(self, partition: TopicPartition) -> Flush | None:
        """The log became durable. Anything appended since needs one more flush."""
        if partition not in self.flushing:
            return None
        del self.flushing[partition]
        follower = self.followers.get(partition)
        return self._flush(follower) if follower else None

    def _flush(self, follower: FollowerState) -> Flush | None:
        if not follower.must_flush:
            return None
        self.flushing[follower.partition] = None
        return Flush(follower.partition, follower.log.end_offset)

    # --- asking -----------------------------------------------------------------------------------

    def next_request(self, broker_epoch: int, now_ms: int) -> ReplicaFetch | None:
        """The next request if one may be made now. It is then in flight."""
        if self.inflight is not None or self._results or self.flushing or now_ms < self.retry_ms:
            return None
        if not self.followers and not (self.is_open and self._forgotten):
            return None
        self._wake(now_ms)
        if not self.is_open:
            self._open()
        partitions = [fetch for p in list(self._changed) if (fetch := self._next_fetch(p, now_ms)) is not None]
        self._named = set(self._changed)
        request = ReplicaFetch(
            self.broker_id,
            broker_epoch,
            self.leader,
            self.session_id,
            self.sequence,
            self.max_wait_ms,
            self._portion(),
            partitions,
            list(self._forgotten),
        )
        self._changed.clear()
        self._forgotten.clear()
        self.inflight = request
        self._sent_ms = now_ms
        return request

    def _portion(self) -> int:
        """No more at once than the budget has for a second, while something moves here."""
        rate = self._budget.bytes_per_second
        if rate and any(self._is_coming(follower) for follower in self.followers.values()):
            return min(self.portion_bytes, max(rate, BYTES_MIN))
        return self.portion_bytes

    def _next_fetch(self, partition: TopicPartition, now_ms: int) -> ReplicaFetchPartition | None:
        try:
            return self.followers[partition].next_fetch()
        except (CorruptRange, DiskFull):
            self._sleep(partition, now_ms + DISK_FULL_RETRY_MS)
            return None

    def _open(self) -> None:
        self.session_id += 1
        self.sequence = 0
        self.is_open = True
        self._forgotten.clear()
        self._changed = {p: None for p in self.followers if p not in self._asleep}

    def _wake(self, now_ms: int) -> None:
        for partition in [p for p, until_ms in self._asleep.items() if until_ms <= now_ms or self._is_awaited(p)]:
            del self._asleep[partition]
            self._resting.discard(partition)
            self._forgotten.pop(partition, None)
            self._changed[partition] = None

    def _matches(self, request: ReplicaFetch) -> bool:
        mine = self.inflight
        return mine is not None and (mine.session_id, mine.sequence) == (request.session_id, request.sequence)

    # --- answers ----------------------------------------------------------------------------------

    def on_failed(self, request: ReplicaFetch, now_ms: int, *, was_lost: bool = False) -> None:
        """No usable answer: whatever the leader did with it, a new session says everything again.

        ``was_lost``: an answer may have been on its way, and was perhaps too large for that."""
        if self._matches(request):
            if was_lost:
                self.portion_bytes = max(self.portion_bytes // 2, min(BYTES_MIN, self.max_bytes))
            self.inflight = None
            self.is_open = False
            self.retry_ms = now_ms + RETRY_MS

    def on_reply(self, request: ReplicaFetch, reply: ReplicaFetchReply, now_ms: int) -> list[Flush]:
        """Begin to apply a matched answer; returns the flushes that must end before the next
        request (R5, R8)."""
        self.taken = []
        if not self._matches(request):
            return []
        if (reply.session_id, reply.sequence) != (request.session_id, request.sequence):
            self.on_failed(request, now_ms)
            return []
        self.inflight = None
        self.sequence += 1
        self._suit_portion(now_ms - self._sent_ms - max(reply.held_ms, 0))
        self._answer = self._as_of(reply, now_ms), set(reply.untold)
        self._results.extend(reply.partitions)
        return self.go_on(now_ms)

    @property
    def has_more(self) -> bool:
        return bool(self._results)

    def go_on(self, now_ms: int) -> list[Flush]:
        """R42: take over more of the answer, as much as one turn may take."""
        seen_ms, untold = self._answer
        self.taken = []
        flushes = []
        room = TURN_WORK
        while self._results and room > 0:
            result = self._results.popleft()
            follower = self._meant(result)
            if follower is None:
                continue
            end, count, end_offset = first_batches(result.batches, room)
            room -= APPEND_WORK + count
            if end < len(result.batches):
                self._results.appendleft(replace(result, batches=result.batches[end:], fetch_offset=end_offset))
                result = replace(result, batches=result.batches[:end], written=None)
            self.fetched_bytes += len(result.batches)
            if self._is_coming(follower):
                self._coming[follower.partition] = self._coming.get(follower.partition, 0) + len(result.batches)
            self._apply(follower, result, seen_ms, now_ms)
            self.taken.append(follower.partition)
            flush = self._flush(follower)
            if flush is not None:
                flushes.append(flush)
        if not self._results:
            self.answered_ms, self._untold = seen_ms, untold
            self._named.clear()
            self._rest(now_ms)
        return flushes

    def _is_coming(self, follower: FollowerState) -> bool:
        """Its replicas move, it is to come here, and is not in sync yet."""
        state = follower.state
        return self.broker_id in adding(state) and self.broker_id not in state.isr

    def _is_awaited(self, partition: TopicPartition) -> bool:
        """It rests for the budget, and is in sync by now: writes wait for it."""
        return partition in self._resting and not self._is_coming(self.followers[partition])

    def _rest(self, now_ms: int) -> None:
        """What moves here waits while the budget is spent. The leader forgets it meanwhile, or it
        would send more with every append."""
        for partition, count in self._coming.items():
            until_ms = self._budget.spend(count, now_ms)
            if until_ms > now_ms and partition in self.followers:
                self._sleep(partition, until_ms)
                self._resting.add(partition)
                self._forgotten[partition] = None
        self._coming.clear()

    def _suit_portion(self, under_way_ms: int) -> None:
        """An answer that comes, but slowly, keeps every other partition of this leader waiting."""
        if under_way_ms > self.peer_timeout_ms:
            self.portion_bytes = max(self.portion_bytes // 2, min(BYTES_MIN, self.max_bytes))
        elif 2 * under_way_ms <= self.peer_timeout_ms:
            self.portion_bytes = min(2 * self.portion_bytes, self.max_bytes)

    def _meant(self, result: ReplicaFetchResult) -> FollowerState | None:
        """Who follows the topic that the result is about. Another one of that name has asked for
        nothing."""
        follower = self.followers.get(TopicPartition(result.topic, result.partition))
        return follower if follower is not None and follower.topic_id == result.topic_id else None

    def _as_of(self, reply: ReplicaFetchReply, now_ms: int) -> int:
        """The moment, by this broker's clock, whose committed records the answer surely
        reflects."""
        held_ms = min(max(reply.held_ms, 0), now_ms - self._sent_ms)
        return self._sent_ms + held_ms - max(reply.unsure_ms, 0)

    def quiet_ms(self, partition: TopicPartition) -> int | None:
        """As of when an answer said, by not mentioning it, that nothing is new in a partition; None
        while one may."""
        waits = partition in self._changed or partition in self._asleep or partition in self._named
        if waits or partition in self._untold or partition not in self.followers:
            return None
        return self.answered_ms

    def _apply(self, follower: FollowerState, result: ReplicaFetchResult, seen_ms: int, now_ms: int) -> None:
        partition = follower.partition
        if partition in self._asleep:
            return
        self._changed[partition] = None
        if (result.leader_epoch, result.fetch_offset) != (follower.leader_epoch, follower.log.end_offset):
            return
        if result.problem is not None:
            self._on_problem(follower, result, now_ms)
            return
        try:
            follower.on_fetched(result, seen_ms)
        except (CorruptBatch, CorruptRange, RecordTooLarge):
            self._sleep(partition, now_ms + RETRY_MS)
        except DiskFull:
            self._sleep(partition, now_ms + DISK_FULL_RETRY_MS)

    def _on_problem(self, follower: FollowerState, result: ReplicaFetchResult, now_ms: int) -> None:
        assert result.problem is not None
        log = follower.log
        has_nothing_to_keep = log.last_epoch < 0 or log.end_offset <= result.log_start_offset
        has_nothing_to_keep |= result.problem.info.get("begins_anew") is True
        if result.problem.code != OffsetOutOfRange.code or not has_nothing_to_keep:
            self._sleep(follower.partition, now_ms + RETRY_MS)
            return
        told = result.problem.info.get("log_start_epoch")
        start_epoch = told if isinstance(told, int) and 0 <= told <= follower.leader_epoch else -1
        try:
            if log.end_offset < result.log_start_offset and start_epoch == log.last_epoch >= 0:
                # one epoch reaches from here to there, so all of this was committed
                log.high_watermark = log.end_offset
            follower.begin_anew(result.log_start_offset, start_epoch)
        except CorruptRange:  # what is to be given up cannot be read
            self._sleep(follower.partition, now_ms + RETRY_MS)
        except DiskFull:
            self._sleep(follower.partition, now_ms + DISK_FULL_RETRY_MS)

    def _sleep(self, partition: TopicPartition, until_ms: int) -> None:
        self._changed.pop(partition, None)
        self._resting.discard(partition)
        self._asleep[partition] = until_ms
