"""Under which names a process may be asked, and whose pages may ask. Pure.

A page of a stranger whose name is made to resolve to this process (DNS rebinding) is "same origin"
for a browser, but its requests name the stranger's host. An address made of numbers cannot be
rebound, so it is always one's own.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from minilog.core.access.reason import Reason
from minilog.errors import Forbidden
from minilog.wire.http import shown

LOCAL: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
ANY: Final = "*"


class OwnNames(NamedTuple):
    """``names`` are in lower case; with ``*`` among them any will do. ``origins`` are those of
    ``cors_origins``."""

    names: frozenset[str]
    origins: frozenset[str] = frozenset()

    def check(self, host: str | None, origin: str | None) -> None:
        """``host`` and ``origin`` are the headers of a request. Raises Forbidden. Without a Host no
        browser asks."""
        if host and not self._is_own(host):
            raise Forbidden(
                f"Host is {shown(host)}, which is no name of this process; ask by an address of numbers, by "
                "localhost, or by a name in its settings: host, advertised_url, host_names",
                reason=Reason.FOREIGN_NAME,
            )
        if origin and not self._may_ask(origin, host or ""):
            raise Forbidden(
                f"Origin is {shown(origin)}: pages from elsewhere may not ask here; cors_origins names those that may",
                reason=Reason.FOREIGN_ORIGIN,
            )

    def _is_own(self, host: str) -> bool:
        name = host_of(host)
        return ANY in self.names or name in self.names or name in LOCAL or _is_address(name)

    def _may_ask(self, origin: str, host: str) -> bool:
        if ANY in self.origins or origin in self.origins:
            return True
        scheme, separator, there = origin.partition("://")
        return bool(separator) and scheme in ("http", "https") and bool(host) and there.lower() == host.lower()


def host_of(authority: str) -> str:
    """Without its port, in lower case. The dot of the root is no part of a name."""
    text = authority.strip(" \t").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
