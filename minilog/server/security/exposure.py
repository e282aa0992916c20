"""Who can reach a process, and by which names."""

from __future__ import annotations

import ipaddress
import logging
import socket
from urllib.parse import urlsplit

from minilog.config import BrokerSettings, ControllerSettings
from minilog.errors import RefusesToStart

log = logging.getLogger("minilog.security")
Settings = BrokerSettings | ControllerSettings


def own_names(settings: Settings) -> frozenset[str]:
    """By which this process may be asked."""
    named = [settings.host, socket.gethostname(), *(name.strip() for name in settings.host_names.split(","))]
    told = getattr(settings, "advertised_url", "")
    if told:
        named.append(urlsplit(told).hostname or "")
    return frozenset(name.lower().rstrip(".") for name in named if name)


def check_listener(settings: Settings, address: str, role: str) -> None:
    """Raises RefusesToStart where strangers could do everything and nobody has said that they
    may."""
    if is_loopback(address):
        return
    if settings.security_file:
        if not settings.tls_cert_file and settings.tokens_without_tls != "always":
            raise RefusesToStart(
                f"{role} would listen on {address}, which other machines reach, without TLS: it could take no token "
                "from them, because others can read it on the way. Give it tls_cert_file and tls_key_file. Where "
                'something before it speaks TLS, on a network that is yours alone, say tokens_without_tls = "always"'
            )
        return
    if not settings.insecure:
        raise RefusesToStart(
            f"{role} would listen on {address}, which other machines reach, and there is no security file: whoever "
            "connects could read, change and delete everything. `minilog token create NAME --file security.toml "
            "--allow ...` begins one, and security_file names it. On a network where everybody may do everything "
            "say insecure = true"
        )
    log.warning(
        "%s listens on %s without a security file (insecure = true): whoever connects can read, change and delete everything",
        role,
        address,
    )


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
