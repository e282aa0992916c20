"""TLS of a process: the context its listener serves with, and the one by which it reaches peers.

A new certificate is loaded into the living context, so new handshakes show it and no connection
ends. It is tried in another context before, because a half that fits no key would end all of them.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from minilog.settings_checks import BadSettings


@dataclass(frozen=True)
class TlsFiles:
    """Paths, "" for none. ``ca``: who must have signed the certificates of peers and of clients."""

    certificate: str
    key: str
    ca: str

    @property
    def paths(self) -> list[str]:
        return [path for path in (self.certificate, self.key, self.ca) if path]


class Tls:
    """``server`` is None where the listener speaks plain HTTP. ``client`` is for https:// peers."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises BadSettings."""
        self.files = files
        self.server: ssl.SSLContext | None = None
        self.client = _client(files)
        if files.certificate:
            self.server = _server(files)

    def load_again(self) -> None:
        """Raises BadSettings. Then what was loaded before stays. A certificate authority that is
        taken out of its file is trusted until the next start: contexts only learn."""
        files = self.files
        if self.server is not None:
            _server(files)
        _client(files)
        if self.server is not None:
            _load(self.server, files)
        _load(self.client, files)


def _server(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, files)
    if files.ca:
        context.verify_mode = ssl.CERT_OPTIONAL  # who shows none is asked for a token
    return context


def _client(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH) if not files.ca else _own_client()
    _load(context, files)
    return context


def _own_client() -> ssl.SSLContext:
    """Trusts the cluster's own authority, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        if files.certificate:
            what = f"{files.certificate} and {files.key}"
            context.load_cert_chain(files.certificate, files.key, password=_no_password)
        if files.ca:
            what = files.ca
            context.load_verify_locations(files.ca)
    except ssl.SSLError as error:
        why = error.reason or str(error)
        raise BadSettings(
            f"{what} cannot be used for TLS: {why.replace('_', ' ').lower()}; they must be PEM, and fit"
        ) from None
    except (OSError, ValueError) as error:
        raise BadSettings(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted; minilog asks nobody for a password, so store it without, with mode 0600")
