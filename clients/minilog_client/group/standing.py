"""Why an application gets no records of its group: what it is told, and when.

It owns what was told already: a refusal is raised once, and that the group cannot be reached every
now and then."""

from __future__ import annotations

from typing import NoReturn

from minilog.errors import BrokerUnavailable, InstanceInUse, MinilogError, TimedOut
from minilog_client.group.heartbeats import Heart, MemberTask
from minilog_client.group.membership import MemberView, Phase
from minilog_client.group.start_offsets import StartOffsets


class Standing:
    """``limit_ms``: for how long the group may be away before that is an error."""

    def __init__(self, session: MemberTask, heart: Heart, lookup: StartOffsets, limit_ms: int) -> None:
        self._session = session
        self._heart = heart
        self._lookup = lookup
        self._limit_ms = limit_ms
        self._group = session.subscription.group
        self._told: MinilogError | None = None
        self._failing_since_ms: int | None = None

    def come_back(self, view: MemberView, raises: bool) -> None:
        """Out of the group: raise the reason if the application is to know it, and join again if it
        reads on."""
        if view.phase is Phase.REFUSED or raises:
            self.raise_refusal(view)
        if view.phase in (Phase.AWAY, Phase.REFUSED):
            self._heart.post(self._session.come_back)

    def raise_refusal(self, view: MemberView) -> None:
        if view.phase in (Phase.AWAY, Phase.REFUSED) and view.error is not None and view.error is not self._told:
            self._told = view.error
            raise view.error.with_traceback(None)
        if view.phase is Phase.REFUSED:
            self._heart.post(self._session.come_back)

    def raise_not_joined(self, wait_ms: int) -> NoReturn:
        trouble = self._session.view.trouble
        if isinstance(trouble, InstanceInUse):
            raise trouble.with_traceback(None)
        reason = trouble.detail if trouble else "no answer"
        raise TimedOut(f"could not join group {self._group} within {wait_ms} ms: {reason}", definite=False)

    def is_fine(self, now_ms: int) -> bool:
        """The group is reached. Raises the reason when it has not been for long."""
        view = self._session.view
        if view.is_member and now_ms < view.hold_until_ms and self._lookup.error is None:
            self._failing_since_ms = None
            return True
        if self._failing_since_ms is None:
            self._failing_since_ms = now_ms
        if now_ms - self._failing_since_ms >= self._limit_ms:
            self._failing_since_ms = None
            self._raise_unreachable(view.trouble or self._lookup.error)
        return False

    def _raise_unreachable(self, error: MinilogError | None) -> NoReturn:
        if error is not None and not error.retriable:
            raise error.with_traceback(None)
        raise BrokerUnavailable(
            f"group {self._group} could not be reached for {self._limit_ms} ms, the last reason: "
            f"{error.detail if error else 'no answer'}; reading on tries again",
            definite=True,
        )
