"""kcat's format tokens: ``%t %p %o %k %v\\n``.

%t topic    %p partition    %o offset    %T timestamp (ms)  %h headers (name=value,...)
%% a percent sign
%v %s value %S its length   %k key       %K its length, -1 for no key
\\n \\r \\t \\0 \\\\ \\xHH in the format are the bytes they name
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from minilog.cli.output import CliError, ExitCode

if TYPE_CHECKING:
    from minilog_client.values import HeadersLike

Part = Callable[["Printable"], bytes]


class Printable(Protocol):
    """What is asked of a record. The client's records have it all."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> HeadersLike: ...


TOKENS: dict[str, Part] = {
    "t": lambda record: record.topic.encode(),
    "p": lambda record: b"%d" % record.partition,
    "o": lambda record: b"%d" % record.offset,
    "T": lambda record: b"%d" % record.timestamp,
    "k": lambda record: record.key or b"",
    "K": lambda record: b"%d" % (-1 if record.key is None else len(record.key)),
    "v": lambda record: record.value or b"",
    "s": lambda record: record.value or b"",
    "S": lambda record: b"%d" % (-1 if record.value is None else len(record.value)),
    "h": lambda record: headers_text(record.headers),
    "%": lambda record: b"%",
}
ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "0": b"\0", "\\": b"\\"}
_PIECE = re.compile(r"%(?P<token>.?)|\\x(?P<hex>[0-9A-Fa-f]{2})|\\(?P<escape>.?)|(?P<plain>[^%\\]+)", re.DOTALL)


def compile_format(text: str) -> Callable[[Printable], bytes]:
    """The function that prints one record. Raises CliError on an unknown token."""
    parts: list[Part | bytes] = []
    for piece in _PIECE.finditer(text):
        token, escape = piece["token"], piece["escape"]
        if token is not None:
            if token not in TOKENS:
                raise CliError(
                    f"-f: %{token} is not a token; allowed: {' '.join('%' + t for t in TOKENS)}", ExitCode.USAGE
                )
            parts.append(TOKENS[token])
        elif piece["hex"] is not None:
            parts.append(bytes.fromhex(piece["hex"]))
        elif escape is not None:
            if escape not in ESCAPES:
                raise CliError(f"-f: \\{escape} is not an escape; allowed: \\n \\r \\t \\0 \\\\ \\xHH", ExitCode.USAGE)
            parts.append(ESCAPES[escape])
        else:
            parts.append(piece["plain"].encode())
    return lambda record: b"".join(part if isinstance(part, bytes) else part(record) for part in parts)


def headers_text(headers: HeadersLike) -> bytes:
    """``name=value`` joined by commas, of a mapping or of (name, value) pairs."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return b",".join(name.encode() + b"=" + (value or b"") for name, value in pairs)
