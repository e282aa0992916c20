"""Messages to HTTP and back. Pure: nothing here opens a connection.

The data plane (Produce, Fetch, Offsets) is msgpack. The admin routes are JSON made from the same
structs, and metadata is whichever of the two the broker offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from minilog.errors import InternalError, InvalidRequest, MinilogError
from minilog.wire.group_messages import GroupRequest
from minilog.wire.http import JSON, MSGPACK, PROBLEM, SHOWN_MAX, error_from_response, shown, without_secrets
from minilog.wire.messages import (
    AddPartitions,
    Fetch,
    InitProducer,
    Message,
    NotAMessage,
    Offsets,
    Problem,
    Produce,
    decode,
    encode,
)
from minilog.wire.routes import path_of
from minilog_client.connection.strangers import marked
from minilog_client.connection.transport import Response

ACCEPT_EITHER: Final = f"{MSGPACK}, {JSON};q=0.5"
_ENVELOPE_HEADERS: Final[Mapping[str, str]] = {"Content-Type": MSGPACK, "Accept": MSGPACK}
_QUERY_BYTES_MAX: Final = 4000

Reply = TypeVar("Reply", bound=msgspec.Struct)
Envelope = Produce | Fetch | Offsets | InitProducer | AddPartitions | GroupRequest


def broker_urls(bootstrap: str | Sequence[str]) -> list[str]:
    """``"http://a:8082,http://b:8082"`` or a sequence of URLs, checked. A missing ``http://`` is
    added."""
    parts = bootstrap.split(",") if isinstance(bootstrap, str) else list(bootstrap)
    return [_broker_url(part) for part in parts if not isinstance(part, str) or part.strip()]


def _broker_url(part: object) -> str:
    if not isinstance(part, str):
        raise InvalidRequest(f"a broker URL must be a string, got {type(part).__name__}")
    text = part.strip()
    url = (text if "://" in text else f"http://{text}").removesuffix("/")
    try:
        pieces = urlsplit(url)
        is_bare = not pieces.path and "?" not in url and "#" not in url
        valid = pieces.scheme in ("http", "https") and bool(pieces.hostname) and is_bare and pieces.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise InvalidRequest(f"{without_secrets(part)!r} is not a broker URL; write it like http://127.0.0.1:8082")
    if "@" in pieces.netloc:
        raise InvalidRequest(
            f"{without_secrets(part)!r} has a user or a password in it; token_file names a token's file"
        )
    return url


def envelope(message: Envelope) -> tuple[str, Mapping[str, str], bytes]:
    """(path, headers, body) of a native request; raises InvalidRequest for a number that has no
    form there."""
    if isinstance(message, Produce):
        path = "/v1/produce"
    else:
        path = "/v1/fetch" if isinstance(message, Fetch | Offsets) else "/internal/rpc"
    try:
        return path, _ENVELOPE_HEADERS, encode(message)
    except NotAMessage as error:
        raise InvalidRequest(f"the request is refused: {error}") from None


def metadata_path(topics: Iterable[str]) -> tuple[str, bool]:
    """The metadata route for ``topics``, and whether it asks for all topics because their names
    fill no one URL."""
    names = ",".join(topics)
    if not names or len(names) > _QUERY_BYTES_MAX:
        return path_of("metadata"), True
    return path_of("metadata", {"topics": names}), False


def _of(error: MinilogError, response: Response, url: str) -> MinilogError:
    """``error``, and if it is none of a broker's: who answers there, and what."""
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media in (PROBLEM, MSGPACK, JSON):
        return error
    kind = f", {shown(media)}" if media else ""
    stranger = type(error)(
        f"{url} is answered by another server than a broker, or by a proxy: HTTP status {response.status}{kind}: "
        f"{shown(response.body[:SHOWN_MAX])}",
        definite=False,
    )
    return marked(stranger)


def reply_from(response: Response, url: str, kind: type[Reply]) -> Reply:
    """The message in ``response``; raises the error it carries instead, or InternalError when it
    makes no sense."""
    if not 200 <= response.status < 300:
        raise _of(error_from_response(response.status, response.headers, response.body), response, url)
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    message: Message | msgspec.Struct
    try:
        if media == MSGPACK:
            message = decode(response.body)
        else:
            message = msgspec.json.decode(response.body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        unreadable = InternalError(f"{url} sent an answer that is not a {kind.__name__}: {error}")
        raise (unreadable if media == MSGPACK else _of(unreadable, response, url)) from error
    if isinstance(message, Problem):
        raise message.error()
    if not isinstance(message, kind):
        raise InternalError(f"{url} sent a {type(message).__name__} where a {kind.__name__} belongs")
    return message
