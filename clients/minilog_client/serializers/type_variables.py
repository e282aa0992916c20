"""What a record's value and key are: bytes, unless the application has said otherwise."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

V = TypeVar("V", default=bytes)
K = TypeVar("K", default=bytes)
