"""HTTP as text: media types, the values in paths and queries, and errors as problem documents.

Pure, and shared by the servers and the clients: what one side writes, the other side reads with the
same code. The routes themselves are in routes.py, records as JSON in json_records.py.

Every parser is strict: one spelling per value, a range for every number, and an error that names
the field, what was seen and what is allowed. Source: RFC 9110 (media types, Accept), RFC 3986
(percent-encoding), RFC 9457.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from minilog.config import without_secrets as without_secrets
from minilog.errors import (
    BrokerUnavailable,
    InternalError,
    InvalidAcks,
    InvalidGroup,
    InvalidRequest,
    InvalidTopic,
    MinilogError,
    NotAcceptable,
    UnsupportedMediaType,
    error_from,
)
from minilog.wire.message_base import UNDECODABLE
from minilog.wire.messages import ACKS_ALL, EARLIEST, LATEST, NotAMessage, Problem, decode

HTML: Final = "text/html"
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
BATCH: Final = "application/vnd.minilog.batch"
MSGPACK: Final = "application/msgpack"
OCTETS: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream"
PROBLEM: Final = "application/problem+json"
TEXT: Final = "text/plain"

INT64_MAX: Final = 2**63 - 1
INT32_MAX: Final = 2**31 - 1
ACKS_MAX: Final = 32
"""More copies than any topic can have replicas."""
SHOWN_MAX: Final = 60
RETRY_AFTER_S: Final = 1

_MEMBER_CHARS_MAX: Final = 249
_TOPIC_ID = re.compile(rb"[0-9a-f]{32}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
TAIL_PATTERN: Final = r"[A-Za-z0-9._-]{1,249}-[0-9]{1,10}:[0-9]{1,19}-[0-9]{1,19}-[0-9]{1,19}(-[0-9]{1,9})?"
"""Of lost records: partition, leader epoch, first offset, end; a number where that was taken."""
_TAIL = re.compile(TAIL_PATTERN)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_MEDIA_NAME = re.compile(r"[^\s/]+/[^\s/]+")
_WEIGHT = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.ASCII)
_PROBLEM_MEMBERS = frozenset(("type", "title", "status", "detail", "code", "retriable", "definite"))


def shown(value: object) -> str:
    """What was seen, safe to put into a sentence: escaped, in quotes, cut when long."""
    text = (
        value if isinstance(value, str) else bytes(value).decode("latin-1") if isinstance(value, bytes) else str(value)
    )
    return ascii(text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "...")


# --- values in paths and queries ------------------------------------------------------------------


_ORIGIN: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def origin_form(target: str) -> str:
    """Path and query of a request target. Servers take the absolute form as well (RFC 9112, 3.2.2):
    whoever was asked is who answers."""
    if target.startswith("/"):
        return target
    origin = _ORIGIN.match(target)
    if origin is None:
        return target
    rest = target[origin.end() :]
    return rest if rest.startswith("/") else f"/{rest}"


def percent_decoded(name: str, raw: str, *, plus_is_space: bool = False) -> bytes:
    """The bytes behind percent-encoded text; raises InvalidRequest on a malformed escape."""
    data = raw.encode("utf-8", "surrogateescape")
    if b"%" not in data:
        return data.replace(b"+", b" ") if plus_is_space else data
    if _BAD_PERCENT.search(data):
        raise InvalidRequest(
            f"{name} is {shown(raw)}; a '%' must be followed by two hexadecimal digits (%25 is '%' itself)"
        )
    return unquote_to_bytes(data.replace(b"+", b" ") if plus_is_space else data)


def text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is {shown(value)}, which is not UTF-8 (byte {error.start})") from None


def integer(name: str, value: bytes, low: int, high: int) -> int:
    """Decimal digits in ASCII, without a plus sign or leading zeros."""
    digits = text(name, value)
    if not _INTEGER.fullmatch(digits) or not low <= int(digits) <= high:
        raise InvalidRequest(f"{name} is {shown(digits)}; allowed is an integer from {low} to {high}")
    return int(digits)


def entity_tag(name: str, value: bytes) -> int:
    """The end of a partition as an entity tag: its offset in quotes (RFC 9110, section 8.8.3)."""
    tag = text(name, value)
    if len(tag) < 3 or tag[0] != '"' or tag[-1] != '"':
        raise InvalidRequest(f'{name} is {shown(tag)}; allowed is the end of the partition in quotes, like "42"')
    return integer(name, tag[1:-1].encode(), 0, INT64_MAX)


def choice(name: str, value: bytes, allowed: Sequence[str]) -> str:
    word = text(name, value)
    if word not in allowed:
        raise InvalidRequest(f"{name} is {shown(word)}; allowed: {', '.join(allowed)}")
    return word


def acks(name: str, value: bytes) -> int:
    """``all`` is ACKS_ALL. Otherwise the number of copies, 0 for no promise at all."""
    word = text(name, value)
    if word == "all":
        return ACKS_ALL
    if not _INTEGER.fullmatch(word) or not 0 <= int(word) <= ACKS_MAX:
        raise InvalidAcks(f"{name} is {shown(word)}; allowed: all, 0, 1, or a number of copies up to {ACKS_MAX}")
    return int(word)


def acks_text(value: int) -> str:
    return "all" if value == ACKS_ALL else str(value)


class Start(NamedTuple):
    """Where to begin: exactly one is set. ``at`` is a time in ms since the epoch, EARLIEST or
    LATEST."""

    offset: int | None = None
    at: int | None = None

    def __str__(self) -> str:
        if self.at is None:
            return str(self.offset)
        return {EARLIEST: "earliest", LATEST: "latest"}.get(self.at, f"@{self.at}")


def start(name: str, value: bytes) -> Start:
    """``earliest``, ``latest``, an offset, or ``@`` and a time in ms since the epoch."""
    word = text(name, value)
    named = {"earliest": EARLIEST, "latest": LATEST}.get(word)
    if named is not None:
        return Start(at=named)
    digits = word.removeprefix("@")
    if not _INTEGER.fullmatch(digits) or not 0 <= int(digits) <= INT64_MAX:
        raise InvalidRequest(
            f"{name} is {shown(word)}; allowed: earliest, latest, an offset from 0 to {INT64_MAX}, "
            "or @ and a time in milliseconds since 1970"
        )
    return Start(at=int(digits)) if word.startswith("@") else Start(offset=int(digits))


def time_or_end(name: str, value: bytes) -> int:
    """``earliest``, ``latest`` or a time in ms, with or without ``@``: the ``at`` of an Offsets
    message."""
    word = text(name, value)
    parsed = start(name, value if word in ("earliest", "latest") or word.startswith("@") else b"@" + value)
    assert parsed.at is not None
    return parsed.at


def topic_id(name: str, value: bytes) -> str:
    """The id of a topic, as metadata shows it. Raises InvalidRequest."""
    if not _TOPIC_ID.fullmatch(value):
        raise InvalidRequest(
            f"{name} is {shown(value)}; it must be a topic id, 32 hexadecimal digits as metadata shows it"
        )
    return value.decode()


def topic_name(name: str) -> str:
    """The rule for topic names, so that a name is also a safe directory name; raises
    InvalidTopic."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise InvalidTopic(
            f"topic is {shown(name)}; allowed are 1 to 249 of the characters A-Z a-z 0-9 . _ - , and not '.' or '..'"
        )
    return name


def group_name(name: str) -> str:
    """The rule for names of consumer groups, that of topics; raises InvalidGroup."""
    if not _TOPIC.fullmatch(name):
        raise InvalidGroup(f"group is {shown(name)}; allowed are 1 to 249 of the characters A-Z a-z 0-9 . _ -")
    return name


def tail_name(text: str) -> str:
    """Of lost records: ``orders-0:3-100-250``. Raises InvalidRequest."""
    if not _TAIL.fullmatch(text):
        raise InvalidRequest(
            f"the tail is {shown(text)}; tails are named as in GET /v1/lost: orders-0:3-100-250 is of partition 0 of "
            "orders, from leader epoch 3 and offset 100 up to offset 250"
        )
    return text


def member_id(name: str) -> str:
    """What a member of a group calls itself; raises InvalidRequest."""
    if not 1 <= len(name) <= _MEMBER_CHARS_MAX or not name.isprintable():
        raise InvalidRequest(f"member is {shown(name)}; allowed are 1 to {_MEMBER_CHARS_MAX} printable characters")
    return name


# --- media types ----------------------------------------------------------------------------------


def content_type(header: str | None, allowed: Sequence[str]) -> str:
    """The media type of a request body; raises UnsupportedMediaType naming the allowed ones."""
    if header is not None and header in allowed:
        return header
    media, _, parameters = (header or "").partition(";")
    media = media.strip().lower()
    charset = parameters.strip().lower().replace('"', "").replace(" ", "")
    if media in allowed and charset in ("", "charset=utf-8", "charset=utf8"):
        return media
    seen = "missing" if not header else shown(header)
    raise UnsupportedMediaType(
        f"Content-Type is {seen}; allowed: {', '.join(allowed)} (text in UTF-8)", allowed=list(allowed)
    )


def accepted(header: str | None, offered: Sequence[str]) -> str:
    """The offered media type the client likes best, the first offered one when it does not mind.

    The most specific range that covers a type says how much it is liked (RFC 9110, 12.5.1). Of
    types liked the same the one named more specifically wins, then the one named first. Raises
    NotAcceptable when none of the offered types will do."""
    if not header or header == "*/*":
        return offered[0]
    ranges = [_range(part, place) for place, part in enumerate(header.split(","))]
    liked: list[tuple[float, int, int, str]] = []
    for media in offered:
        hit = max((found[1:] for found in ranges if found is not None and _covers(found[0], media)), default=None)
        if hit is not None and hit[2] > 0:
            specific, later, weight = hit
            liked.append((weight, specific, later, media))
    if not liked:
        raise NotAcceptable(f"Accept is {shown(header)}; offered here: {', '.join(offered)}", allowed=list(offered))
    return max(liked, key=lambda best: best[:3])[3]


def _range(part: str, place: int) -> tuple[str, int, int, float] | None:
    """(name, how specific, minus its place, weight) of one part of an Accept header; None when it
    is not understood."""
    name, _, parameters = part.partition(";")
    name = name.strip().lower()
    if _MEDIA_NAME.fullmatch(name) is None:
        return None
    return name, 2 - name.count("*"), -place, _weight(parameters)


def _covers(pattern: str, media: str) -> bool:
    return pattern in (media, "*/*") or (pattern.endswith("/*") and media.startswith(pattern[:-1]))


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        found = _WEIGHT.fullmatch(parameter)
        if found is not None:
            return float(found.group(1))
    return 1.0


# --- errors ---------------------------------------------------------------------------------------


def problem(error: MinilogError, status: int | None = None) -> dict[str, Any]:
    """The members of a problem document. ``info`` entries stand beside the standard members."""
    extras = {name: value for name, value in error.info.items() if name not in _PROBLEM_MEMBERS}
    return {
        "type": f"urn:minilog:problem:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.http_status if status is None else status,
        "detail": error.detail,
        "code": error.code,
        "retriable": error.retriable,
        "definite": error.definite,
        **extras,
    }


def problem_body(error: MinilogError, status: int | None = None) -> bytes:
    """``info`` that came from elsewhere and is nothing JSON knows is left out: the error itself
    must be told."""
    try:
        return msgspec.json.encode(problem(error, status))
    except (*UNDECODABLE, TypeError):
        return msgspec.json.encode(problem(type(error)(error.detail, definite=error.definite), status))


class _ProblemDocument(msgspec.Struct):
    code: str
    detail: str = ""
    definite: bool = False


def error_from_response(status: int, headers: Mapping[str, str], body: bytes) -> MinilogError:
    """The error behind a response that is not a success.

    A body that is not minilog's own (a proxy answered) proves nothing about the write: then
    ``definite`` is False."""
    kind = (headers.get("Content-Type") or headers.get("content-type") or "").partition(";")[0].strip().lower()
    error: MinilogError | None = None
    if kind == PROBLEM:
        error = _from_document(body)
    elif kind == MSGPACK:
        error = _from_message(body)
    if error is None:
        foreign = BrokerUnavailable if status in (429, 502, 503, 504) else InternalError
        return foreign(
            f"HTTP status {status} with a body that is not minilog's: {shown(body[:SHOWN_MAX])}", definite=False
        )
    retry_after = headers.get("Retry-After") or headers.get("retry-after")
    if retry_after and retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 7:
        error.info.setdefault("retry_after_s", int(retry_after))
    return error


def _from_document(body: bytes) -> MinilogError | None:
    try:
        document = msgspec.json.decode(body, type=_ProblemDocument)
        members: dict[str, Any] = msgspec.json.decode(body)
    except UNDECODABLE:
        return None
    info = {name: value for name, value in members.items() if name not in _PROBLEM_MEMBERS}
    return error_from(document.code, document.detail, document.definite, info)


def _from_message(body: bytes) -> MinilogError | None:
    try:
        message = decode(body)
    except NotAMessage:
        return None
    return message.error() if isinstance(message, Problem) else None
