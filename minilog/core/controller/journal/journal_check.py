"""Nobody runs ahead of the controller (R38): is the journal that this controller has begun with the
one that its brokers follow?

A restored backup, or a journal begun anew, is another journal. Decisions on it would undo what
brokers know, and brokers that followed it would be ahead of the right one. So before a new
controller tells or decides anything it hears every broker that was alive by its journal, or knows
it to be gone; and one broker that has applied what is not in the journal ends it.

Owns: who has not been heard yet. Source: the leader completeness of Raft, section 5.4, which a
single controller cannot have without asking.
"""

from __future__ import annotations

from minilog.core.image import ClusterImage
from minilog.errors import NotController, RefusesToStart
from minilog.wire.messages import Heartbeat, Register


class JournalCheck:
    def __init__(self, image: ClusterImage) -> None:
        self._image = image
        self._unheard: set[int] = set()

    def begin(self) -> None:
        """A new term: whoever is alive by the journal is to be heard."""
        self._unheard = {broker.broker_id for broker in self._image.brokers.values() if not broker.fenced}

    def on_gone(self, broker_id: int) -> None:
        """It is fenced: whoever comes back registers, and is heard then."""
        self._unheard.discard(broker_id)

    def hear(self, request: Register | Heartbeat) -> None:
        """Raises RefusesToStart when this broker of the cluster has followed another journal, or
        this one further. A new data directory, and an older broker, name no cluster."""
        if request.cluster_id not in ("", self._image.cluster_id):
            return
        image = self._image
        ahead = request.controller_epoch > image.controller_epoch
        if ahead and not request.cluster_id:
            raise NotController(f"controller epoch {request.controller_epoch} is newer than this controller's")
        applied = request.term_id != "" and request.metadata_offset > 0
        if ahead or (applied and not image.holds(request.term_id, request.metadata_offset)):
            raise RefusesToStart(
                f"broker {request.broker_id} has applied metadata record {request.metadata_offset} of controller epoch "
                f"{request.controller_epoch} (term {request.term_id or 'unknown'}), which this journal does not hold: it ends at "
                f"record {image.metadata_offset} of epoch {image.controller_epoch}. The journal is an older copy, or another one. "
                "Nothing was decided by it. Put the newest one back, or make one from the brokers with "
                "`minilog controller recover`"
            )
        self._check_registration(request)
        if self._is_of_who_was_alive(request):
            self._unheard.discard(request.broker_id)

    def _check_registration(self, request: Register | Heartbeat) -> None:
        """A broker epoch is a place in the journal. Raises RefusesToStart when this journal ends
        before."""
        if not isinstance(request, Register) or request.cluster_id != self._image.cluster_id:
            return
        if request.last_epoch > self._image.metadata_offset:
            raise RefusesToStart(
                f"broker {request.broker_id} was registered by record {request.last_epoch}, and this journal ends at record "
                f"{self._image.metadata_offset}. The journal is an older copy, or another one. Nothing was decided by it. "
                "Put the newest one back, or make one from the brokers with `minilog controller recover`"
            )

    def _is_of_who_was_alive(self, request: Register | Heartbeat) -> bool:
        """A process with another disk does not know what the one that was alive has applied, and
        that one may be alive still."""
        known = self._image.brokers.get(request.broker_id)
        return isinstance(request, Heartbeat) or known is None or request.directory_id == known.directory_id

    @property
    def is_done(self) -> bool:
        return not self._unheard

    def check(self) -> None:
        """Raises NotController while nothing must be decided yet."""
        if self._unheard:
            brokers = ", ".join(map(str, sorted(self._unheard)))
            raise NotController(
                f"this controller has just started and decides nothing before it has heard from the brokers that were alive "
                f"(it waits for {brokers}); retry",
                definite=True,
            )
