"""Places: who holds the connections of a process, and who gives way when all of them are held
(R45).

Owns two bounds. The *open* places are for everybody. Of who waits for nothing but its client's next
move, the one that has waited longest gives way to a newcomer, and of all clients first the one that
holds the most. The *reserved* places are the cluster's. Whoever finds no open place is *on trial*
in one of them until its first request is there. A request of the cluster keeps the place, any other
is refused. So who only holds connections keeps no broker from registering and no follower from
fetching.

Invariants: a holder is in one pool. A request of the cluster takes its connection into the
reserve, where no stranger makes it give way, for as long as there is room. Who gives way has no
request that is being carried out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv6Address
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

RESTED_MS: Final = 200
"""Who has waited for less is about to send its next request, which would be lost with the
connection. Only who holds more than twice as many places as the newcomer gives way sooner."""


class Holder(Protocol):
    @property
    def is_waited_for(self) -> bool:
        """Nothing is carried out for it: the next move is its client's."""
        ...


H = TypeVar("H", bound=Holder)


class Entry(Enum):
    TAKEN = "taken"
    ON_TRIAL = "on trial"
    REFUSED = "refused"


class Admission(NamedTuple, Generic[H]):
    """``leaver``: whose place it is now. That one is to be told, and closed."""

    entry: Entry
    leaver: H | None = None


class Places(Generic[H]):
    def __init__(self, places_max: int, reserved: int) -> None:
        """``reserved``: of ``places_max``, for the cluster. A quarter of all at most."""
        reserved = min(reserved, places_max // 4)
        self.open: _Pool[H] = _Pool(places_max - reserved)
        self.reserved: _Pool[H] = _Pool(reserved)
        self._on_trial: dict[H, None] = {}

    def enter(self, holder: H, client: str, now_ms: int) -> Admission[H]:
        if self.open.has_room:
            self.open.add(holder, client, now_ms)
            return Admission(Entry.TAKEN)
        leaver = self.open.who_gives_way(client, now_ms)
        if leaver is not None:
            self.leave(leaver)
            self.open.add(holder, client, now_ms)
            return Admission(Entry.TAKEN, leaver)
        return self._try(holder, client, now_ms)

    def _try(self, holder: H, client: str, now_ms: int) -> Admission[H]:
        leaver = None
        if not self.reserved.has_room:
            leaver = self._longest_on_trial() or self.reserved.who_gives_way(client, now_ms)
            if leaver is None:
                return Admission(Entry.REFUSED)
            self.leave(leaver)
        self.reserved.add(holder, client, now_ms)
        self._on_trial[holder] = None
        return Admission(Entry.ON_TRIAL, leaver)

    def _longest_on_trial(self) -> H | None:
        return next((holder for holder in self._on_trial if holder.is_waited_for), None)

    def is_on_trial(self, holder: H) -> bool:
        return holder in self._on_trial

    def vouch(self, holder: H) -> None:
        """Its request is one of the cluster's own."""
        self._on_trial.pop(holder, None)
        if holder in self.open and self.reserved.has_room:
            self.reserved.add(holder, self.open.remove(holder), None)

    def work(self, holder: H) -> None:
        """Something is carried out for it from now on, or will be when all of it has come."""
        for pool in (self.open, self.reserved):
            pool.work(holder)

    def rest(self, holder: H, now_ms: int) -> None:
        """It waits for its client's next move from now on."""
        for pool in (self.open, self.reserved):
            pool.rest(holder, now_ms)

    def counts(self) -> dict[str, int]:
        """Connections by who holds them. Of clients, apart, those that wait for nothing but their
        client."""
        resting = self.open.resting
        return {
            "busy": len(self.open) - resting,
            "idle": resting,
            "cluster": len(self.reserved) - len(self._on_trial),
            "on_trial": len(self._on_trial),
        }

    def leave(self, holder: H) -> None:
        """It holds no place any more, if it did."""
        self._on_trial.pop(holder, None)
        for pool in (self.open, self.reserved):
            if holder in pool:
                pool.remove(holder)


class _Pool(Generic[H]):
    """Places of one kind. ``_resting``: by client, who waits for it, since when, the longest
    first."""

    def __init__(self, places_max: int) -> None:
        self.places_max = places_max
        self._clients: dict[H, str] = {}
        self.counts: Counter[str] = Counter()
        self._resting: dict[str, dict[H, int]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[H]:
        return iter(self._clients)

    def __contains__(self, holder: H) -> bool:
        return holder in self._clients

    @property
    def resting(self) -> int:
        return sum(map(len, self._resting.values()))

    @property
    def has_room(self) -> bool:
        return len(self._clients) < self.places_max

    def add(self, holder: H, client: str, now_ms: int | None) -> None:
        """``now_ms`` None: something is carried out for it."""
        self._clients[holder] = client
        self.counts[client] += 1
        if now_ms is not None:
            self.rest(holder, now_ms)

    def remove(self, holder: H) -> str:
        """Whose it was."""
        self.work(holder)
        client = self._clients.pop(holder)
        self.counts[client] -= 1
        if not self.counts[client]:
            del self.counts[client]
        return client

    def work(self, holder: H) -> None:
        client = self._clients.get(holder)
        resting = self._resting.get(client) if client is not None else None
        if client is not None and resting is not None and resting.pop(holder, None) is not None and not resting:
            del self._resting[client]

    def rest(self, holder: H, now_ms: int) -> None:
        client = self._clients.get(holder)
        if client is not None:
            resting = self._resting.setdefault(client, {})
            resting.pop(holder, None)
            resting[holder] = now_ms

    def who_gives_way(self, client: str, now_ms: int) -> H | None:
        """To a newcomer of ``client``: the one that has waited longest, of who holds the most, or
        of ``client`` itself."""
        held = self.counts.get(client, 0)
        for rival in self._by_places():
            count = self.counts[rival]
            if rival != client and count <= held:
                break
            holder = self._longest(rival)
            if holder is not None and (count > 2 * held + 1 or now_ms - self._resting[rival][holder] >= RESTED_MS):
                return holder
        holder = self._longest(client)
        return holder if holder is not None and now_ms - self._resting[client][holder] >= RESTED_MS else None

    def _by_places(self) -> Iterator[str]:
        """The clients somebody of whom rests, who holds the most first. Usually the first will
        do."""
        if self._resting:
            first = max(self._resting, key=self.counts.__getitem__)
            yield first
            yield from sorted(self._resting.keys() - {first}, key=lambda client: (-self.counts[client], client))

    def _longest(self, client: str) -> H | None:
        """Who has waited longest. Those that have got all that they waited for leave the queue."""
        while (resting := self._resting.get(client)) is not None:
            holder = next(iter(resting))
            if holder.is_waited_for:
                return holder
            self.work(holder)
        return None


def client_of(address: object) -> str:
    """Who is at the other end of a connection, by its address. A network of IPv6 addresses (/64) is
    one client: whoever has one of them has all."""
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    if ":" not in host:
        return host
    try:
        parsed = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
