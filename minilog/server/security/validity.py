"""From when and until when a certificate holds, read from its PEM.

Python's library tells it of the certificates of others only, and not of one's own. What is read is
the beginning of RFC 5280's Certificate: version, serial number, algorithm, issuer, validity.
Pure. Whatever the bytes are, the outcome is a validity or None.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from typing import Final, NamedTuple

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


class Validity(NamedTuple):
    begins_ms: int
    ends_ms: int


def validity_of(pem: str) -> Validity | None:
    """Of all the certificates of a file together: the chain holds while each of them does."""
    found = [_read(block) for block in _BLOCK.findall(pem)]
    known = [validity for validity in found if validity is not None]
    if not known or len(known) < len(found):
        return None
    return Validity(max(one.begins_ms for one in known), min(one.ends_ms for one in known))


def _read(block: str) -> Validity | None:
    try:
        _, certificate, _ = _element(ssl.PEM_cert_to_DER_cert(block))
        _, body, _ = _element(certificate)
        tag, _, rest = _element(body)
        if tag == _VERSION:
            _, _, rest = _element(rest)  # the serial number
        for _ in ("algorithm", "issuer"):
            _, _, rest = _element(rest)
        tag, validity, _ = _element(rest)
        if tag != _SEQUENCE:
            return None
        first_tag, first, rest = _element(validity)
        last_tag, last, _ = _element(rest)
        return Validity(_time_ms(first_tag, first), _time_ms(last_tag, last))
    except ValueError:
        return None


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content, and what comes behind. Raises ValueError."""
    if len(data) < 2:
        raise ValueError("it ends too soon")
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        if not 1 <= size <= 4:
            raise ValueError("no length of a certificate")
    if len(data) < at + length:
        raise ValueError("it ends too soon")
    return tag, data[at : at + length], data[at + length :]


def _time_ms(tag: int, content: bytes) -> int:
    """Raises ValueError."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        year = 1900 if text[:2] >= "50" else 2000
        text = f"{year + int(text[:2])}{text[2:]}"
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp() * 1000)
