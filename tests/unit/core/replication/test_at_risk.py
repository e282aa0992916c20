"""What was acknowledged without being committed, by acks: what would be lost with the leader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog.core.replication import at_risk
from minilog.core.replication.at_risk import EARLIER, AtRisk
from minilog.wire.messages import ACKS_ALL
from tests.unit.core.builders import LAG_MAX_MS, fetched, leader_of, log_of, memory_log, partition_state, produce


def test_what_only_the_leader_holds_is_at_risk_until_it_is_committed() -> None:
    leader = leader_of(partition_state())
    produce(leader, b"1", b"2", acks=1)
    produce(leader, b"3", acks=ACKS_ALL)
    produce(leader, b"4", acks=0)
    assert leader.records_at_risk == {1: 2, 0: 1}
    for follower in (2, 3):
        fetched(leader, follower, 1)
    leader.advance(0, LAG_MAX_MS)
    assert leader.records_at_risk == {1: 1, 0: 1}
    for follower in (2, 3):
        fetched(leader, follower, 4)
    leader.advance(0, LAG_MAX_MS)
    assert leader.records_at_risk == {}


def test_what_is_not_answered_yet_is_not_at_risk() -> None:
    """acks=1 is answered when the leader's disk has it, acks=2 when a follower has it, too."""
    leader = leader_of(partition_state())
    produce(leader, b"1", acks=1, synced=False)
    produce(leader, b"2", acks=2, synced=False)
    assert leader.records_at_risk == {}
    memory_log(leader).sync()
    assert leader.records_at_risk == {1: 1}
    fetched(leader, 2, 2)
    assert leader.records_at_risk == {1: 1, 2: 1}


def test_what_an_earlier_leadership_left_uncommitted_is_at_risk_whoever_was_promised_it() -> None:
    log = log_of((4, 5), high_watermark=2)
    leader = leader_of(partition_state(), log)
    assert leader.records_at_risk == {EARLIER: 3}
    for follower in (2, 3):
        fetched(leader, follower, 5)
    leader.advance(0, LAG_MAX_MS)
    assert leader.records_at_risk == {}


def test_writes_of_one_level_are_one_range() -> None:
    found = AtRisk(0, 0)
    for offset in range(100_000):
        found.note(offset, offset + 1, 1)
    assert len(found) == 1
    assert found.count(0, lambda acks: 2**60) == {1: 100_000}


def test_levels_that_take_turns_while_nothing_is_committed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_risk, "RANGES_MAX", 10)
    found = AtRisk(0, 0)
    for offset in range(1000):
        found.note(offset, offset + 1, offset % 2)
    assert len(found) == 10
    assert sum(found.count(0, lambda acks: 2**60).values()) == 1000


@given(st.lists(st.tuples(st.sampled_from((ACKS_ALL, 0, 1)), st.integers(1, 5), st.integers(0, 20))))
def test_it_counts_what_a_list_of_all_records_would(steps: list[tuple[int, int, int]]) -> None:
    found, records, high_watermark = AtRisk(0, 0), list[int](), 0
    for acks, count, commits in steps:
        found.note(len(records), len(records) + count, acks)
        records += [acks] * count
        high_watermark = max(high_watermark, min(commits, len(records)))
        found.advance(high_watermark)
        left = [acks for acks in records[high_watermark:] if acks != ACKS_ALL]
        assert found.count(high_watermark, lambda acks: 2**60) == {acks: left.count(acks) for acks in set(left)}
