"""The base of all messages, and the two answers every request may get."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from minilog.errors import MinilogError, error_from

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What a message can carry. JSON knows larger numbers: what is decoded from it must fit, to be
passed on."""

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

    code: str
    detail: str
    definite: bool
    info: dict[str, Any] = {}

    @classmethod
    def of(cls, error: MinilogError) -> Problem:
        return cls(error.code, error.detail, error.definite, error.info)

    def error(self) -> MinilogError:
        return error_from(self.code, self.detail, self.definite, self.info)


class Ok(Message):
    """Done. Nothing more to say. ``metadata_offset`` is set when the journal changed."""

    metadata_offset: int = 0
