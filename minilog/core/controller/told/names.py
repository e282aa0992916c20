"""How events name things: partitions, however many, and whoever asked."""

from __future__ import annotations

from collections.abc import Iterable

NAMED_MAX = 3
LISTED_MAX = 20


def asked_from(asked_by: str) -> str:
    """Addresses only: nobody has to prove who he is. What does not read as one is not repeated."""
    is_known = asked_by and asked_by.isprintable()
    return f", asked for from {asked_by}" if is_known else ", from where it was asked for is not known"


def named(names: Iterable[str]) -> str:
    """``a-0``, or ``14 partitions (a-0, a-1, a-2 and 11 more)``."""
    listed = list(names)
    if len(listed) == 1:
        return listed[0]
    more = f" and {len(listed) - NAMED_MAX} more" if len(listed) > NAMED_MAX else ""
    return f"{len(listed)} partitions ({', '.join(listed[:NAMED_MAX])}{more})"
