"""How long to wait before trying again. Pure: attempts, elapsed time and a random number in,
milliseconds out.

Two schedules, because two kinds of failure want opposite things:
* a broker that refuses (throttled, overloaded, too few replicas, no room) is helped by patience: 20
  ms, doubling to 1 s;
* a leader that is gone comes back elsewhere within some hundred ms, and every ms of waiting past
  that moment is unavailability the caller sees: wait a quarter of the time already lost, between 20
  ms and 1 s, so that the delay adds at most a quarter to the outage (doubling would add up to the
  whole of it again).
Both are jittered down to half, so that many clients do not return in step. A broker that refuses
may name a time (``Retry-After``). It is obeyed, and jittered up by a half. Who hunts a leader does
not wait for that: the time is for those who cannot know when there is one.
"""

from __future__ import annotations

from random import Random
from typing import Final

from minilog.errors import (
    BrokerUnavailable,
    CoordinatorNotAvailable,
    FencedLeaderEpoch,
    InconsistentTopicId,
    LeaderNotAvailable,
    LeadershipLost,
    MinilogError,
    NotCoordinator,
    NotLeader,
    OffsetNotAvailable,
    TimedOut,
    UnknownLeaderEpoch,
    UnknownTopic,
)

DELAY_MIN_MS: Final = 20
DELAY_MAX_MS: Final = 1000
_DOUBLINGS_MAX: Final = 6
_RETRY_AFTER_MAX_S: Final = 60

_HUNTING: Final = (
    NotLeader,
    LeaderNotAvailable,
    LeadershipLost,
    FencedLeaderEpoch,
    UnknownLeaderEpoch,
    OffsetNotAvailable,
    BrokerUnavailable,
    TimedOut,
    UnknownTopic,
    InconsistentTopicId,
    NotCoordinator,
    CoordinatorNotAvailable,
)


def is_hunting(error: MinilogError) -> bool:
    """Does ``error`` mean that the leader must be found again, so that fresh metadata may help at
    once?"""
    return isinstance(error, _HUNTING)


class Attempts:
    """The failed tries in a row of one partition, and when the next one may be made."""

    __slots__ = ("failing_since_ms", "last_error", "retry_at_ms", "tried_epoch", "tries")

    def __init__(self) -> None:
        self.tries = 0
        self.failing_since_ms = 0
        self.retry_at_ms = 0
        self.tried_epoch = -1
        self.last_error: MinilogError | None = None

    def may_try(self, now_ms: int, leader_epoch: int) -> bool:
        """Nothing failed, the delay has passed, or a leader newer than the one that failed is
        known."""
        return self.tries == 0 or now_ms >= self.retry_at_ms or leader_epoch > self.tried_epoch

    def on_failure(self, error: MinilogError, now_ms: int, random: Random) -> None:
        if self.tries == 0:
            self.failing_since_ms = now_ms
        self.tries += 1
        self.last_error = error
        self.retry_at_ms = now_ms + retry_delay_ms(error, self.tries, now_ms - self.failing_since_ms, random)

    def on_success(self) -> None:
        self.tries = 0
        self.last_error = None

    def failing_for_ms(self, now_ms: int) -> int:
        return now_ms - self.failing_since_ms if self.tries else 0


def retry_delay_ms(error: MinilogError, attempts: int, elapsed_ms: int, random: Random) -> int:
    """Wait before try ``attempts + 1``. ``elapsed_ms`` is the time since the first of the failures
    in a row."""
    assert attempts >= 1, "only a failed try is repeated"
    if is_hunting(error):
        delay = min(max(elapsed_ms // 4, DELAY_MIN_MS), DELAY_MAX_MS)
    else:
        delay = min(DELAY_MIN_MS << min(attempts - 1, _DOUBLINGS_MAX), DELAY_MAX_MS)
    jittered = delay - random.randrange(delay // 2 + 1)
    named_ms = 0 if is_hunting(error) else retry_after_ms(error)
    return max(jittered, named_ms + random.randrange(named_ms // 2 + 1)) if named_ms else jittered


def wait_s(until_ms: int, now_ms: int, deadline_ms: int) -> float:
    """How long to sleep until the next try, which comes at the deadline at the latest."""
    return max(0, min(until_ms, deadline_ms) - now_ms) / 1000


def retry_after_ms(error: MinilogError) -> int:
    """What the broker itself asked for (``retry_after_s`` in the error's info), 0 when it did
    not."""
    wanted = error.info.get("retry_after_s", 0)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        return 0
    return int(min(max(wanted, 0), _RETRY_AFTER_MAX_S) * 1000)


class History:
    """What is known of a request that is tried several times: whether an earlier try may have been
    carried out.

    An error of the last try alone would speak for that try only. A refusal often is the answer to
    an earlier try that was carried out, and whose answer was lost."""

    __slots__ = ("maybe_done",)

    def __init__(self) -> None:
        self.maybe_done = False

    def on_failure(self, error: MinilogError) -> None:
        self.maybe_done = self.maybe_done or not error.definite

    def told(self, error: MinilogError) -> MinilogError:
        """``error`` as one of the whole request: not definite if any of its tries may have been
        carried out."""
        if not self.maybe_done or not error.definite:
            return error
        whole = type(error)(f"{error.detail} (an earlier try was not answered and may have been carried out)")
        whole.definite = False
        whole.info.update(error.info)
        return whole
