"""Bounds of what a message may hold, as types of its fields: decoding refuses what lies beyond, so
nobody decides on it, nor writes it down (R44).

They say what can be at all. What a setting or a name allows is said, and refused with a better
sentence, where it is decided: these bounds are wider. Every field of every message has one
(``tests/unit/wire/test_bounded.py``).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta

from minilog.config import URL_CHARS_MAX

T = TypeVar("T")

ID_CHARS_MAX: Final = 128
NAME_CHARS_MAX: Final = 1024
TEXT_CHARS_MAX: Final = 64 * 1024
TOLD_CHARS_MAX: Final = 16 * 1024 * 1024
FEW_MAX: Final = 1000
MANY_MAX: Final = 2**20

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What a message can carry. JSON knows larger numbers: what is decoded from it must fit, to be
passed on."""
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""An offset, a place in a journal, a number of things."""
BrokerId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Milliseconds = Annotated[int, Meta(ge=-(2**53), le=2**53)]

Id = Annotated[str, Meta(max_length=ID_CHARS_MAX)]
"""Of a topic, a data directory, a term."""
Name = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
Url = Annotated[str, Meta(max_length=URL_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
"""A sentence for people."""
Told = Annotated[str, Meta(max_length=TOLD_CHARS_MAX)]
"""What an answer tells of a journal. Versions of before wrote down what they were given."""

Few = Annotated[list[T], Meta(max_length=FEW_MAX)]
"""Replicas of a partition, conditions of a broker."""
Many = Annotated[list[T], Meta(max_length=MANY_MAX)]
"""Partitions, records of a journal."""
Config = Annotated[dict[Name, Text], Meta(max_length=FEW_MAX)]
ToldConfig = Annotated[dict[Told, Told], Meta(max_length=MANY_MAX)]
Counts = Annotated[dict[Name, Count], Meta(max_length=FEW_MAX)]
Info = Annotated[dict[Name, Any], Meta(max_length=FEW_MAX)]
"""Extras of an error, for programs."""
