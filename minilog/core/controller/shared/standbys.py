"""Which controllers stand by, as the active one has heard from them."""

from __future__ import annotations

from typing import Final, NamedTuple

from minilog.wire.admin_messages import ControllerInfo
from minilog.wire.messages import StandBy

FORGOTTEN_MS: Final = 5000
KNOWN_MAX: Final = 32


class Heard(NamedTuple):
    url: str
    metadata_offset: int
    heard_ms: int


class Standbys:
    def __init__(self) -> None:
        self._by_url: dict[str, Heard] = {}

    def hear(self, standby: StandBy, now_ms: int) -> None:
        if standby.url in self._by_url or len(self.known(now_ms)) < KNOWN_MAX:
            self._by_url[standby.url] = Heard(standby.url, standby.metadata_offset, now_ms)

    def known(self, now_ms: int) -> list[Heard]:
        """Those that have asked lately."""
        self._by_url = {url: heard for url, heard in self._by_url.items() if now_ms - heard.heard_ms < FORGOTTEN_MS}
        return sorted(self._by_url.values())


def controllers_of(url: str, metadata_offset: int, standbys: Standbys, now_ms: int) -> list[ControllerInfo]:
    """All of them as the active one, at ``url``, knows them."""
    heard = [
        ControllerInfo(one.url, "standby", one.metadata_offset, now_ms - one.heard_ms) for one in standbys.known(now_ms)
    ]
    return [ControllerInfo(url, "active", metadata_offset), *heard]
