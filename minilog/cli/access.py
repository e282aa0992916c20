"""Which token and which certificates the commands use: files, named by options or the environment.
A token is never an argument, for other users of the machine can read those."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from minilog_client.credential import Credential

TOKEN_FILE: Final = "MINILOG_TOKEN_FILE"
CA_FILE: Final = "MINILOG_CA_FILE"
CERT_FILE: Final = "MINILOG_CERT_FILE"
KEY_FILE: Final = "MINILOG_KEY_FILE"
WITHOUT_TLS: Final = "MINILOG_TOKEN_WITHOUT_TLS"
"""Set: the token may go to other machines in plain text."""


def use(variable: str, path: str | None) -> None:
    """What an option says wins over the environment."""
    if path is not None:
        os.environ[variable] = path


def use_by_default(named: Mapping[str, str]) -> None:
    """For this process and its children, unless somebody has named a token or an authority."""
    if TOKEN_FILE not in os.environ and CA_FILE not in os.environ:
        os.environ.update(named)


@contextlib.contextmanager
def adopted(named: Mapping[str, str]) -> Iterator[None]:
    """Whatever options and the environment say: what is asked is a cluster of one's own."""
    before = dict(os.environ)
    os.environ.update(named)
    try:
        yield
    finally:
        for name in named:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def client_options() -> dict[str, Any]:
    """For ``minilog_client``."""
    named = {"token_file": TOKEN_FILE, "ca_file": CA_FILE, "cert_file": CERT_FILE, "key_file": KEY_FILE}
    found: dict[str, Any] = {option: os.environ[name] for option, name in named.items() if os.environ.get(name)}
    return found | {"token_without_tls": True} if os.environ.get(WITHOUT_TLS) else found


def credential() -> Credential | None:
    """None where nothing is named. Raises InvalidRequest."""
    if not client_options():
        return None
    from minilog_client.credential import Credential, Files  # here, because it costs every start

    token, ca, cert, key = (os.environ.get(name, "") for name in (TOKEN_FILE, CA_FILE, CERT_FILE, KEY_FILE))
    return Credential(Files(token, ca, cert, key, token_without_tls=bool(os.environ.get(WITHOUT_TLS))))
