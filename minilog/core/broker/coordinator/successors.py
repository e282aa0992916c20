"""Successors: whether one of those who may lead a partition instead of this broker does so by now.

Owns nothing. What the controller has answered, and that the others follow, is evidence. Either
counts as of when this broker asked or answered last before it, for requests and answers may be
late.

Why not the setting of R30: that one takes a leader out of service. Coordinators need to know it
always.
"""

from __future__ import annotations

from typing import NamedTuple

from minilog.core.broker.state import LocalState
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.leader import LeaderState


class Moment(NamedTuple):
    """``answers_count``: how many replica fetches this broker had answered then."""

    now_ms: int
    answers_count: int


class Successors:
    def __init__(self, state: LocalState, followers: FollowerSessions) -> None:
        self._state, self._followers = state, followers

    def of(self, role: LeaderState) -> set[int]:
        """Whoever follows this broker does not lead instead of it yet."""
        return {*role.maximal_isr, *role.state.elr} - {self._state.broker_id}

    def are_silent(self, role: LeaderState, now_ms: int) -> bool:
        """None of them can have led for longer than a broker session (R84)."""
        if self._state.session_over_ms(now_ms) == 0:
            return True
        since_ms = now_ms - self._state.session_timeout_ms
        return all(self._followers.followed(other, role.partition).sent_ms >= since_ms for other in self.of(role))

    def moment(self, now_ms: int) -> Moment:
        return Moment(now_ms, self._followers.answers_count)

    def were_silent_at(self, role: LeaderState, moment: Moment) -> bool:
        """It is known by now that none had led then (R91): the controller has answered what was
        asked after it, or all have come back after an answer that was sent since."""
        heard_ms = self._state.registration.heard_ms
        if heard_ms is not None and heard_ms > moment.now_ms:
            return True
        followed = (self._followers.followed(other, role.partition) for other in self.of(role))
        return all(answer.number > moment.answers_count for answer in followed)

    def call_back(self, role: LeaderState) -> None:
        """Evidence is wanted now: let nobody wait for a long poll to end."""
        for other in self.of(role):
            self._followers.call_back(other)
