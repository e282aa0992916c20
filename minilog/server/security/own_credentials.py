"""What a process shows of itself, and until when that holds: its certificate, its authority, its
token. Pure.

One that ends soon is told of while there is time: two weeks before, or with the last quarter of a
shorter life. A certificate that is renewed every day is not told of every day.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from minilog.core.access.policy import Credential
from minilog.server.security.tls import TlsFiles
from minilog.server.security.validity import validity_of
from minilog.wire.peer_messages import Condition

DAY_MS: Final = 86_400_000
SOON_MS: Final = 14 * DAY_MS
LAST_PART: Final = 4
KINDS: Final = ("certificate", "authority", "token")


class Lasting(NamedTuple):
    """``begins_ms`` None: nobody knows. ``where``: the file."""

    where: str
    ends_ms: int
    begins_ms: int | None = None

    @property
    def lifetime_ms(self) -> int | None:
        return None if self.begins_ms is None else self.ends_ms - self.begins_ms

    def ends_soon(self, now_ms: int) -> bool:
        early_ms = SOON_MS if self.lifetime_ms is None else min(SOON_MS, self.lifetime_ms // LAST_PART)
        return now_ms >= self.ends_ms - early_ms


def conditions(held: Mapping[str, Lasting], now_ms: int) -> list[Condition]:
    """``held``: by kind, which is certificate, authority or token."""
    found = []
    for kind, lasting in held.items():
        if not lasting.ends_soon(now_ms):
            continue
        is_over = now_ms >= lasting.ends_ms
        at = datetime.fromtimestamp(lasting.ends_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        found.append(
            Condition(
                f"{kind}_{'has_ended' if is_over else 'ends_soon'}",
                f"its {kind} in {lasting.where} {'has ended' if is_over else 'ends'} at {at}"
                + (", so others refuse it" if is_over else ""),
                f"put a new {kind} into the file; it is seen within a second, and no restart is needed",
                is_warning=not is_over,
            )
        )
    return found


def held_by(files: TlsFiles, token_file: str, token: Credential | None) -> dict[str, Lasting]:
    """Until when what a process shows of itself holds, as far as that is known."""
    found: dict[str, Lasting] = {}
    for kind, path in (("certificate", files.certificate), ("authority", files.ca)):
        with contextlib.suppress(OSError):
            validity = validity_of(Path(path).read_text("ascii", "replace")) if path else None
            if validity is not None:
                found[kind] = Lasting(path, validity.ends_ms, validity.begins_ms)
    if token is not None and token.not_after_ms is not None:
        found["token"] = Lasting(token_file, token.not_after_ms)
    return found
