"""Broker registrations: which process has which broker id, and who waits for one (R26).

Owns the registrations that wait until a probe, or the end of a session, has shown that the process
before is gone: one for each broker id. Invariants: the epoch of a process is the journal index of
its registration. A live process keeps its id. Source: KIP-631.
"""

from __future__ import annotations

from minilog.config import ControllerSettings
from minilog.core.controller.broker_sessions import BrokerSessions
from minilog.core.controller.metadata_draft import MetadataDraft
from minilog.core.controller.partition_change import without_unclean
from minilog.core.effects import Effect, Reply
from minilog.core.image import BrokerState, ClusterImage
from minilog.errors import DuplicateBrokerId, InvalidRequest, StaleBrokerEpoch
from minilog.wire.messages import Problem, Register, RegisterReply
from minilog.wire.metadata_records import BrokerRegistered


class BrokerRegistrations:
    def __init__(self, settings: ControllerSettings, image: ClusterImage, sessions: BrokerSessions) -> None:
        self._settings, self._image, self._sessions = settings, image, sessions
        self._waiting: dict[int, tuple[int, Register]] = {}
        """By broker id: the request that waits, and its id."""

    def check_process(self, broker_id: int, broker_epoch: int, incarnation: str) -> BrokerState:
        """The registered process, if it is this one: epochs alone are places in a journal, and
        there are other journals."""
        broker = self._image.brokers.get(broker_id)
        if broker is None or (broker.epoch, broker.incarnation) != (broker_epoch, incarnation):
            raise StaleBrokerEpoch(
                f"broker {broker_id}: process {incarnation} with epoch {broker_epoch} is not registered; register again",
                cluster_id=self._image.cluster_id,
            )
        return broker

    def wait(self, request_id: int, request: Register) -> list[Effect]:
        """Until it is known whether the process that has the id is gone. Whoever waited before is
        refused."""
        effects = self.give_up(request.broker_id)
        self._waiting[request.broker_id] = (request_id, request)
        return effects

    def check_cluster(self, request: Register) -> None:
        if request.cluster_id not in ("", self._image.cluster_id):
            raise InvalidRequest(
                f"its data directory belongs to cluster {request.cluster_id}, this controller to {self._image.cluster_id}; "
                "point it at its own controller, or at an empty data directory"
            )
        if request.controller_epoch > self._image.controller_epoch:
            raise InvalidRequest(
                f"it has obeyed controller epoch {request.controller_epoch}, this controller is at {self._image.controller_epoch}: "
                "the controller's journal is older than the cluster; restore the newer one"
            )

    def give_up(self, broker_id: int) -> list[Effect]:
        waiting = self._waiting.pop(broker_id, None)
        if waiting is None:
            return []
        error = DuplicateBrokerId(
            f"broker id {broker_id} is in use by a live process at {self._image.brokers[broker_id].url}; "
            "stop that one, or give this one another id"
        )
        return [Reply(waiting[0], Problem.of(error))]

    def register_waiting(self, draft: MetadataDraft, broker_id: int, now_ms: int) -> list[Effect]:
        """The process that held the id is fenced in this step: whoever waited for the id gets
        it."""
        waiting = self._waiting.pop(broker_id, None)
        return [] if waiting is None else self.register(*waiting, draft, now_ms)

    def register(self, request_id: int, request: Register, draft: MetadataDraft, now_ms: int) -> list[Effect]:
        if not request.clean:
            for state, _ in list(draft.partitions()):
                draft.change(without_unclean(state, request.broker_id))
        epoch = draft.next_index
        draft.add(BrokerRegistered(request.broker_id, epoch, request.incarnation, request.url, request.rack))
        self._sessions.open(request.broker_id, epoch, now_ms)
        return [Reply(request_id, self.registered(request.incarnation, epoch))]

    def registered(self, incarnation: str, broker_epoch: int) -> RegisterReply:
        return RegisterReply(
            incarnation,
            broker_epoch,
            self._image.cluster_id,
            self._image.controller_epoch,
            self._settings.session_timeout_ms,
        )
