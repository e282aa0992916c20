"""Which etcd, and how this controller shows who it is: what the settings ``etcd_*`` say."""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

from minilog.config import ControllerSettings
from minilog.errors import RefusesToStart


class Endpoint(NamedTuple):
    host: str
    port: int
    is_tls: bool

    @classmethod
    def of(cls, url: str) -> Endpoint:
        parts = urlsplit(url)
        assert parts.hostname, "settings are checked when they are read"
        return cls(parts.hostname, parts.port or 2379, parts.scheme == "https")

    def __str__(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.host}:{self.port}"


class Access(NamedTuple):
    endpoints: tuple[Endpoint, ...]
    tls: ssl.SSLContext | None
    user: str
    password: str

    @classmethod
    def of(cls, settings: ControllerSettings) -> Access:
        """Raises RefusesToStart when a file cannot be used."""
        endpoints = tuple(Endpoint.of(url) for url in settings.etcd_url_list)
        tls = _tls(settings) if any(endpoint.is_tls for endpoint in endpoints) else None
        return cls(endpoints, tls, settings.etcd_user, _password(settings))


def _tls(settings: ControllerSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.etcd_ca_file or None)
    except OSError as error:
        raise RefusesToStart(f"etcd_ca_file = {settings.etcd_ca_file!r} cannot be used: {_why(error)}") from error
    if settings.etcd_cert_file:
        try:
            context.load_cert_chain(settings.etcd_cert_file, settings.etcd_key_file)
        except OSError as error:
            raise RefusesToStart(
                f"etcd_cert_file = {settings.etcd_cert_file!r} and etcd_key_file = {settings.etcd_key_file!r} cannot be "
                f"used: {_why(error)}; they must be a certificate and its own key, in PEM"
            ) from error
    return context


def _password(settings: ControllerSettings) -> str:
    path = settings.etcd_password_file
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            password = file.read().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RefusesToStart(f"etcd_password_file = {path!r} cannot be read: {_why(error)}") from error
    if not password:
        raise RefusesToStart(f"etcd_password_file = {path!r} is empty; it holds the password of etcd's user, alone")
    return password


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
