"""The log level over HTTP, the same on brokers and controllers: what a process writes from now
on."""

from __future__ import annotations

from typing import Final

import msgspec

from minilog.config import LogLevel
from minilog.errors import InvalidRequest
from minilog.server.event_log import level_now, set_level
from minilog.wire.json.json_answers import LogLevelNow

LOG_LEVEL_BYTES_MAX: Final = 1024


class LogLevelBody(msgspec.Struct, forbid_unknown_fields=True):
    """Until the process ends. At its next start it is what its settings say."""

    level: LogLevel


_decoder = msgspec.json.Decoder(LogLevelBody)


def shown_level(configured: LogLevel) -> LogLevelNow:
    return LogLevelNow(level_now(), configured)


def changed_level(body: bytes, configured: LogLevel, asked_by: str) -> LogLevelNow:
    """Raises InvalidRequest."""
    try:
        wanted = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f'the body must be {{"level": "debug", "info", "warning" or "error"}}: {str(error)[:200]}'
        ) from None
    set_level(wanted.level, asked_by)
    return shown_level(configured)
