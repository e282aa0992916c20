"""Places: who gives way to whom, as a table of small cases and against what must always hold."""

from __future__ import annotations

import random
from collections import Counter

from minilog.core.places import RESTED_MS, Entry, Places, client_of


class Holder:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.is_waited_for = True


def fill(places: Places[Holder], client: str, count: int, now_ms: int = 0, *, busy: bool = False) -> list[Holder]:
    holders = [Holder(f"{client}{n}") for n in range(count)]
    for holder in holders:
        assert places.enter(holder, client, now_ms) == (Entry.TAKEN, None)
        if busy:
            holder.is_waited_for = False
            places.work(holder)
    return holders


def test_the_one_that_has_waited_longest_gives_way_to_its_own_client() -> None:
    places: Places[Holder] = Places(8, 2)
    holders = fill(places, "a", 6)
    places.work(holders[0])
    places.rest(holders[0], 1)
    assert places.enter(Holder(), "a", RESTED_MS) == (Entry.TAKEN, holders[1])


def test_who_is_about_to_ask_again_does_not_give_way_to_its_own_client() -> None:
    places: Places[Holder] = Places(8, 2)
    fill(places, "a", 6)
    assert places.enter(Holder(), "a", RESTED_MS - 1) == (Entry.ON_TRIAL, None)


def test_of_all_clients_the_one_that_holds_the_most_gives_way() -> None:
    places: Places[Holder] = Places(8, 2)
    fill(places, "few", 2)
    many = fill(places, "many", 4)
    assert places.enter(Holder(), "new", 0) == (Entry.TAKEN, many[0])
    assert places.enter(Holder(), "few", RESTED_MS) == (Entry.TAKEN, many[1])


def test_nobody_takes_from_who_holds_less() -> None:
    places: Places[Holder] = Places(8, 2)
    fill(places, "many", 4, busy=True)
    fill(places, "few", 2)
    assert places.enter(Holder(), "many", 10**6).entry is Entry.ON_TRIAL


def test_who_has_got_all_that_it_waited_for_does_not_give_way() -> None:
    """Its request came whole since it was said to wait."""
    places: Places[Holder] = Places(8, 2)
    first, second, *_ = fill(places, "a", 6)
    first.is_waited_for = False
    assert places.enter(Holder(), "b", RESTED_MS) == (Entry.TAKEN, second)


def test_a_stranger_on_trial_gives_way_to_the_next() -> None:
    places: Places[Holder] = Places(8, 2)
    fill(places, "a", 6, busy=True)
    first, second, third = Holder(), Holder(), Holder()
    assert [places.enter(holder, "b", 0) for holder in (first, second)] == [(Entry.ON_TRIAL, None)] * 2
    assert places.enter(third, "b", 0) == (Entry.ON_TRIAL, first)
    assert not places.is_on_trial(first)


def test_with_reserved_places_that_all_work_a_newcomer_is_refused() -> None:
    places: Places[Holder] = Places(8, 2)
    fill(places, "a", 6, busy=True)
    for peer in (Holder(), Holder()):
        places.enter(peer, "b", 0)
        places.vouch(peer)
        peer.is_waited_for = False
    assert places.enter(Holder(), "b", 10**6) == (Entry.REFUSED, None)


def test_a_peer_that_found_an_open_place_moves_into_the_reserve() -> None:
    places: Places[Holder] = Places(8, 2)
    (peer,) = fill(places, "a", 1)
    places.vouch(peer)
    fill(places, "a", 6)
    places.rest(peer, 0)
    assert places.enter(Holder(), "b", 10**6).leaver is not peer


def test_at_most_a_quarter_is_reserved() -> None:
    places: Places[Holder] = Places(3, 256)
    fill(places, "a", 3)
    assert places.enter(Holder(), "a", 0).entry is Entry.REFUSED


def test_whatever_happens_the_books_are_right() -> None:
    rng = random.Random(7)
    places: Places[Holder] = Places(12, 3)
    held: dict[Holder, str] = {}
    for now_ms in range(0, 40_000, 10):
        holder = rng.choice([Holder(), *held])
        match rng.choice(("enter", "work", "rest", "vouch", "leave", "whole")):
            case "enter" if holder not in held:
                client = rng.choice("abc")
                entry, leaver = places.enter(holder, client, now_ms)
                if leaver is not None:
                    assert leaver.is_waited_for
                    del held[leaver]
                if entry is not Entry.REFUSED:
                    held[holder] = client
            case "work" if holder in held:
                holder.is_waited_for = False
                places.work(holder)
            case "rest" if holder in held:
                holder.is_waited_for = True
                places.rest(holder, now_ms)
            case "vouch" if holder in held:
                places.vouch(holder)
            case "leave":
                places.leave(holder)
                held.pop(holder, None)
            case "whole":
                holder.is_waited_for = False
        assert {*places.open, *places.reserved} == held.keys()
        assert len(places.open) <= 9
        assert len(places.reserved) <= 3
        assert places.open.counts + places.reserved.counts == Counter(held.values())


def test_a_client_is_an_address_or_a_network() -> None:
    assert client_of(("10.0.0.1", 4711)) == client_of(("::ffff:10.0.0.1", 4711, 0, 0)) == "10.0.0.1"
    assert client_of(("2001:db8::1", 1, 0, 0)) == client_of(("2001:db8::2:3", 1, 0, 0)) == "2001:db8::"
    assert client_of(("fe80::1%eth0", 1, 0, 2)) == "fe80::"
    assert client_of(None) == client_of("") == ""
