"""The future of a record in a thread: what ``concurrent.futures`` and asyncio ask of it, beside a
loop that settles it."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, CancelledError, Future, as_completed, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import pytest

from minilog.errors import ClientClosed, InvalidRequest, MinilogError
from minilog_client.blocking.receipt_future import ReceiptFuture
from minilog_client.connection.loop_thread import LoopThread
from minilog_client.producer.receipts import BatchReceipt

BATCH = BatchReceipt("t", 0, 100, 110, 10, 1, 2, "all", (1, 2, 3), False)
ROUNDS = 300


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    made = LoopThread("test")
    yield made
    made.end()


def settled(thread: LoopThread, index: int = 0) -> ReceiptFuture:
    future = ReceiptFuture(thread)
    assert future.take()
    future.acknowledge(BATCH, index)
    return future


def test_a_receipt_is_that_of_its_record(thread: LoopThread) -> None:
    assert settled(thread, 3).result() == BATCH.receipt(3)
    assert settled(thread, 9).result(0).offset == 109
    assert settled(thread).exception() is None
    assert "state=finished returned Receipt" in repr(settled(thread))


def test_an_error_is_raised_to_whoever_asks(thread: LoopThread) -> None:
    future = ReceiptFuture(thread)
    future.set_exception(ClientClosed("gone"))
    assert isinstance(future.exception(), ClientClosed)
    for _ in range(2):
        with pytest.raises(ClientClosed):
            future.result()


def test_an_error_that_many_records_share_does_not_grow(thread: LoopThread) -> None:
    """Each line where it is raised would be added to it, and none would be let go."""
    error = ClientClosed("gone")
    for _ in range(3):
        future = ReceiptFuture(thread)
        future.set_exception(error)
        with pytest.raises(ClientClosed):
            future.result()
        assert len(traceback.extract_tb(error.__traceback__)) == 2


def test_a_callback_that_would_wait_for_itself_is_told_so(thread: LoopThread) -> None:
    future = ReceiptFuture(thread)

    def waits() -> str:
        with pytest.raises(InvalidRequest, match="wait for itself"):
            future.result()
        return "told"

    assert thread.call(waits) == "told"


def test_who_waits_longer_than_he_wants_to_may_ask_again(thread: LoopThread) -> None:
    future = ReceiptFuture(thread)
    with pytest.raises(FutureTimeout):
        future.result(0.01)
    assert future.take()
    future.acknowledge(BATCH, 0)
    assert future.result().offset == 100


def test_what_was_taken_cannot_be_cancelled_and_what_was_cancelled_is_not_taken(thread: LoopThread) -> None:
    taken, cancelled = ReceiptFuture(thread), ReceiptFuture(thread)
    assert taken.take()
    assert not taken.cancel()
    assert (taken.running(), taken.cancelled(), taken.done()) == (True, False, False)
    assert cancelled.cancel()
    assert not cancelled.take()
    assert (cancelled.running(), cancelled.cancelled(), cancelled.done()) == (False, True, True)
    with pytest.raises(CancelledError):
        cancelled.result()


def test_a_callback_is_called_once_whatever_another_one_raises(
    thread: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Future[Any]] = []

    def leave(_: object) -> None:
        raise SystemExit

    future = ReceiptFuture(thread)
    future.add_done_callback(leave)
    future.add_done_callback(seen.append)
    future.acknowledge(BATCH, 0)
    future.add_done_callback(seen.append)
    assert seen == [future, future]
    assert "a callback of a record's future has raised" in caplog.text


def test_who_gives_up_while_others_are_told_takes_nobodys_turn(thread: LoopThread) -> None:
    future, seen = ReceiptFuture(thread), list[Future[Any]]()

    def give_up(_: object) -> None:
        future._done_callbacks.remove(give_up)

    future.add_done_callback(give_up)
    future.add_done_callback(seen.append)
    future.acknowledge(BATCH, 0)
    assert seen == [future]


def test_a_loop_of_the_application_may_await_it(thread: LoopThread) -> None:
    async def work() -> int | None:
        future = ReceiptFuture(thread)
        thread.post(future.acknowledge, BATCH, 1)
        return (await asyncio.wrap_future(future)).offset

    assert asyncio.run(work()) == 101


def test_until_somebody_asks_it_is_the_only_thing_the_collector_walks(thread: LoopThread) -> None:
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        futures = [settled(thread, index % 10) for index in range(1000)]
        assert len(gc.get_objects()) - before <= len(futures) + 10
    finally:
        gc.enable()


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_waits_for_many_misses_none_and_counts_none_twice(thread: LoopThread, fails: bool) -> None:
    """The loop settles them while this thread begins to wait: in every order that the two find."""
    error = ClientClosed("gone")
    for round_ in range(ROUNDS):
        futures: list[Any] = [ReceiptFuture(thread) for _ in range(8)]

        def settle(futures: list[Any] = futures) -> None:
            for future in futures:
                future.take()
                if fails:
                    future.set_exception(error)
                else:
                    future.acknowledge(BATCH, 0)

        settling = threading.Thread(target=settle)
        settling.start()
        if round_ % 3 == 0:
            done, left = wait(futures, timeout=10, return_when=ALL_COMPLETED)
            assert (len(done), len(left)) == (8, 0)
        elif round_ % 3 == 1:
            assert len(list(as_completed(futures, timeout=10))) == 8
        else:
            done, _ = wait(futures, timeout=10, return_when=FIRST_EXCEPTION)
            assert done if fails else len(done) == 8
        settling.join()
        for future in futures:
            assert isinstance(future.exception(), MinilogError) if fails else future.result() == BATCH.receipt(0)


def test_who_is_interrupted_while_he_cancels_leaves_nobody_waiting(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    future, told = ReceiptFuture(thread), list[Future[Any]]()
    future.add_done_callback(told.append)

    def interrupted(self: ReceiptFuture, caught: type[BaseException] = Exception) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patching:
        patching.setattr(ReceiptFuture, "_invoke_callbacks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            future.cancel()
    assert not future.take()
    assert told == [future]


def test_a_race_to_cancel_has_one_winner(thread: LoopThread) -> None:
    for _ in range(ROUNDS):
        future = ReceiptFuture(thread)
        taken: list[bool] = []
        taking = threading.Thread(target=lambda future=future, taken=taken: taken.append(future.take()))
        taking.start()
        cancelled = future.cancel()
        taking.join()
        assert taken == [not cancelled]
