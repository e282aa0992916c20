"""Producer ids: what this broker has to give away to clients that want to number their batches
(KIP-98; R33).

Owns: blocks of ids that the controller has set aside for this broker in its journal, and who waits
for the next block.

Invariants:
* Each id is given away at most once: the controller never allocates one twice, and an answer that
  comes twice is known by its block, for the ids of later answers are higher. What a process has not
  given away when it ends is lost.
* One request to the controller is in flight at most. Every waiting client is answered when it ends
  (R34).
* A block is asked for ahead of need, the first one as soon as the broker is registered. So new
  producers begin while the controller is away.
"""

from __future__ import annotations

from collections import deque

from minilog.core.effects import Effect, Reply
from minilog.errors import LeaderNotAvailable
from minilog.wire.messages import AllocateProducerIds, AllocateProducerIdsReply, InitProducerReply, Problem

REFILL_BELOW = 200
"""With fewer ids left than this the next block is asked for. A block is 1000
(core/controller/controller.py)."""


class ProducerIds:
    def __init__(self, broker_id: int, incarnation: str) -> None:
        self.broker_id, self.incarnation = broker_id, incarnation
        self._blocks: deque[range] = deque()
        self._end = 0
        """Above every id ever received."""
        self._inflight: AllocateProducerIds | None = None
        self._wanted = True
        """At first, and when a client has asked since the controller last failed to answer."""
        self._waiting: dict[int, None] = {}

    def __len__(self) -> int:
        """Ids left to give away."""
        return sum(len(block) for block in self._blocks)

    def on_init(self, request_id: int, broker_epoch: int) -> list[Effect]:
        """A client wants an id: it gets one, or waits for the controller's answer."""
        if broker_epoch < 0:
            return [_none_left(request_id, self.broker_id, "it is not registered yet")]
        self._waiting[request_id] = None
        self._wanted = True
        return self._answer()

    def _answer(self) -> list[Effect]:
        effects: list[Effect] = []
        while self._waiting and self._blocks:
            request_id = next(iter(self._waiting))
            del self._waiting[request_id]
            block = self._blocks[0]
            effects.append(Reply(request_id, InitProducerReply(block[0])))
            if len(block) > 1:
                self._blocks[0] = block[1:]
            else:
                self._blocks.popleft()
        return effects

    def next_request(self, broker_epoch: int) -> AllocateProducerIds | None:
        """The request that should be sent now, if any. It is then in flight."""
        if not self._wanted or self._inflight is not None or broker_epoch < 0 or len(self) > REFILL_BELOW:
            return None
        self._inflight = AllocateProducerIds(self.broker_id, broker_epoch, self.incarnation)
        return self._inflight

    def on_reply(self, request: AllocateProducerIds, reply: AllocateProducerIdsReply) -> list[Effect]:
        if request is self._inflight:
            self._inflight = None
        if reply.first >= self._end:
            assert reply.first < reply.end
            self._blocks.append(range(reply.first, reply.end))
            self._end = reply.end
        return self._answer()

    def on_failed(self, request: AllocateProducerIds, detail: str) -> list[Effect]:
        """No answer: whoever waits must ask again, and that asks the controller again."""
        if request is not self._inflight:
            return []
        self._inflight, self._wanted = None, False
        waiting, self._waiting = self._waiting, {}
        return [_none_left(request_id, self.broker_id, detail) for request_id in waiting]

    def on_disconnect(self, request_id: int) -> None:
        self._waiting.pop(request_id, None)


def _none_left(request_id: int, broker_id: int, detail: str) -> Reply:
    error = LeaderNotAvailable(f"broker {broker_id} has no producer ids to give away: {detail}; retry shortly")
    return Reply(request_id, Problem.of(error))
