"""What a request shows of who sends it: a bearer token, the password of basic authentication, or
the names in a client certificate.

Pure, and asked before anybody is known: whatever the header holds, the outcome is a token, nothing,
or Unauthenticated.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from minilog.core.access.policy import Shown
from minilog.core.access.reason import Reason
from minilog.errors import InvalidRequest, Unauthenticated

TOKEN_CHARS_MAX: Final = 512
URI_SCHEME: Final = "minilog://"
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,512}=*")
_IN_TARGET: Final = re.compile(r"mlt_[A-Za-z0-9_-]{20}|[?&](?:access_)?token=", re.IGNORECASE)
_HOW: Final = "send 'Authorization: Bearer TOKEN', or the token as the password of basic authentication"


def refuse_token_in(target: str) -> None:
    """A URL is written into logs, histories and proxies. Raises InvalidRequest, which does not say
    the token again."""
    if _IN_TARGET.search(target):
        raise InvalidRequest(
            f"a token is in the URL, where others can read it: withdraw that token, and {_HOW}",
            reason=Reason.TOKEN_IN_URL,
        )


def shown_token(header: str | None) -> str:
    """Of the header Authorization; "" where there is none. Raises Unauthenticated, which never says
    what was seen."""
    if header is None:
        return ""
    scheme, _, rest = header.strip(" \t").partition(" ")
    rest = rest.strip(" \t")
    match scheme.lower():
        case "bearer":
            token = rest
        case "basic":
            token = _password(rest)
        case _:
            raise _malformed("Authorization must be Bearer or Basic")
    if len(token) > TOKEN_CHARS_MAX or not _TOKEN.fullmatch(token):
        raise _malformed("what Authorization holds is no token")
    return token


def _password(encoded: str) -> str:
    """The name before it is for people: the token says who it is."""
    try:
        decoded = base64.b64decode(encoded, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise _malformed("the basic authentication cannot be read") from None
    return decoded.partition(":")[2]


def _malformed(what: str) -> Unauthenticated:
    return Unauthenticated(f"{what}; {_HOW}", reason=Reason.MALFORMED_CREDENTIAL)


def certificate_names(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The principals that a certificate names, as ``ssl`` tells of one that it has checked."""
    if not certificate:
        return ()
    named = certificate.get("subjectAltName", ())
    return tuple(
        value[len(URI_SCHEME) :].rstrip("/") for kind, value in named if kind == "URI" and value.startswith(URI_SCHEME)
    )


def shown_by(header: str | None, certificate: Mapping[str, Any] | None) -> Shown:
    """A token wins over a certificate: that may be the one of a proxy or a machine."""
    return Shown(shown_token(header), certificate_names(certificate))
