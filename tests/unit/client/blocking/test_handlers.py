"""A signal's handler interrupts a thread at any line of a call, and makes calls of its own that
wait for the loop's thread. Neither waits for the other for ever."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import pytest

from minilog_client import Client, SyncProducer
from minilog_client.blocking import receipt_future
from tests.unit.client.blocking.test_client import connected

_LIMIT_S: Final = 20
Call = Callable[[Client, SyncProducer], object]


class TooLong(BaseException):
    pass


@contextmanager
def limited() -> Iterator[None]:
    def strike(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, strike)
    signal.alarm(_LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class AtLine:
    """Calls ``handler`` before the ``number``th line of the client that this thread comes to."""

    def __init__(self, number: int, handler: Callable[[], object]) -> None:
        self._left = number
        self._handler = handler

    @property
    def has_called(self) -> bool:
        return self._left == 0

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_globals.get("__name__", "").startswith("minilog_client"):
            return self.trace if event == "call" else None
        if event == "line" and self._left > 0 and not receipt_future._making.locked():  # a step without calls
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                self._handler()
        return self.trace


def later(_: object) -> None:
    pass


def asks_in_vain(_: Client, producer: SyncProducer) -> object:
    future = producer.send("t", b"x")
    future.add_done_callback(later)
    return future.cancel()


CALLS: dict[str, Call] = {
    "send": lambda client, producer: producer.send("t", b"x"),
    "result": lambda client, producer: producer.send("t", b"x").result(5),
    "cancel": asks_in_vain,
    "flush": lambda client, producer: producer.flush(),
    "offsets": lambda client, producer: client.offsets("t", 0),
    "consumer": lambda client, producer: client.consumer("t").batch(max_wait_ms=1),
}
HANDLERS: dict[str, Call] = {
    "send": lambda client, producer: producer.send("t", b"y").result(5),
    "flush": lambda client, producer: producer.flush(),
    "close": lambda client, producer: client.close(),
}


PAIRS: Final = [
    ("send", "flush"), ("result", "send"), ("cancel", "send"), ("flush", "send"), ("offsets", "flush"),
    ("consumer", "flush"), ("send", "close"), ("offsets", "close"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "handler"), PAIRS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_handler_may_wait_at_any_line(call: str, handler: str) -> None:
    number, is_over = 0, False
    with limited():
        while not is_over:
            number += 7 if call == "consumer" else 1
            with connected() as (_, client):
                producer = client.producer(linger_ms=0)
                producer.send("t", b"first")
                at = AtLine(number, lambda: HANDLERS[handler](client, producer))  # noqa: B023
                before = sys.gettrace()
                sys.settrace(at.trace)
                try:
                    CALLS[call](client, producer)
                except Exception:
                    assert handler == "close", "nothing else keeps a call from being carried out"
                finally:
                    sys.settrace(before)
                is_over = not at.has_called
    assert number > 10
