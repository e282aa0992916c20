"""Which of several controllers a broker asks next, and when."""

from __future__ import annotations

from minilog.core.broker.standing.controllers import Controllers
from minilog.errors import BrokerUnavailable, InvalidRequest, MinilogError, NotController

A, B, C = "http://a:1", "http://b:1", "http://c:1"


def refused() -> MinilogError:
    return BrokerUnavailable("refused", definite=True, reason="refused")


def stands_by(url: str = "") -> MinilogError:
    return NotController("it stands by", standby=True, url=url, epoch=1)


def test_one_controller_is_asked_as_ever() -> None:
    controllers = Controllers([A])
    assert controllers.on_failed(refused()) is None
    assert controllers.url == A


def test_the_next_is_asked_soon_and_from_the_second_round_on_later() -> None:
    controllers = Controllers([A, B, C])
    asked, pauses = [controllers.url], []
    for _ in range(12):
        pauses.append(controllers.on_failed(refused()))
        asked.append(controllers.url)
    assert asked[:5] == [A, B, C, A, B]
    assert pauses == [20, 20, 20, 20, 20, 40, 40, 40, 80, 80, 80, 160]
    controllers.on_answered()
    assert controllers.on_failed(refused()) == 20


def test_a_standby_is_believed_about_those_of_the_settings_alone() -> None:
    controllers = Controllers([A, B, C])
    controllers.on_failed(stands_by(C))
    assert controllers.url == C
    controllers.on_failed(stands_by("http://evil:1"))
    assert controllers.url == A


def test_a_standby_that_names_the_dead_one_does_not_send_us_back() -> None:
    controllers = Controllers([A, B, C])
    controllers.on_failed(refused())
    assert controllers.url == B
    controllers.on_failed(stands_by(A))
    assert controllers.url == C


def test_who_has_just_begun_to_decide_is_asked_again() -> None:
    controllers = Controllers([A, B])
    assert controllers.on_failed(NotController("it has just started")) is None
    assert controllers.on_failed(InvalidRequest("no")) is None
    assert controllers.url == A


def test_one_whose_epoch_is_over_is_left() -> None:
    controllers = Controllers([A, B])
    assert controllers.on_failed(None) == 20
    assert controllers.url == B
