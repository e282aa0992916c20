"""Every line is accounted for: what was written, what failed, what was not read, where to go on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minilog.cli.output import CliError
from minilog.cli.topic import lines
from minilog.cli.topic.lines import chunks
from minilog.cli.topic.produce import Outcome, account, line_parser
from minilog.errors import RecordTooLarge, TimedOut
from minilog_client import AsyncClient, Receipt
from tests.unit.client.fake_cluster import FakeCluster, Fault


def settled(outcome: Outcome, line: int, result: int | Exception) -> None:
    async def settle() -> None:
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(Receipt("t", 0, result, 0, 0, "all", (), False))
        outcome.on_done(line, future)

    asyncio.run(settle())


def test_all_written_needs_no_word() -> None:
    outcome = Outcome()
    settled(outcome, 1, 7)
    settled(outcome, 2, 8)
    assert (outcome.acknowledged, outcome.failed, dict(outcome.ranges)) == (2, 0, {0: [7, 9]})
    assert outcome.where_to_go_on() is None


def test_the_first_line_that_is_not_written_is_named_and_what_is_written_behind_it() -> None:
    outcome = Outcome()
    settled(outcome, 9, 5)
    settled(outcome, 8, TimedOut("late"))
    settled(outcome, 4, RecordTooLarge("large"))
    settled(outcome, 3, 4)
    said = outcome.where_to_go_on()
    assert said is not None
    assert "line 4 is the first that is not known to be written: `tail -n +4`" in said
    assert "1 of the lines that failed may be written all the same" in said
    assert "up to line 9, is written already" in said
    assert (outcome.acknowledged, outcome.failed) == (2, 2)
    assert isinstance(outcome.error, TimedOut), "what failed first"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"\xef\xbb\xbfa\r\nb\r\n", [b"a", b"b"]),
        (b"a\n\xef\xbb\xbfb\n", [b"a", b"\xef\xbb\xbfb"]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb", [b"\xef\xbb"]),
        (b"", []),
    ],
)
def test_lines_come_without_their_ends_and_without_a_mark_at_the_beginning(
    text: bytes, lines: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "in"
    path.write_bytes(text)

    async def read() -> list[bytes]:
        with path.open("rb") as file:
            return [line async for some in chunks(file, asyncio.Event()) for line in some]

    assert asyncio.run(read()) == lines


def test_a_pipe_that_says_nothing_is_left_at_once() -> None:
    async def read() -> tuple[list[bytes], list[bytes]]:
        out, into = os.pipe()
        with os.fdopen(out, "rb") as reading, os.fdopen(into, "wb", 0) as writing:
            stop = asyncio.Event()
            some = chunks(reading, stop)
            writing.write(b"a\nb")
            first = await anext(some)
            asyncio.get_running_loop().call_soon(stop.set)
            return first, [line async for more in some for line in more]

    first, rest = asyncio.run(asyncio.wait_for(read(), 5))
    assert (first, rest) == ([b"a"], [])


def accounted(
    cluster: FakeCluster, path: Path, meanwhile: Callable[[], None] = lambda: None, **options: Any
) -> Outcome:
    """Of the lines of a file. ``meanwhile`` runs in a thread once a record is on its way."""

    async def main() -> Outcome:
        connect = partial(AsyncClient, cluster.bootstrap, transport=cluster)
        with path.open("rb") as file:
            async with asyncio.timeout(10):
                return await account(connect, "t", file, line_parser(None, None), None, options)  # type: ignore[arg-type]

    cluster.create("t", 1)
    thread = threading.Thread(target=meanwhile)
    thread.start()
    try:
        return asyncio.run(main())
    finally:
        thread.join()


def in_steps(monkeypatch: pytest.MonkeyPatch, path: Path, text: bytes) -> None:
    """Four bytes are read at a time."""
    monkeypatch.setattr(lines, "READ_BYTES", 4)
    path.write_bytes(text)


def test_a_line_that_is_too_long_is_the_first_that_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 6)
    in_steps(monkeypatch, tmp_path / "in", b"a\nb\nccccccccccccccccc\n")
    cluster = FakeCluster()
    outcome = accounted(cluster, tmp_path / "in")
    assert cluster.logs["t"][0].values() == [b"a", b"b"]
    assert str(outcome.error) == "line 3 has more than 6 bytes; it cannot be one record"
    assert (outcome.acknowledged, outcome.first_unwritten) == (2, 3)


def test_what_was_written_before_the_input_could_be_read_no_more_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_steps(monkeypatch, tmp_path / "in", b"a\nb\nc\n")
    read, count = os.read, 0

    def fail(handle: int, size: int) -> bytes:
        nonlocal count
        count += 1
        if count > 1:
            raise OSError(5, "Input/output error")
        return read(handle, size)

    monkeypatch.setattr("minilog.cli.topic.lines.os.read", fail)
    outcome = accounted(FakeCluster(), tmp_path / "in")
    assert isinstance(outcome.error, CliError)
    assert outcome.error.sentence == "the input cannot be read behind line 2: Input/output error"
    assert (outcome.acknowledged, outcome.first_unwritten) == (2, 3)


def test_a_second_signal_ends_the_waiting_and_what_is_known_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\nb\n")
    cluster = FakeCluster()
    cluster.faults.append(Fault("produce", "hang", times=100))

    def interrupt() -> None:
        for pause_s in (0.5, 0.2):
            threading.Event().wait(pause_s)
            os.kill(os.getpid(), signal.SIGINT)

    outcome = accounted(cluster, tmp_path / "in", interrupt, delivery_timeout_ms=8000, linger_ms=0)
    assert outcome.stopped_by == signal.SIGINT
    assert (outcome.acknowledged, outcome.failed, outcome.unsure, outcome.first_unwritten) == (0, 2, 2, 1)


def test_what_was_written_is_told_also_when_the_rest_takes_too_long(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\nb\n")
    cluster = FakeCluster()
    cluster.faults.append(Fault("produce", "hang", times=100))
    outcome = accounted(cluster, tmp_path / "in", flush_timeout_ms=100, close_timeout_ms=100)
    assert isinstance(outcome.error, TimedOut)
    assert (outcome.failed, outcome.unsure, outcome.first_unwritten) == (2, 2, 1)
