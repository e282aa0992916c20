"""How often an address may show what is nobody's, against a naive second version."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minilog.core.access.failed_logins import ADDRESSES_MAX, MINUTE_MS, FailedLogins


def test_beyond_the_bound_an_address_waits_for_the_end_of_its_minute() -> None:
    logins = FailedLogins(3)
    assert [logins.fail("192.0.2.1", now_ms) for now_ms in (0, 10, 20)] == [0, 0, 0]
    assert logins.fail("192.0.2.1", 30) == MINUTE_MS - 30
    assert logins.fail("192.0.2.2", 30) == 0, "others are told as before"
    assert logins.fail("192.0.2.1", MINUTE_MS - 1) == 1
    assert logins.fail("192.0.2.1", MINUTE_MS) == 0


def test_no_bound_counts_nothing() -> None:
    logins = FailedLogins(0)
    assert {logins.fail("192.0.2.1", now_ms) for now_ms in range(1000)} == {0}
    assert len(logins) == 0


def test_a_machine_with_many_addresses_is_one() -> None:
    logins = FailedLogins(1)
    assert logins.fail("2001:db8:1:2::1", 0) == 0
    assert logins.fail("2001:db8:1:2:ffff::9%eth0", 0) == MINUTE_MS
    assert logins.fail("2001:db8:1:3::1", 0) == 0
    assert logins.fail("192.0.2.1", 0) == 0
    assert logins.fail("::ffff:192.0.2.1", 0) == MINUTE_MS


def test_memory_is_bounded_whoever_comes() -> None:
    logins = FailedLogins(1)
    for number in range(ADDRESSES_MAX + 500):
        assert logins.fail(f"host-{number}", 0) == 0
    assert len(logins) == ADDRESSES_MAX
    assert logins.fail(f"host-{ADDRESSES_MAX + 499}", 1) > 0
    assert logins.fail("host-0", 1) == 0, "the oldest was forgotten"
    logins.fail("later", MINUTE_MS + 1)
    assert len(logins) == 1, "minutes that are over are forgotten"


Failures = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40_000)), max_size=60)


@given(Failures, st.integers(1, 4))
def test_it_is_a_count_in_the_minute_from_the_first_failure(failures: list[tuple[str, int]], bound: int) -> None:
    logins, now_ms, naive = FailedLogins(bound), 0, dict[str, list[int]]()
    for address, later_ms in failures:
        now_ms += later_ms
        seen = naive.setdefault(address, [])
        if seen and now_ms - seen[0] >= MINUTE_MS:
            seen.clear()
        wanted = seen[0] + MINUTE_MS - now_ms if len(seen) >= bound else 0
        if not wanted:
            seen.append(now_ms)
        assert logins.fail(address, now_ms) == wanted
