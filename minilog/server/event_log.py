"""How a process writes its log: lines for people or JSON for programs, events among them. What is
said a thousand times is said once, with a count. What nobody reads is left out: a process that
waits for the reader of its log answers nobody, and no signal stops it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import msgspec

from minilog.config import LogFormat, LogLevel
from minilog.wire.journal.events import ERROR, WARNING, Event

_log = logging.getLogger("minilog")
_events = logging.getLogger("minilog.events")
_LEVELS: Final = {ERROR: logging.ERROR, WARNING: logging.WARNING}
REPEATED_S: Final = 10.0
REMEMBERED_MAX: Final = 1000
PATIENCE_MS: Final = 100
"""For who reads the log. Then lines are left out until there is room again."""


def write(event: Event) -> None:
    level = _LEVELS.get(event.level, logging.INFO)
    _events.log(level, "%s: %s", event.kind, event.sentence, extra={"event": event})


class Repeats(logging.Filter):
    """Lets a line through that was not said in the last ten seconds. The next one after that says
    how often it was not. What people read as the same line is the same here: numbers count."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._said: dict[tuple[str, int, str], list[float]] = {}
        """By what is said: when that was last let through, and how often not since."""

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.levelno, record.getMessage())
        said, now_s = self._said.get(key), self._clock_s()
        if said is None:
            if len(self._said) >= REMEMBERED_MAX:
                self._said.pop(next(iter(self._said)), None)  # another thread may have done so
            self._said[key] = [now_s, 0]
            return True
        if now_s - said[0] < REPEATED_S:
            said[1] += 1
            return False
        if said[1]:
            record.repeated = int(said[1])
            record.msg, record.args = f"{key[2]} (and {said[1]:.0f} times more since it was last said)", ()
        said[:] = [now_s, 0]
        return True


class LineFormatter(logging.Formatter):
    """One line per record, milliseconds in UTC."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class JsonFormatter(LineFormatter):
    """One JSON object per record: ``at``, ``level``, ``logger``, ``message``, ``traceback`` where
    there is one, and all of an event but its sentence."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if isinstance(event, Event):
            line["message"] = event.sentence
            line |= {k: v for k, v in msgspec.to_builtins(event).items() if k not in ("sentence", "level")}
            if repeated := getattr(record, "repeated", 0):
                line["repeated"] = repeated
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Lines(logging.StreamHandler[TextIO]):
    """Writes where there is room. A pipe with room takes PIPE_BUF bytes without waiting."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        stream.fileno()
        self._left_out = 0
        self._is_cut = False
        """There was room for the beginning of a line."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._left_out and self._write(self._note()):
                self._left_out = 0
            if self._left_out or not self._write(self.format(record)):
                self._left_out += 1
        except Exception:
            self.handleError(record)

    def _note(self) -> str:
        said = f"{self._left_out} lines are left out here, because nobody read the log"
        return self.format(logging.LogRecord("minilog", logging.WARNING, "", 0, said, (), None))

    def _write(self, line: str) -> bool:
        handle, room = self.stream.fileno(), select.poll()
        room.register(handle, select.POLLOUT)
        data = memoryview(b"\n" * self._is_cut + line.encode("utf-8", "backslashreplace") + b"\n")
        whole = len(data)
        while data:
            try:
                is_full = not room.poll(0 if self._left_out else PATIENCE_MS)
                data = data if is_full else data[os.write(handle, data[: select.PIPE_BUF]) :]
            except BlockingIOError:
                is_full = True
            if is_full:
                self._is_cut |= len(data) < whole
                return False
        self._is_cut = False
        return True


def _handler(stream: TextIO) -> logging.Handler:
    try:
        return Lines(stream)
    except (OSError, ValueError):  # no file of the system
        return logging.StreamHandler(stream)


def start_logging(level: LogLevel = "info", form: LogFormat = "text") -> None:
    """On stderr. Calling again changes level and form."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    handlers = [handler for handler in root.handlers if isinstance(handler.formatter, LineFormatter)]
    if not handlers:
        handlers = [_handler(sys.stderr)]
        handlers[0].addFilter(Repeats())
        root.addHandler(handlers[0])
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else LineFormatter())


def level_now() -> str:
    return logging.getLevelName(logging.getLogger().level).lower()


def set_level(level: LogLevel, asked_by: str) -> None:
    """Until this process ends: it is written to no file. The log says who has changed it, at any
    level."""
    before = level_now()
    logging.getLogger().setLevel(level.upper())
    line = "%s: the log level is %s now, and was %s; it holds until this process ends"
    _log.log(max(logging.WARNING, logging.getLogger().level), line, asked_by, level, before)


def turn_level() -> None:
    """From debug to info, from anything else to debug."""
    set_level("info" if level_now() == "debug" else "debug", "SIGUSR2")
