"""Where reading begins: what an application may say, and what it means. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum
from typing import Any, Final

from minilog.errors import InvalidRequest
from minilog.wire.http import INT64_MAX
from minilog.wire.messages import EARLIEST, LATEST

StartLike = int | str | datetime
_AT: Final = re.compile("@0*([0-9]{1,19})")
_NAMED: Final = {"earliest": EARLIEST, "latest": LATEST}


class Start(Enum):
    """Whether a ``StartLike`` is an offset, or something a broker must turn into one."""

    OFFSET = "offset"
    TIME = "time"


def parse_start(start: Any) -> tuple[Start, int]:
    """``"earliest"``, ``"latest"``, an offset, ``"@<ms>"`` or an aware datetime; raises
    InvalidRequest."""
    if isinstance(start, str) and start in _NAMED:
        return Start.TIME, _NAMED[start]
    if isinstance(start, str) and (at := _AT.fullmatch(start)) and int(at[1]) <= INT64_MAX:
        return Start.TIME, int(at[1])
    if isinstance(start, datetime) and start.tzinfo is not None:
        return Start.TIME, max(0, int(start.timestamp() * 1000))
    if isinstance(start, int) and not isinstance(start, bool) and 0 <= start <= INT64_MAX:
        return Start.OFFSET, start
    raise InvalidRequest(
        f'start is {start!r}; allowed are "earliest", "latest", an offset, "@" with ms since the epoch, '
        f"or a datetime with a time zone; the largest number is {INT64_MAX}"
    )


def as_time(to: StartLike) -> StartLike:
    """An int is a time in ms here, and no offset."""
    return f"@{to}" if isinstance(to, int) else to
