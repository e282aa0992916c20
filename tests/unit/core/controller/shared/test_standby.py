"""When a standby takes, and when it does not."""

from __future__ import annotations

from minilog.core.controller.shared.fence import Active, Term
from minilog.core.controller.shared.reading import Look
from minilog.core.controller.shared.standby import CHANGES_FREE, GRACE_MS, SILENT_MS, Standby
from minilog.core.controller.shared.transaction import Entry
from minilog.core.controller.told.controller_moves import moved

ME, OTHER = "http://me:1", "http://other:1"


def look(number: int, *, active: bool = True, active_mod: int = 0, url: str = OTHER) -> Look:
    """The term of that number, and whether its holder is named as the active one."""
    term = Term(number, "holder", url, f"n{number}")
    named = Active(url, number, f"n{number}") if active else None
    return Look(Entry("term", term.encode(), number), 0, named, active_mod, [], False)


def standby(now_ms: int = 0) -> Standby:
    return Standby(ME, now_ms)


def test_the_first_of_all_takes_at_once() -> None:
    one = standby()
    assert not one.takes(0), "nothing was seen yet"
    one.on_look(Look(None, 0, None, 0, [], False), 10)
    assert one.takes(10)


def test_a_port_that_refuses_is_proof() -> None:
    one = standby()
    one.on_look(look(1), 10)
    assert not one.takes(10)
    one.on_refused("n0")
    assert not one.takes(10), "that was another term"
    one.on_refused("n1")
    assert one.takes(10)
    assert "refuses" in one.why


def test_proof_is_of_one_term() -> None:
    one = standby()
    one.on_look(look(1), 10)
    one.on_refused("n1")
    one.on_look(look(2), 20)
    assert not one.takes(20)


def test_an_active_one_that_is_named_no_more_has_ended() -> None:
    one = standby()
    one.on_look(look(1), 10)
    one.on_look(look(1, active=False), 110)
    assert one.takes(110)


def test_who_never_begins_has_its_time() -> None:
    one = standby()
    one.on_look(look(1, active=False), 10)
    for now_ms in range(110, GRACE_MS, 100):
        one.on_look(look(1, active=False), now_ms)
        one.on_replaced("n1")
        assert not one.takes(now_ms)
    one.on_look(look(1, active=False), 10 + GRACE_MS)
    assert one.takes(10 + GRACE_MS)


def test_another_process_in_the_place_of_the_active_one_is_proof() -> None:
    one = standby()
    one.on_look(look(1), 10)
    one.on_replaced("n1")
    assert one.takes(10)


def test_who_says_nothing_anywhere_is_silent() -> None:
    one = standby()
    for now_ms in range(0, SILENT_MS, 100):
        one.on_look(look(1, active_mod=1), now_ms)
        assert not one.takes(now_ms)
    one.on_look(look(1, active_mod=1), SILENT_MS)
    assert one.takes(SILENT_MS)


def test_who_says_something_somewhere_is_not() -> None:
    here, there = standby(), standby()
    for now_ms in range(0, 10 * SILENT_MS, 100):
        here.on_look(look(1), now_ms)
        here.on_answer("n1", now_ms)
        there.on_look(look(1, active_mod=1 + now_ms // 500), now_ms)
        assert not here.takes(now_ms)
        assert not there.takes(now_ms)


def test_who_stood_still_itself_has_not_listened() -> None:
    one = standby()
    one.on_look(look(1, active_mod=1), 0)
    one.on_look(look(1, active_mod=1), 20_000)
    assert not one.takes(20_000)


def test_who_was_the_holder_takes_again() -> None:
    one = standby()
    one.on_look(look(1, url=ME), 10)
    assert one.takes(10)
    assert one.holder_url == "", "it does not ask itself"


def test_those_that_fight_pause_longer_and_longer() -> None:
    one, now_ms, pauses = standby(), 0, []
    for number in range(1, CHANGES_FREE + 6):
        one.on_look(look(number), now_ms)
        one.on_refused(f"n{number}")
        began_ms = now_ms
        while not one.takes(now_ms):
            now_ms += 100
        pauses.append(now_ms - began_ms)
        now_ms += 10
    assert pauses[:CHANGES_FREE] == [0] * CHANGES_FREE
    assert pauses[-1] > pauses[-2] > 0


def test_what_a_move_is_for_people() -> None:
    one = standby()
    assert one.move() is None
    one.on_look(Look(None, 0, None, 0, [], False), 10)
    assert one.move() is None, "nobody has decided before"
    one.on_look(look(1), 100)
    one.on_answer("n1", 250)
    one.on_refused(one.holder_nonce)
    move = one.move()
    assert move is not None
    told = moved(move, "http://two:1", 7, 900, 5_000)
    assert told.at_ms == 5_000
    assert told.sentence == (
        f"the controller at http://two:1 decides now, in controller epoch 7, {900 - move.heard_ms} ms after it had last "
        f"heard the one at {OTHER}: its port refuses connections"
    )
    assert told.facts["from_url"] == OTHER
    assert moved(move, "http://two:1", 7, 0, 0).facts["absent_ms"] == 0
