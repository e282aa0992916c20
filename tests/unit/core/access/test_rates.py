"""How much a principal may ask for in a second."""

from __future__ import annotations

from minilog.core.access.principal import Principal, Quota
from minilog.core.access.rates import Rates


def test_so_many_requests_a_second_and_no_more() -> None:
    rates, principal = Rates(), Principal("a", quota=Quota(requests_per_second=10))
    waits = [rates.arrive(principal, 0) for _ in range(11)]
    assert [standing.wait_ms for standing in waits if standing is not None] == [0] * 10 + [101]
    later = rates.arrive(principal, 101)
    assert later is not None
    assert not later.wait_ms


def test_a_debt_of_bytes_is_paid_by_waiting() -> None:
    rates, principal = Rates(), Principal("a", quota=Quota(bytes_per_second=1000))
    assert rates.arrive(principal, 0) is not None
    rates.spend(principal, 3000, 0)
    in_debt = rates.arrive(principal, 0)
    assert in_debt is not None
    assert in_debt.wait_ms == 2001
    paid = rates.arrive(principal, 2001)
    assert paid is not None
    assert not paid.wait_ms


def test_nobody_pays_for_another() -> None:
    rates = Rates()
    one, other = (Principal(name, quota=Quota(requests_per_second=1)) for name in "ab")
    assert [rates.arrive(who, 0).wait_ms for who in (one, other)] == [0, 0]  # type: ignore[union-attr]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rates, principal = Rates(), Principal("a", quota=Quota(requests_per_second=1))
    rates.arrive(principal, 1000)
    back = rates.arrive(principal, 0)
    assert back is not None
    assert back.wait_ms


def test_without_a_quota_nothing_is_counted() -> None:
    assert Rates().arrive(Principal("a"), 0) is None
