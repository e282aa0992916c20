"""The base of all messages, and the two answers every request may get."""

from __future__ import annotations

from typing import Final

import msgspec

from minilog.errors import MinilogError, error_from
from minilog.wire.bounded import TEXT_CHARS_MAX, Count, Info, Name, Told

UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError, MemoryError, OverflowError)
"""What decoding foreign bytes raises. UnicodeDecodeError is a ValueError; deep nesting is a
RecursionError."""


def why_undecodable(error: Exception) -> str:
    match error:
        case RecursionError():
            return "nested too deeply"
        case MemoryError():
            return "there is no memory to hold what it announces"
        case _:
            return str(error).replace("`", "'")


class Message(msgspec.Struct, tag=True, omit_defaults=True):
    """Base of all messages. The tag (field ``type``) is the class name."""


class Problem(Message):
    """An error on the wire; see errors.py for codes and the meaning of ``definite``."""

    code: Name
    detail: Told
    definite: bool
    info: Info = {}

    @classmethod
    def of(cls, error: MinilogError) -> Problem:
        """A sentence that quotes what somebody sent may be as long as that."""
        return cls(error.code, error.detail[:TEXT_CHARS_MAX], error.definite, error.info)

    def error(self) -> MinilogError:
        return error_from(self.code, self.detail, self.definite, self.info)


class Ok(Message):
    """Done. Nothing more to say. ``metadata_offset`` is set when the journal changed."""

    metadata_offset: Count = 0
