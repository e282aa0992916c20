"""What ails a broker is said while there is evidence, and for a while after the last of it (R43)."""

from __future__ import annotations

from minilog.config import BrokerSettings
from minilog.core.broker.standing.ailment import REMEMBERED_MS, SLUGGISH_MS, STREAK_GAP_MS, STREAK_MS, Ailment
from tests.unit.core.memory_log import MemoryStore

TICK_MS = 100


def ailment() -> Ailment:
    return Ailment(BrokerSettings(broker_id=1, data_dir="data", controller_url="http://c:9093"), MemoryStore())


def syncs(ailing: Ailment, age_ms: int, begin_ms: int, end_ms: int, every_ms: int = TICK_MS) -> None:
    """The oldest sync is seen to be so old, that often."""
    for now_ms in range(begin_ms, end_ms + 1, every_ms):
        ailing.flush_age_ms = age_ms
        ailing.look(now_ms)


def kinds(ailing: Ailment, now_ms: int) -> list[str]:
    return [condition.kind for condition in ailing.conditions(now_ms)]


def test_slow_syncs_are_said_when_they_come_again_and_again() -> None:
    ailing = ailment()
    syncs(ailing, SLUGGISH_MS, 0, STREAK_MS - TICK_MS)
    assert kinds(ailing, STREAK_MS - TICK_MS) == []
    syncs(ailing, SLUGGISH_MS, STREAK_MS, STREAK_MS)
    assert kinds(ailing, STREAK_MS) == ["sync_slow"]
    assert not ailing.ails(STREAK_MS), "it leads on: the others may have the same disk"
    assert kinds(ailing, STREAK_MS + REMEMBERED_MS - 1) == ["sync_slow"]
    assert kinds(ailing, STREAK_MS + REMEMBERED_MS) == []


def test_a_slow_sync_now_and_then_is_none() -> None:
    ailing = ailment()
    syncs(ailing, SLUGGISH_MS, 0, 10 * STREAK_MS, every_ms=STREAK_GAP_MS)
    assert kinds(ailing, 10 * STREAK_MS) == []
    syncs(ailing, SLUGGISH_MS - 1, 0, 10 * STREAK_MS)
    assert kinds(ailing, 10 * STREAK_MS) == []


def test_a_stuck_sync_is_the_worse_of_the_two() -> None:
    ailing = ailment()
    syncs(ailing, 3000, 0, STREAK_MS)
    assert kinds(ailing, STREAK_MS) == ["disk_slow"]
    assert ailing.ails(STREAK_MS)
