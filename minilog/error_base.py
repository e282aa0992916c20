"""What all errors have in common, and the two kinds that most of them are (errors.py)."""

from __future__ import annotations

from typing import Any, ClassVar


class MinilogError(Exception):
    """Base of all errors.

    ``detail`` is one sentence: what was wrong, what was seen, what is allowed, what to do. ``info``
    holds machine-readable extras (JSON values), for example ``leader_url`` or ``lost_from``.
    """

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False
    definite: bool = False

    def __init__(self, detail: str, *, definite: bool | None = None, **info: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.info: dict[str, Any] = info
        if definite is not None:
            self.definite = definite

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.detail!r}, definite={self.definite}, info={self.info})"


class RetriableError(MinilogError):
    """The same request may succeed later; wait a little, or ask the broker that the error names."""

    code = "RETRIABLE"
    http_status = 503
    retriable = True
    definite = True


class FatalError(MinilogError):
    """Repeating the same request cannot help."""

    code = "FATAL"
    http_status = 400
    definite = True
