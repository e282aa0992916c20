"""A controller has taken over from another one: what people are told of it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from minilog.wire.journal.events import WARNING, Event, EventKind, Facts


class Move(NamedTuple):
    """``from_url``: who decided before. ``why``: as the standby saw it. ``heard_ms``: when it had
    heard the one before for the last time, by this process's steady clock."""

    from_url: str
    why: str
    heard_ms: int


def moved(move: Move, url: str, controller_epoch: int, now_ms: int, at_ms: int) -> Event:
    """``url``: of the controller that decides now, as of ``now_ms``."""
    absent_ms = max(0, now_ms - move.heard_ms)
    sentence = (
        f"the controller at {url} decides now, in controller epoch {controller_epoch}, {absent_ms} ms after it had last "
        f"heard the one at {move.from_url}: {move.why}"
    )
    facts: Facts = {
        "controller_epoch": controller_epoch,
        "url": url,
        "from_url": move.from_url,
        "why": move.why,
        "absent_ms": absent_ms,
    }
    return Event(at_ms, EventKind.CONTROLLER_MOVED, WARNING, sentence, facts=facts)
