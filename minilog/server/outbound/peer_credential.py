"""What this process shows the peers that it asks, and whom it takes for one."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final, NamedTuple


class PeerCredential(NamedTuple):
    """``token`` "": none is shown. ``context`` is for peers whose URL says https."""

    token: str = ""
    context: ssl.SSLContext | None = None


AsPeer = Callable[[], PeerCredential]
NOTHING_SHOWN: Final[AsPeer] = PeerCredential
