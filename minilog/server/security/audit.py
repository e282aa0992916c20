"""The audit log: who has changed something, who was refused, which credentials have come and gone.

One line of JSON each on the logger ``minilog.audit``. Never a secret: of a token at most the
beginning of its digest. A flood of refusals is counted, and told with the next line that has room.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Final

log = logging.getLogger("minilog.audit")
LINES_PER_SECOND_MAX: Final = 50
TEXT_MAX: Final = 300


class Audit:
    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def note(self, act: str, **facts: str | int) -> None:
        second = int(self._clock_s())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LINES_PER_SECOND_MAX:
            self._left_out += 1
            return
        self._lines += 1
        line: dict[str, str | int] = {"act": act}
        line |= {name: value[:TEXT_MAX] if isinstance(value, str) else value for name, value in facts.items()}
        if self._left_out:
            line["lines_left_out"], self._left_out = self._left_out, 0
        log.log(logging.WARNING if act == "refused" else logging.INFO, "%s", json.dumps(line, ensure_ascii=True))
