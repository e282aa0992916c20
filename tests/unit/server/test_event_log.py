"""How a process writes its log."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading

import pytest

from minilog.config import LogLevel
from minilog.server.event_log import (
    REPEATED_S,
    JsonFormatter,
    LineFormatter,
    Repeats,
    level_now,
    set_level,
    turn_level,
    write,
)
from minilog.wire.journal.events import WARNING, Event, EventKind

EVENT = Event(5, EventKind.ISR_SHRUNK, WARNING, "broker 2 is no more in sync", 2, facts={"isr": "1 3"})


def line(text: str, created: float = 0.0) -> logging.LogRecord:
    record = logging.LogRecord("minilog", logging.WARNING, "", 0, "%s", (text,), None)
    record.created = created
    return record


def test_the_same_line_a_thousand_times_is_said_once_with_a_count() -> None:
    now_s = 0.0
    repeats = Repeats(lambda: now_s)
    said = 0
    for at in range(1000):
        now_s = at / 1000
        said += repeats.filter(line("full"))
    assert said == 1
    assert repeats.filter(line("another"))
    now_s = REPEATED_S + 1
    again = line("full")
    assert repeats.filter(again)
    assert again.getMessage() == "full (and 999 times more since it was last said)"
    now_s = 3 * REPEATED_S
    assert repeats.filter(once := line("full"))
    assert once.getMessage() == "full"


def test_a_clock_that_is_put_back_silences_no_line() -> None:
    now_s = 0.0
    repeats = Repeats(lambda: now_s)
    assert repeats.filter(line("full", created=7200))
    now_s = REPEATED_S + 1
    assert repeats.filter(line("full", created=3600))


def test_an_event_is_a_line_for_people_and_an_object_for_programs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "minilog.events"):
        write(EVENT)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert LineFormatter().format(record).endswith("WARNING minilog.events: isr_shrunk: broker 2 is no more in sync")
    told = json.loads(JsonFormatter().format(record))
    assert told["message"] == EVENT.sentence
    assert (told["level"], told["kind"], told["broker_id"], told["facts"]) == (
        "warning",
        "isr_shrunk",
        2,
        {"isr": "1 3"},
    )


def test_a_traceback_stays_on_one_line_of_json() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logging.LogRecord(
            "minilog", logging.ERROR, "", 0, "failed", (), (ValueError, error, error.__traceback__)
        )
    formatted = JsonFormatter().format(record)
    assert "\n" not in formatted
    assert "ValueError: x" in json.loads(formatted)["traceback"]


def test_the_level_turns_to_debug_and_back() -> None:
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel(logging.INFO)
        for level in ("debug", "info"):
            turn_level()
            assert level_now() == level
    finally:
        root.setLevel(before)


@pytest.mark.parametrize("level", ["debug", "warning", "error"])
def test_the_log_says_who_has_changed_its_level_at_any_level(level: LogLevel, caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel(logging.INFO)
        set_level(level, "10.0.0.9")
        assert level_now() == level
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= root.level]
        assert line == f"10.0.0.9: the log level is {level} now, and was info; it holds until this process ends"
    finally:
        root.setLevel(before)


TALKATIVE = """
import logging
from minilog.server.event_log import start_logging
start_logging()
for number in range(3000):
    logging.warning("line %d, which is one of three thousand", number)
print("said", flush=True)
input()
logging.warning("the last line")
"""


def test_a_process_whose_log_nobody_reads_goes_on_and_says_later_how_much_is_left_out() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", TALKATIVE], stdin=pipe, stdout=pipe, stderr=pipe) as talking:
        assert talking.stdout is not None
        assert talking.stderr is not None
        timer = threading.Timer(20, talking.kill)
        timer.start()
        assert talking.stdout.readline() == b"said\n"
        read = os.read(talking.stderr.fileno(), 2**20)
        _, rest = talking.communicate(b"\n")
        timer.cancel()
    *said, note, last = (read + rest).decode().splitlines()
    assert "the last line" in last
    assert f"{3000 - len(said)} lines are left out here" in note
    assert said
    assert all("three thousand" in line for line in said)


def test_an_event_that_was_repeated_says_so_in_json_too() -> None:
    now_s = 0.0
    repeats = Repeats(lambda: now_s)
    seen = [logging.LogRecord("minilog.events", logging.WARNING, "", 0, "%s", ("same",), None) for _ in range(3)]
    for at_s, record in zip((0.0, 1.0, REPEATED_S + 1), seen, strict=True):
        now_s = at_s
        record.event = EVENT
        repeats.filter(record)
    assert json.loads(JsonFormatter().format(seen[-1]))["repeated"] == 1
