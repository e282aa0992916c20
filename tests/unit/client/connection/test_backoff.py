from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import (
    BrokerUnavailable,
    CoordinatorNotAvailable,
    LeaderNotAvailable,
    MinilogError,
    NotEnoughReplicas,
    NotLeader,
    OffsetNotAvailable,
    Throttled,
)
from minilog_client.connection.backoff import DELAY_MAX_MS, DELAY_MIN_MS, Attempts, History, retry_delay_ms, wait_s


@pytest.mark.parametrize(
    ("error", "attempts", "elapsed_ms", "longest"),
    [
        (NotEnoughReplicas(""), 1, 0, 20),
        (NotEnoughReplicas(""), 2, 20, 40),
        (NotEnoughReplicas(""), 5, 300, 320),
        (NotEnoughReplicas(""), 60, 50_000, 1000),
        (NotLeader(""), 1, 0, 20),
        (NotLeader(""), 9, 300, 75),
        (BrokerUnavailable(""), 50, 100_000, 1000),
    ],
)
def test_delay_grows_to_a_second_and_is_jittered_to_half(
    error: MinilogError, attempts: int, elapsed_ms: int, longest: int
) -> None:
    delays = [retry_delay_ms(error, attempts, elapsed_ms, Random(seed)) for seed in range(300)]
    assert max(delays) == longest
    assert longest // 2 <= min(delays) < longest


def test_hunting_a_leader_adds_at_most_a_quarter_to_the_outage() -> None:
    random = Random(7)
    for outage_ms in (100, 300, 700, 2000):
        now_ms = attempts = 0
        while now_ms < outage_ms:
            attempts += 1
            now_ms += retry_delay_ms(NotLeader(""), attempts, now_ms, random)
        assert now_ms - outage_ms <= max(DELAY_MIN_MS, outage_ms // 4)


def test_a_broker_that_names_a_time_is_obeyed() -> None:
    delays = [retry_delay_ms(Throttled("", retry_after_s=3), 1, 0, Random(seed)) for seed in range(200)]
    assert 3000 <= min(delays) < 3200, "not before"
    assert 4300 < max(delays) <= 4500, "and not all at once"
    assert retry_delay_ms(Throttled("", retry_after_s="soon"), 1, 0, Random(1)) <= DELAY_MIN_MS
    assert 60_000 <= retry_delay_ms(Throttled("", retry_after_s=10**9), 1, 0, Random(1)) <= 90_000


@pytest.mark.parametrize("error", [LeaderNotAvailable, CoordinatorNotAvailable, OffsetNotAvailable])
def test_who_hunts_a_leader_does_not_wait_for_a_time_that_nobody_can_know(error: type[MinilogError]) -> None:
    """Brokers name a second with these too, for people."""
    assert retry_delay_ms(error("", retry_after_s=1), 1, 0, Random(1)) <= DELAY_MIN_MS


def test_the_last_try_comes_at_the_deadline() -> None:
    assert wait_s(70_000, 1000, 3500) == 2.5
    assert wait_s(1200, 1000, 3500) == 0.2
    assert wait_s(900, 1000, 3500) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=30))
def test_attempts_wait_unless_a_newer_leader_is_known(pauses: list[int]) -> None:
    attempts, now_ms = Attempts(), 0
    attempts.tried_epoch = 5
    assert attempts.may_try(now_ms, -1)
    for pause_ms in pauses:
        attempts.on_failure(NotLeader(""), now_ms, Random(1))
        assert not attempts.may_try(now_ms, 5)
        assert attempts.may_try(now_ms, 6)
        assert attempts.may_try(now_ms + DELAY_MAX_MS, -1)
        assert attempts.failing_for_ms(now_ms) == now_ms
        now_ms += pause_ms
    attempts.on_success()
    assert attempts.may_try(now_ms, -1)
    assert attempts.failing_for_ms(now_ms) == 0


def test_the_error_of_a_last_try_speaks_for_all_of_them() -> None:
    history = History()
    refused = NotLeader("moved", leader=3)
    history.on_failure(refused)
    assert history.told(refused) is refused, "nothing can have been done"
    history.on_failure(BrokerUnavailable("broke off", definite=False))
    told = history.told(refused)
    assert isinstance(told, NotLeader)
    assert (told.definite, told.info) == (False, {"leader": 3})
    assert "an earlier try" in told.detail
    assert history.told(told) is told
