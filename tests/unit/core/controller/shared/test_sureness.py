"""How long a controller believes that it decides (R124)."""

from __future__ import annotations

from minilog.core.controller.shared.sureness import DEAF_MS, SURE_MS, Sureness


def test_it_is_sure_for_so_long_from_when_it_has_asked() -> None:
    sureness = Sureness()
    assert not sureness.is_sure(1)
    sureness.on_held(1000)
    assert sureness.is_sure(1000 + SURE_MS - 1)
    assert not sureness.is_sure(1000 + SURE_MS)


def test_an_answer_to_an_earlier_question_takes_nothing_back() -> None:
    sureness = Sureness()
    sureness.on_held(1000)
    sureness.on_held(900)
    assert sureness.is_sure(1000 + SURE_MS - 1)


def test_others_that_do_not_hear_etcd_either_are_believed_and_those_that_do_are_not() -> None:
    sureness = Sureness()
    sureness.on_standby(DEAF_MS - 1, 5000)
    assert not sureness.is_sure(5000)
    sureness.on_standby(DEAF_MS, 5000)
    assert sureness.is_sure(5000)
    assert not sureness.is_sure(5000 + SURE_MS)
