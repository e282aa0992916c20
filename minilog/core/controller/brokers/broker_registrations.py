"""Broker registrations: which process has which broker id, and who waits for one (R26).

Owns the registrations that wait until a probe, or the end of a session, has shown that the process
before is gone: one for each broker id. Invariants: the epoch of a process is the journal index of
its registration. A live process keeps its id. A replica counts as complete only on the disk that it
was complete on, as it was last written (R36, R37). Source: KIP-631, KIP-858, KIP-966.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minilog.config import ControllerSettings
from minilog.core.controller.brokers.broker_sessions import BrokerSessions
from minilog.core.controller.elections.partition_change import without_lost, without_unclean
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.effects import Effect, Reply
from minilog.core.image import BrokerState, ClusterImage
from minilog.errors import DuplicateBrokerId, InvalidRequest, StaleBrokerEpoch
from minilog.wire.journal.metadata_records import BrokerRegistered, BrokerUnfenced, DiskState, UnusedRegistration
from minilog.wire.messages import Problem, Register, RegisterReply


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
        if not request.directory_id:
            return
        for other in self._image.brokers.values():
            if other.broker_id != request.broker_id and other.directory_id == request.directory_id:
                raise InvalidRequest(
                    f"its data directory {request.directory_id} is that of broker {other.broker_id}, or a copy: "
                    "a broker with another id begins with an empty one"
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
        known = self._image.brokers.get(request.broker_id)
        epoch = draft.next_index
        unused = _unused(known)
        before = _of_this_directory(request, unused)
        disk = max([_disk(request, known, before), *(one.disk for one in before)], key=_WORSE.index)
        lost = set(request.lost).union(*(one.lost for one in before))
        draft.add(
            BrokerRegistered(
                request.broker_id,
                epoch,
                request.incarnation,
                request.url,
                request.rack,
                request.directory_id,
                "" if known is None else known.used_directory_id,
                -1 if known is None else known.used_epoch,
                disk,
                sorted(lost, key=lambda replica: (replica.topic, replica.partition, replica.topic_id)),
                request.last_epoch,
                unused,
                request.version,
            )
        )
        self._sessions.open(request.broker_id, epoch, now_ms)
        return [Reply(request_id, self.registered(request.incarnation, epoch))]

    def unfence(self, draft: MetadataDraft, broker: BrokerState) -> None:
        """The process knows of itself, so what it said when it registered is its word, and not a
        late message of one that is gone. What it cannot have kept is not counted on."""
        if not broker.is_used:
            lost = {(r.topic, r.topic_id, r.partition) for r in broker.lost}
            for state, _ in list(draft.partitions()):
                if broker.disk is DiskState.OTHER or (state.topic, state.topic_id, state.partition) in lost:
                    draft.change(without_lost(state, broker.broker_id))
                elif broker.disk is DiskState.UNCLEAN:
                    draft.change(without_unclean(state, broker.broker_id))
        draft.add(BrokerUnfenced(broker.broker_id, broker.epoch))

    def registered(self, incarnation: str, broker_epoch: int) -> RegisterReply:
        return RegisterReply(
            incarnation,
            broker_epoch,
            self._image.cluster_id,
            self._image.controller_epoch,
            self._settings.session_timeout_ms,
        )


_WORSE = (DiskState.SAME, DiskState.UNCLEAN, DiskState.OTHER)
UNUSED_MAX = 20
"""Registrations without use that are remembered. Who shows the epoch of an older one is no longer
known to be complete."""


def _unused(known: BrokerState | None) -> list[UnusedRegistration]:
    """The registrations that have come to nothing since the broker was last unfenced."""
    if known is None or known.is_used:
        return []
    last = UnusedRegistration(known.epoch, known.shown_epoch, known.disk, list(known.lost))
    return [*known.unused[1 - UNUSED_MAX :], last]


def _of_this_directory(request: Register, unused: Iterable[UnusedRegistration]) -> list[UnusedRegistration]:
    """Those of its processes before this one. What they had found has not been acted on, and their
    successor may find that mended.

    A directory shows the last epoch that it has noted: that of such a registration, or the one that
    it had shown then, when its process died before it heard its own."""
    return [one for one in unused if request.last_epoch in (one.broker_epoch, one.shown_epoch)]


def _disk(request: Register, known: BrokerState | None, before: Sequence[UnusedRegistration]) -> DiskState:
    """R36: it is the directory that was in use, and not as it was before it was last used: it shows
    the epoch of that use, or is known from registrations since, which have written nothing.

    Brokers of older versions name no directory: of theirs nothing is known. An epoch that this
    journal has never given is of a part that was lost before the journal was made anew (R38): what
    is in such a directory counts when it was compared with the others."""
    if known is not None and known.used_directory_id:
        if request.directory_id != known.used_directory_id:
            return DiskState.OTHER
        if request.last_epoch > known.epoch:
            return DiskState.UNCLEAN
        if request.last_epoch != known.used_epoch and not before:
            return DiskState.OTHER
    return DiskState.SAME if request.clean else DiskState.UNCLEAN
