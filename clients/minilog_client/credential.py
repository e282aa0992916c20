"""What a client shows of who it is, and whom it takes for a broker: read from files, so that
neither is in a program or in a process's arguments.

The token is sent to the URLs that the application names and to those that their metadata names. It
is read again when its file changes, so a new token needs no restart.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import stat
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from minilog.config import without_secrets
from minilog.errors import InvalidRequest

LOOK_EVERY_S: Final = 1.0
TOKEN_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Files:
    """Paths, "" for none. ``token_without_tls``: the token may go to other machines in plain
    text."""

    token: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    token_without_tls: bool = False


class Credential:
    def __init__(self, files: Files) -> None:
        """Raises InvalidRequest when a file cannot be used."""
        self._files = files
        self._token = _read_token(files.token) if files.token else ""
        self._looked_s = time.monotonic()
        self._context: ssl.SSLContext | None = None

    def headers(self, url: str) -> dict[str, str]:
        """What goes with a request to ``url``. A token file that cannot be used any more leaves the
        last token in force. Raises InvalidRequest where others could read the token on its way."""
        if self._token and not self._files.token_without_tls and _is_in_plain_sight(url):
            raise InvalidRequest(
                f"the token is not sent to {without_secrets(url)}: without TLS others can read it on the way; write "
                "https://, or say token_without_tls where the network is yours alone"
            )
        if self._files.token and time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            with contextlib.suppress(InvalidRequest):
                self._token = _read_token(self._files.token)
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def context(self) -> ssl.SSLContext | None:
        """For https URLs. None: whom this machine trusts, and no certificate of one's own."""
        files = self._files
        if self._context is None and (files.ca or files.cert):
            try:
                self._context = ssl.create_default_context(cafile=files.ca or None)
                if files.cert:
                    self._context.load_cert_chain(files.cert, files.key or None)
            except (OSError, ValueError) as error:
                self._context = None
                raise InvalidRequest(f"{files.ca or files.cert} cannot be used for TLS: {error}") from None
        return self._context


def _is_in_plain_sight(url: str) -> bool:
    """What is sent there leaves this machine, and is not encrypted."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return False
    try:
        return not ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname != "localhost"


def _read_token(path: str) -> str:
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"token_file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if mode & 0o077:
        raise InvalidRequest(f"token_file {path} has mode {mode:04o}: others may use it; allowed is 0600")
    if not token or not token.isprintable() or " " in token:
        raise InvalidRequest(f"token_file {path} holds no token; it must hold one, on one line")
    return token
