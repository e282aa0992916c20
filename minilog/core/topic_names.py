"""Topic names: which ones there can be, and which are minilog's own."""

from __future__ import annotations

import re

from minilog.errors import InvalidTopic

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_INTERNAL = "__"
SHOWN_MAX = 300


def is_internal(topic: str) -> bool:
    """Minilog's own: made on need, written by brokers alone, and left out of lists unless asked
    for."""
    return topic.startswith(_INTERNAL)


def check_not_internal(topic: str, what: str) -> None:
    """Raises InvalidTopic."""
    if is_internal(topic):
        raise InvalidTopic(f"{topic} cannot be {what}: names that begin with {_INTERNAL} are minilog's own")


def check_topic_name(topic: str) -> None:
    """Raises InvalidTopic. What passes is safe as a file name too."""
    if not _NAME.fullmatch(topic) or topic in (".", ".."):
        raise InvalidTopic(
            f"{topic[:SHOWN_MAX]!r} is no topic name; use 1 to 249 of the characters A-Z a-z 0-9 . _ -, but not '.' or '..'"
        )
