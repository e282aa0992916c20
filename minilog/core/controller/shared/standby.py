"""When a standby takes the term. It may be wrong at any moment: then it deposes one that was well,
and nothing is lost (R120). So it needs no certainty, and may be quick.

It takes
* at once on proof of death: the connection to who holds the term dropped and its port refuses, or
  another process answers there;
* at once when ``active`` named the holder and is gone: a planned end, or its lease is over;
* when the holder says nothing for SILENT_MS, neither here nor in etcd, where it writes all the
  time;
* after GRACE_MS where a holder never came to decide.

Damping: each change of the term within a minute beyond the first few doubles the pause before the
next, so two that cannot hear each other do not fight.

What it saw is of one term. The taking compares that (R121), so a look that is out of date deposes
nobody.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from minilog.core.controller.shared.reading import Look
from minilog.core.controller.shared.transaction import Entry
from minilog.core.controller.told.controller_moves import Move

SILENT_MS: Final = 1000
GRACE_MS: Final = 3000
CHANGES_FREE: Final = 4
CHANGES_FOR_MS: Final = 60_000
PAUSE_MS: Final = 500
PAUSE_MAX_MS: Final = 5000


class Standby:
    def __init__(self, url: str, now_ms: int) -> None:
        self._url = url
        self.look: Look | None = None
        self.why = ""
        """Why the term is to be taken, for people; "" while it is not."""
        self._looked_ms = now_ms
        self._since_ms = now_ms
        self._heard_ms = now_ms
        self._active_mod = 0
        self._was_active = False
        self._changes: deque[int] = deque(maxlen=16)

    @property
    def term(self) -> Entry | None:
        return None if self.look is None else self.look.term

    @property
    def holder_url(self) -> str:
        """Whom to ask whether it lives; "" for nobody, or for who had this very address before."""
        holder = None if self.look is None else self.look.holder
        return "" if holder is None or holder.url == self._url else holder.url

    @property
    def holder_nonce(self) -> str:
        holder = None if self.look is None else self.look.holder
        return "" if holder is None else holder.nonce

    def looked_ms_ago(self, now_ms: int) -> int:
        return max(0, now_ms - self._looked_ms)

    def on_look(self, look: Look, now_ms: int) -> None:
        before = None if self.look is None or self.look.term is None else self.look.term.mod
        now = None if look.term is None else look.term.mod
        if self.look is None or before != now:
            self.why, self._was_active = "", False
            self._since_ms = self._heard_ms = now_ms
            if self.look is not None:
                self._changes.append(now_ms)
        if now_ms - self._looked_ms > SILENT_MS // 2:  # this process stood still, or etcd did: nobody was listened to
            self._heard_ms = now_ms
        self.look, self._looked_ms = look, now_ms
        active = look.active
        names_holder = active is not None and active.nonce == self.holder_nonce
        if names_holder and look.active_mod != self._active_mod:
            self._heard_ms = now_ms
        self._active_mod = look.active_mod
        if self._was_active and not names_holder:
            self.why = self.why or "it is not named as the active one any more"
        self._was_active = self._was_active or names_holder
        self._judge(now_ms)

    def on_answer(self, nonce: str, now_ms: int) -> None:
        """Who holds that term decides, and has said so here."""
        if nonce == self.holder_nonce:
            self._heard_ms = now_ms

    def on_refused(self, nonce: str) -> None:
        """Nobody listens where the holder of that term did."""
        if nonce == self.holder_nonce:
            self.why = self.why or "its port refuses connections"

    def on_replaced(self, nonce: str) -> None:
        """Another process answers there. One that has begun to take may not decide yet: it is given
        its time."""
        if nonce == self.holder_nonce and self._was_active:
            self.why = self.why or "another process answers in its place"

    def move(self) -> Move | None:
        """What taking the term now is for people. None where nobody has decided before."""
        holder = None if self.look is None else self.look.holder
        return None if holder is None or not holder.url else Move(holder.url, self.why, self._heard_ms)

    def takes(self, now_ms: int) -> bool:
        return self.look is not None and bool(self.why) and now_ms >= self._since_ms + self._pause_ms(now_ms)

    def _judge(self, now_ms: int) -> None:
        assert self.look is not None
        if self.why:
            return
        if self.look.term is None:
            self.why = "nobody has held the term yet"
        elif self.look.holder is not None and self.look.holder.url == self._url:
            self.why = "it was this controller, before it started again"
        elif self._was_active and now_ms - self._heard_ms >= SILENT_MS:
            self.why = f"it has said nothing for {SILENT_MS} ms"
        elif not self._was_active and now_ms - self._since_ms >= GRACE_MS:
            self.why = "it has not begun to decide"

    def _pause_ms(self, now_ms: int) -> int:
        recent = sum(1 for at_ms in self._changes if now_ms - at_ms < CHANGES_FOR_MS)
        if recent <= CHANGES_FREE:
            return 0
        return min(PAUSE_MAX_MS, PAUSE_MS << (recent - CHANGES_FREE - 1))
