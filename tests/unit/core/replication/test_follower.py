"""Following: where logs part and how they are joined again (R1, R2), and that nothing inexact is
ever written (R6)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.errors import CorruptBatch, DiskFull, OffsetOutOfRange, RecordTooLarge
from minilog.wire.batch import filler
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import NOTHING, ReplicaFetchResult
from tests.unit.core.builders import (
    TOPIC,
    TOPIC_ID,
    batch_at,
    extend,
    follower_of,
    leader_of,
    log_of,
    memory_log,
    partition_state,
    runs_of,
)
from tests.unit.core.memory_log import MemoryLog

LEADER_EPOCH = 9
REFUSED = (CorruptBatch, RecordTooLarge)
Runs = list[tuple[int, int]]


def pair(leader_log: MemoryLog, follower_log: MemoryLog) -> tuple[LeaderState, FollowerState]:
    state = partition_state(leader_epoch=LEADER_EPOCH)
    return leader_of(state, leader_log), follower_of(state, follower_log)


def join(leader: LeaderState, follower: FollowerState) -> int:
    """Fetch and truncate until the leader sees no divergence; how often the follower had to cut."""
    for cuts in range(20):
        memory_log(follower).sync()
        diverging = leader.on_fetch(2, 7, follower.next_fetch(), 0)
        if diverging is None:
            return cuts
        before = follower.log.end_offset
        follower.truncate(*diverging)
        assert follower.log.end_offset < before, "each cut is progress"
    raise AssertionError("never converges")


def common(one: MemoryLog, other: MemoryLog) -> int:
    """Second version: how many leading batches are the same, found by comparing bytes."""
    same = 0
    for mine, theirs in zip(one.content(), other.content(), strict=False):
        if mine != theirs:
            break
        same += 1
    return same


# --- the seven cases of R2 ------------------------------------------------------------------------

CASES: dict[str, tuple[Runs, Runs, Runs]] = {
    # leader, follower, follower after the cut
    "behind, same epoch": ([(1, 10)], [(1, 6)], [(1, 6)]),
    "behind a newer epoch": ([(1, 10), (2, 5)], [(1, 6)], [(1, 6)]),
    "ahead, same epoch": ([(1, 10)], [(1, 14)], [(1, 10)]),
    "ahead with an extra epoch": ([(1, 10)], [(1, 10), (2, 3)], [(1, 10)]),
    "fork with a different epoch": ([(1, 5), (3, 5)], [(1, 8), (2, 4)], [(1, 5)]),
    "fork, leader has more of the old epoch": ([(1, 10), (3, 2)], [(1, 6), (2, 5)], [(1, 6)]),
    "no epoch in common": ([(3, 5)], [(1, 4)], []),
    # and what their combinations make
    "equal": ([(1, 3), (4, 2)], [(1, 3), (4, 2)], [(1, 3), (4, 2)]),
    "empty follower": ([(1, 3)], [], []),
    "empty leader": ([], [(1, 3)], []),
    "both empty": ([], [], []),
    "several forks": ([(1, 2), (4, 3), (6, 2)], [(1, 2), (2, 2), (3, 2), (5, 2)], [(1, 2)]),
    "follower knows newer epochs only": ([(1, 5)], [(2, 3)], []),
    "ahead of an older part": ([(1, 3), (5, 1)], [(1, 5), (2, 1)], [(1, 3)]),
    "extra epochs on top of a longer common one": ([(1, 4)], [(1, 3), (2, 1), (3, 9)], [(1, 3)]),
}


@pytest.mark.parametrize(("leader", "follower", "expected"), CASES.values(), ids=CASES)
def test_a_follower_cuts_exactly_where_the_logs_part(leader: Runs, follower: Runs, expected: Runs) -> None:
    leading, following = pair(log_of(*leader), log_of(*follower))
    join(leading, following)
    assert runs_of(memory_log(following)) == expected
    assert leading.followers[2].position == following.log.end_offset


def test_two_rounds_when_epochs_interleave() -> None:
    leading, following = pair(log_of((1, 2), (4, 3)), log_of((1, 2), (2, 2), (3, 2), (5, 2)))
    assert join(leading, following) == 2


def test_a_follower_never_cuts_to_its_high_watermark() -> None:
    leading, following = pair(log_of((1, 10)), log_of((1, 10), high_watermark=4))
    join(leading, following)
    assert following.log.end_offset == 10, "the tail may be committed without its being told (R1)"


def test_a_cut_below_the_high_watermark_takes_it_along() -> None:
    leading, following = pair(log_of((3, 5)), log_of((1, 4), high_watermark=4))
    following.caught_up_ms = 1000
    join(leading, following)
    assert following.high_watermark == 0
    assert following.lag_ms(1000) is None, "what it showed it does not show any more"


@pytest.mark.parametrize(
    ("leader", "follower", "start_offset", "end_offset"),
    [
        ([(3, 5)], [(3, 12)], 10, 12),
        ([(3, 5)], [(3, 20)], 10, 15),
    ],
)
def test_a_leader_whose_log_begins_later(leader: Runs, follower: Runs, start_offset: int, end_offset: int) -> None:
    leading, following = pair(log_of(*leader, start_offset=start_offset), log_of(*follower))
    join(leading, following)
    assert following.log.end_offset == end_offset


def test_a_follower_that_diverges_below_the_leaders_start_is_told_to_begin_anew() -> None:
    """The common part was deleted, so nothing below the start can be compared: only the epoch that
    ended there is known."""
    leading, following = pair(log_of((3, 10), (5, 5), high_watermark=10), log_of((4, 10)))
    leading.log.advance_start(10)
    with pytest.raises(OffsetOutOfRange, match="10 to 15 after epoch 3"):
        join(leading, following)
    leading, following = pair(log_of((3, 10), (5, 5), high_watermark=10), log_of((3, 10)))
    leading.log.advance_start(10)
    assert join(leading, following) == 0


def test_a_follower_that_begins_after_the_divergence_begins_anew_there() -> None:
    leading, following = pair(log_of((3, 30), (6, 20)), log_of((5, 30), start_offset=50))
    join(leading, following)
    assert (following.log.start_offset, following.log.end_offset) == (30, 30)


# --- any history of leaders -----------------------------------------------------------------------


def replay(steps: list[tuple[int, int, int, int]]) -> list[MemoryLog]:
    """Three logs that leaders of growing epochs have written, each copied only in part to the
    others."""
    logs = [MemoryLog(), MemoryLog(), MemoryLog()]
    for epoch, (leader, count, copier, copied) in enumerate(steps, 1):
        extend(logs[leader], epoch, count)
        if copier != leader:
            source, target = logs[leader], logs[copier]
            same = common(source, target)
            target.batches = source.batches[: min(len(source.batches), same + copied)]
            target.sync()
    return logs


lives = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)), max_size=8)


@given(lives)
@settings(deadline=None, max_examples=60)
def test_after_the_cut_the_follower_is_the_longest_common_prefix(steps: list[tuple[int, int, int, int]]) -> None:
    """R2. Compared byte by byte: nothing that differs stays, and nothing that is the same is
    cut."""
    leader_log, follower_log, _ = replay(steps)
    expected = common(leader_log, follower_log)
    leading, following = pair(leader_log, follower_log)
    join(leading, following)
    assert follower_log.content() == leader_log.content()[:expected]


# --- exactness (R6) -------------------------------------------------------------------------------


def result(
    batches: bytes,
    *,
    fetch_offset: int = 3,
    high_watermark: int = 0,
    diverging: tuple[int, int] | None = None,
    is_exact: bool = True,
) -> ReplicaFetchResult:
    view = memoryview(batches) if batches else NOTHING
    at = LEADER_EPOCH, fetch_offset, high_watermark
    return ReplicaFetchResult(TOPIC, TOPIC_ID, 0, *at, 0, is_exact, view, diverging)


def following(*runs: tuple[int, int], **settings: str) -> FollowerState:
    state = partition_state(leader_epoch=LEADER_EPOCH)
    return follower_of(state, log_of(*(runs or ((4, 3),))), **settings)


GOOD = batch_at(3, 5, b"good").tobytes()
INEXACT: dict[str, bytes] = {
    "a gap": batch_at(4, 5).tobytes(),
    "an overlap": batch_at(2, 5).tobytes(),
    "a gap after a good batch": GOOD + batch_at(5, 5).tobytes(),
    "the same batch twice": GOOD + GOOD,
    "an epoch going back": batch_at(3, 3).tobytes(),
    "an epoch going back after a good batch": GOOD + batch_at(4, 4).tobytes(),
    "an epoch above the leader's": batch_at(3, LEADER_EPOCH + 1).tobytes(),
    "no epoch at all": batch_at(3, -1).tobytes(),
    "a bad CRC": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "a bad CRC after a good batch": GOOD + batch_at(4, 5).tobytes()[:-1] + b"\xff",
    "a cut header": GOOD[:40],
    "a cut payload": GOOD[:-1],
    "garbage after a good batch": GOOD + b"garbage",
    "a length beyond all limits": GOOD[:8] + b"\x7f\xff\xff\xff" + GOOD[12:],
}


@pytest.mark.parametrize("batches", INEXACT.values(), ids=INEXACT)
def test_anything_inexact_is_dropped_whole(batches: bytes) -> None:
    follower = following()
    before = memory_log(follower).content()
    with pytest.raises(REFUSED):
        follower.on_fetched(result(batches, high_watermark=9), 0)
    assert memory_log(follower).content() == before
    assert follower.high_watermark == 0, "nothing of the reply is believed"


def test_any_single_bit_that_flips_on_the_way_is_noticed() -> None:
    follower = following((LEADER_EPOCH, 3))
    sound = batch_at(3, LEADER_EPOCH, b"value").tobytes()
    before = memory_log(follower).content()
    for bit in range(8 * len(sound)):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(REFUSED):
            follower.on_fetched(result(bytes(flipped)), 0)
    assert memory_log(follower).content() == before
    follower.on_fetched(result(sound), 0)
    assert follower.log.end_offset == 4


def test_exact_batches_are_written_as_they_are() -> None:
    follower = following()
    more = batch_at(4, LEADER_EPOCH, b"x", b"y").tobytes()
    follower.on_fetched(result(GOOD + more), 0)
    assert [content for _, _, content in memory_log(follower).content()[3:]] == [GOOD, more]
    assert follower.log.end_offset == 6


@pytest.mark.parametrize(("told", "noted"), [(20, 20), (-1, 15)], ids=["told", "a leader that does not tell"])
def test_a_copy_of_what_was_cleaned_knows_how_far_that_was_swept(told: int, noted: int) -> None:
    role = following()
    whole = batch_at(3, 5, b"a", b"b", b"c")
    role.on_fetched(replace(result(whole.tobytes(), high_watermark=15), swept_end=told), 0)
    assert role.log.swept_end == 0, "nothing is missing from this one"
    memory_log(role).sync()
    cleaned = filler(batch_at(6, 5, b"a", b"b", b"c"), 6).tobytes()
    role.on_fetched(replace(result(cleaned, fetch_offset=6, high_watermark=15), swept_end=told), 0)
    assert (role.log.end_offset, role.log.swept_end) == (9, noted)
    memory_log(role).sync()
    assert role.next_fetch().fetch_offset == 9, "in the epoch in which it was told it goes on"


def test_a_full_disk_writes_nothing_and_believes_nothing() -> None:
    follower = following()
    memory_log(follower).room = 0
    with pytest.raises(DiskFull):
        follower.on_fetched(result(GOOD, high_watermark=4), 0)
    assert (follower.log.end_offset, follower.high_watermark) == (3, 0)


def test_a_diverging_answer_truncates_and_teaches_nothing_else() -> None:
    follower = following()
    follower.on_fetched(result(b"", high_watermark=3, diverging=(4, 1)), 0)
    assert (follower.log.end_offset, follower.high_watermark) == (1, 0)


# --- fetching -------------------------------------------------------------------------------------


def test_a_fetch_says_how_far_this_log_reaches_and_in_which_epoch() -> None:
    fetch = following((2, 1), (4, 2)).next_fetch()
    assert (fetch.topic, fetch.topic_id, fetch.partition) == (TOPIC, TOPIC_ID, 0)
    assert (fetch.leader_epoch, fetch.fetch_offset, fetch.last_epoch) == (LEADER_EPOCH, 3, 4)


@pytest.mark.parametrize(("flush_policy", "must"), [("commit", True), ("interval", False), ("never", False)])
def test_a_fetch_must_not_acknowledge_what_is_not_durable(flush_policy: str, must: bool) -> None:
    follower = following(flush_policy=flush_policy)
    assert not follower.must_flush
    follower.on_fetched(result(GOOD), 0)
    assert follower.must_flush is must
    if must:
        with pytest.raises(AssertionError):
            follower.next_fetch()
        memory_log(follower).sync()
    assert follower.next_fetch().fetch_offset == 4


# --- the high watermark it shows (R7, R12) and how old it is --------------------------------------


@pytest.mark.parametrize(("told", "expected"), [(0, 0), (2, 2), (3, 3), (99, 3)])
def test_its_high_watermark_is_the_leaders_up_to_its_own_end(told: int, expected: int) -> None:
    follower = following()
    follower.on_fetched(result(b"", high_watermark=told), 0)
    assert follower.high_watermark == expected


def test_its_high_watermark_never_goes_back() -> None:
    follower = following()
    for told in (2, 1, 3, 0):
        follower.on_fetched(result(b"", high_watermark=told), 0)
    assert follower.high_watermark == 3


def test_how_stale_a_read_may_be() -> None:
    follower = following()
    assert follower.lag_ms(500) is None, "it has never been told"
    follower.on_fetched(result(b"", high_watermark=9), 1000)
    assert follower.lag_ms(1000) is None, "it lacks what was committed then"
    assert follower.lag_records == 6
    follower.on_fetched(result(b"", high_watermark=3), 2000)
    assert (follower.lag_ms(2000), follower.lag_ms(2700)) == (0, 700)
    assert follower.lag_records == 0


def test_a_floor_of_the_high_watermark_shows_records_and_says_nothing_of_how_stale_they_are() -> None:
    """R7: a new leader's floor may lie below what was committed and read elsewhere long ago."""
    follower = following()
    follower.quiet_ms = lambda _: 5000
    follower.on_fetched(result(b"", high_watermark=3, is_exact=False), 1000)
    assert (follower.high_watermark, follower.lag_ms(5000)) == (3, None)
    follower.on_fetched(result(b"", high_watermark=3), 2000)
    assert follower.lag_ms(5000) == 0, "now it is the true one, and has not moved since"
    follower.on_fetched(result(b"", high_watermark=3, is_exact=False), 3000)
    assert follower.lag_ms(5000) == 3000, "silence after a floor is no evidence; what was known stays known"


@pytest.mark.parametrize(
    ("high_watermark", "quiet_ms", "lag_ms"), [(3, None, 4000), (3, 3000, 2000), (3, 500, 4000), (9, 3000, 4000)]
)
def test_silence_is_evidence_only_for_who_holds_all_that_was_committed(
    high_watermark: int, quiet_ms: int | None, lag_ms: int
) -> None:
    follower = following()
    follower.quiet_ms = lambda _: quiet_ms
    follower.on_fetched(result(b"", high_watermark=3), 1000)
    follower.on_fetched(result(b"", high_watermark=high_watermark), 900)
    assert follower.lag_ms(5000) == lag_ms


def test_an_answer_that_speaks_of_an_earlier_time_makes_nothing_older() -> None:
    follower = following()
    follower.on_fetched(result(b"", high_watermark=3), 2000)
    follower.on_fetched(result(b"", high_watermark=3), -500)
    assert follower.lag_ms(2000) == 0
    assert follower.lag_ms(1000) == 0, "never less than nothing"


def test_a_new_leader_or_epoch_is_a_new_start() -> None:
    follower = follower_of(partition_state(leader=NO_LEADER, leader_epoch=6), log_of((4, 3), high_watermark=2))
    assert follower.lag_ms(0) is None
    assert follower.high_watermark == 2
