"""EtcdJournal: the journal that several controllers share, of which one at a time holds the term.

The decisions are those of ``core/controller/shared``. This is their shell: it carries out one
transaction after the other, and the same one again until its answer is known (R123).

    look            what a standby sees: who holds the term, and what is new in the journal
    take            the term, if it is still the one that was seen
    open            take whatever term there is, and read all: for who is alone
    append, snapshot   as every journal's, fenced
    tend            says in ``active`` that this controller decides, from a thread of its own

Calls block. ``look`` has a connection of its own, and so has ``tend``: neither waits for an append
that waits for etcd.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from minilog.config import ControllerSettings
from minilog.controller.etcd.access import Access
from minilog.controller.etcd.gateway import Gateway, Pin
from minilog.controller.frames import JOURNAL, SNAPSHOT, frame, scan
from minilog.controller.journal import GivenUp, Replayed
from minilog.core.controller.shared.fence import Active, Fence, Term, parts, taken, taking
from minilog.core.controller.shared.places import Places
from minilog.core.controller.shared.reading import Gap, Look, Stored, look_of, looking, read
from minilog.core.controller.shared.snapshots import Snapshotting, generations
from minilog.core.controller.shared.transaction import (
    Answer,
    Compare,
    Delete,
    Entry,
    Get,
    NotSent,
    Put,
    Refused,
    Transaction,
    Unsure,
)
from minilog.errors import Deposed, RefusesToStart, StorageFailed
from minilog.wire.journal.metadata_records import MetadataRecord

log = logging.getLogger("minilog.etcd")

FRAME_BYTES_MAX: Final = 512 * 1024
"""Of one request. A decision that is larger has several frames."""
PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Between attempts."""
TOLD_EVERY: Final = 10
TEND_S: Final = 0.25


class EtcdJournal:
    def __init__(self, settings: ControllerSettings, holder: str = "", url: str = "") -> None:
        """Raises RefusesToStart when a file of the settings cannot be used."""
        access, pin = Access.of(settings), Pin()
        self.places = Places(settings.etcd_prefix)
        self.term: Term | None = None
        """Of this controller, once it is taken."""
        self._holder, self._url = holder, url
        self._lease_s = -(-settings.etcd_lease_ms // 1000)
        self._writing, self._looking, self._tending = (
            Gateway(access, pin, self.places.term, settings.etcd_timeout_ms) for _ in range(3)
        )
        self._fence: Fence | None = None
        self._snap: Entry | None = None
        self._snapshot_index = self._last_index = 0
        self._given_up = threading.Event()
        self._busy = threading.Lock()
        self._tender: threading.Thread | None = None
        self.now_ms: Callable[[], int] = lambda: 0
        self.on_held: Callable[[int], None] = lambda asked_ms: None
        """Told from threads when it was asked what etcd has answered to: the term was held
        (R124)."""

    @property
    def place(self) -> str:
        return f"etcd below {self.places.prefix}"

    @property
    def last_index(self) -> int:
        return self._last_index

    @property
    def tail_records(self) -> int:
        return self._last_index - self._snapshot_index

    # --- standing by ------------------------------------------------------------------------------

    def look(self, after: int) -> Look:
        """Raises NotSent, Unsure or RefusesToStart. Once."""
        try:
            return look_of(self.places, after, self._looking.run(looking(self.places, after)))
        except Refused as error:
            raise RefusesToStart(str(error)) from error

    def read_all(self) -> tuple[Replayed, int]:
        """Everything that counts now, and its end, without a term: what a standby begins with."""
        stored = self._read(self._looking)
        return self._replayed(stored), stored.end_index

    def take(self, seen: Entry | None, url: str = "") -> bool:
        """The term, if it is still ``seen``. False: another was faster, or nobody can tell any
        more."""
        number = 1
        former = None if seen is None else Term.decode(seen.value)
        if seen is not None and former is None:
            raise RefusesToStart(f"{self.places.term} in etcd is no term of a controller: {seen.value[:80]!r}")
        if former is not None:
            number = former.number + 1
        term = Term(number, self._holder, url or self._url, uuid.uuid4().hex)
        asked_ms = self.now_ms()
        with self._busy:
            try:
                mod = taken(self._until_known(taking(self.places, seen, term)), term)
            except StorageFailed as error:
                raise RefusesToStart(str(error)) from error
            if mod is None:
                return False
            self.term = term
            self._fence = Fence(self.places, mod, None)
            self.on_held(asked_ms)
            return True

    # --- as every journal -------------------------------------------------------------------------

    def open(self) -> Replayed:
        """Read everything, under a term of one's own. Raises RefusesToStart and Deposed."""
        try:
            while self.term is None:
                self.take(self._now())
            with self._busy:
                return self._open()
        except StorageFailed as error:
            raise RefusesToStart(str(error)) from error

    def _now(self) -> Entry | None:
        return self._until_known(Transaction((), (Get(self.places.term),))).only(0)

    def _open(self) -> Replayed:
        assert self._fence is not None
        stored = self._read(self._writing)
        self._fence.check_term(stored.term)
        self._fence = Fence(self.places, self._fence.term_mod, stored.end)
        self._fence.on_cleared(self._until_known(self._fence.clearing(stored.end_index)))
        self._snap, self._last_index = stored.snap, stored.end_index
        replayed = self._replayed(stored)
        self._snapshot_index = replayed.snapshot_index
        return replayed

    def resume(self, after: int) -> list[MetadataRecord] | None:
        """As ``open``, for who has replayed up to ``after`` and has taken the term. None: what
        follows there is gone, so all has to be read."""
        with self._busy:
            assert self._fence is not None, "no term was taken"
            records: list[MetadataRecord] = []
            while True:
                answer = self._until_known(looking(self.places, after + len(records)))
                look = look_of(self.places, after + len(records), answer)
                self._fence.check_term(look.term)
                if look.is_gap:
                    return None
                records += records_of(look.frames, after + len(records) + 1)
                if after + len(records) == look.end_index:
                    break
            self._snap = self._until_known(Transaction((), (Get(self.places.snap),))).only(0)
            self._fence = Fence(self.places, self._fence.term_mod, answer.only(1))
            self._fence.on_cleared(self._until_known(self._fence.clearing(look.end_index)))
            self._last_index = look.end_index
            self._snapshot_index = next((one.index for one in generations(self.places, self._snap)), 0)
            return records

    def append(self, records: Sequence[MetadataRecord]) -> int:
        """As ``Journal``. Raises Deposed as well."""
        assert records, "nothing to append"
        with self._busy:
            assert self._fence is not None, "no term was taken"
            asked_ms = self.now_ms()
            for part in parts(self._last_index + 1, _frames(self._last_index + 1, records)):
                self._fence.on_appended(part, self._until_known(self._fence.appending(part)))
            self._last_index += len(records)
            self.on_held(asked_ms)
            return self._last_index

    def snapshot(self, index: int, records: Sequence[MetadataRecord]) -> None:
        with self._busy:
            assert self._fence is not None, "no term was taken"
            assert index == self._last_index, f"a snapshot at {index} of a journal that ends at {self._last_index}"
            making = Snapshotting(self._fence, index, frame(SNAPSHOT, index, records), self._snap)
            revision = 0
            for step in making.steps():
                answer = self._until_known(step)
                revision = answer.revision
                self._snap = making.on_done(step, answer) or self._snap
            self._snapshot_index = index
            self._compact(revision)

    def begin_with(self, index: int, records: Sequence[MetadataRecord]) -> None:
        """Let an empty journal begin behind ``records``, which stand for everything up to
        ``index``."""
        with self._busy:
            assert self._fence is not None, "no term was taken"
            assert self._last_index == 0, "only an empty journal can begin anew"
            making = Snapshotting(self._fence, index, frame(SNAPSHOT, index, records), self._snap)
            *pieces, last = making.steps()
            last = last._replace(then=(*last.then, Put(self.places.end, b"%d" % index)))
            for step in (*pieces, last):
                making.on_done(step, self._until_known(step))

    def resign(self) -> None:
        """Nobody holds the term now. Raises Deposed."""
        self._leave(Delete(self.places.term), Delete(self.places.active))

    def clear(self) -> None:
        """The journal is somewhere else now: nothing stays below the prefix. Raises Deposed, and
        then all stays."""
        self._leave(Delete(self.places.prefix, self.places.behind))

    def _leave(self, *deletions: Delete) -> None:
        with self._busy:
            assert self._fence is not None, "no term was taken"
            held = (Compare(self.places.term, self._fence.term_mod),)
            answer = self._until_known(Transaction(held, deletions, (Get(self.places.term),)))
            fence, self._fence = self._fence, None
            if not answer.succeeded and answer.only(0) is not None:  # else an earlier attempt was carried out
                fence.check_term(answer.only(0))

    def give_up(self) -> None:
        """Nobody waits for etcd any more: the process ends."""
        self._given_up.set()

    def close(self) -> None:
        """A planned end says that nobody decides now, so that a standby takes over at once."""
        self._given_up.set()
        if self._tender is not None:
            self._tender.join()
        with self._busy:
            if self._fence is not None:
                try:
                    self._writing.run(self._fence.leaving())
                except (NotSent, Unsure, Refused) as error:
                    log.info("standbys wait for the lease: %s", error)
            for gateway in (self._writing, self._looking, self._tending):
                gateway.close()

    # --- the hint ---------------------------------------------------------------------------------

    def tend(self, epoch: int, on_deposed: Callable[[Deposed], None]) -> None:
        """Name this controller in ``active`` from now on. ``on_deposed`` is called from a thread,
        at most once."""
        assert self.term is not None
        active = Active(self.term.url, epoch, self.term.nonce)
        self._tender = threading.Thread(target=self._tend, args=(active, on_deposed), name="lease", daemon=True)
        self._tender.start()

    def _tend(self, active: Active, on_deposed: Callable[[Deposed], None]) -> None:
        lease, gateway, fence = 0, self._tending, self._fence
        assert fence is not None
        while not self._given_up.is_set():
            try:
                if not lease or not gateway.keep_alive(lease):
                    lease = gateway.grant(self._lease_s)
                asked_ms = self.now_ms()
                answer = gateway.run(fence.saying_active(active), lease)
                if not answer.succeeded:
                    fence.check_term(answer.only(0))
                self.on_held(asked_ms)
            except Deposed as deposed:
                on_deposed(deposed)
                return
            except (NotSent, Unsure, Refused) as error:
                log.debug("etcd was not told that this controller decides: %s", error)
                lease = 0 if isinstance(error, Refused) else lease
            except Exception:  # without this thread the controller is sure of nothing, and answers nobody
                log.exception("etcd was not told that this controller decides; the next try follows")
            self._given_up.wait(TEND_S)

    # --- transactions -----------------------------------------------------------------------------

    def _until_known(self, transaction: Transaction) -> Answer:
        """R123: the same again, until etcd says what became of it. Raises StorageFailed when it
        refuses."""
        attempt = 0
        while True:
            try:
                answer = self._writing.run(transaction)
            except Refused as error:
                raise StorageFailed(f"the journal in {self.place} cannot be written: {error}") from error
            except (NotSent, Unsure) as error:
                attempt += 1
                if attempt % TOLD_EVERY == 3:
                    log.warning("etcd does not answer, nothing is decided until it does: %s", error)
                self._pause(attempt)
                continue
            if attempt >= 3:
                log.warning("etcd answers again, after %d attempts", attempt)
            return answer

    def _pause(self, attempt: int) -> None:
        if self._given_up.wait(PAUSES_S[min(attempt, len(PAUSES_S)) - 1]):
            raise GivenUp

    def _read(self, gateway: Gateway) -> Stored:
        """Read until it fits together: a snapshot may take frames away meanwhile."""
        attempt = 0
        while True:
            try:
                return read(self.places, gateway.run)
            except Refused as error:
                raise RefusesToStart(f"the journal in {self.place} cannot be read: {error}") from error
            except (NotSent, Unsure, Gap) as error:
                attempt += 1
                if isinstance(error, Gap) and attempt > len(PAUSES_S):
                    self._refuse(f"metadata records are missing: {error}")
                if attempt == 3:
                    log.warning("the journal in %s cannot be read yet: %s", self.place, error)
                self._pause(attempt)

    def _replayed(self, stored: Stored) -> Replayed:
        snapshot: list[MetadataRecord] = []
        if stored.snapshot:
            found = scan(SNAPSHOT, stored.snapshot, 0, stored.snapshot_index)
            if found.damage is not None:
                self._refuse(f"its snapshot is not readable: {found.damage.reason}")
            snapshot = found.records
        tail = records_of(stored.frames, stored.snapshot_index + 1)
        if stored.snapshot_index + len(tail) != stored.end_index:
            self._refuse(
                f"it ends at record {stored.end_index}, and its frames hold no more than "
                f"{stored.snapshot_index + len(tail)}"
            )
        return Replayed(stored.snapshot_index, snapshot, tail)

    def _refuse(self, what: str) -> NoReturn:
        raise RefusesToStart(
            f"the journal in {self.place} cannot be used: {what}. Nothing was changed. Restore etcd from a copy, or make "
            "the journal anew from the brokers (minilog controller recover, then minilog controller migrate)"
        )

    def _compact(self, revision: int) -> None:
        """What the snapshot has replaced goes from etcd's disk too. Not urgent."""
        try:
            self._writing.compact(revision)
        except (NotSent, Unsure, Refused) as error:
            log.info("etcd was not compacted, the next snapshot tries again: %s", error)


def records_of(frames: Sequence[tuple[int, bytes]], first: int) -> list[MetadataRecord]:
    """Raises RefusesToStart where they do not join."""
    records: list[MetadataRecord] = []
    for index, data in frames:
        expected = first + len(records)
        found = scan(JOURNAL, data, 0, index)
        if index != expected or found.damage is not None:
            reason = f"record {expected} is expected" if found.damage is None else found.damage.reason
            raise RefusesToStart(f"the frame of record {index} in etcd is damaged: {reason}. Nothing was changed")
        records += found.records
    return records


def _frames(first: int, records: Sequence[MetadataRecord]) -> list[tuple[int, bytes]]:
    """One frame, or as many as it takes for each to be small enough for a request."""
    data = frame(JOURNAL, first, records)
    if len(data) <= FRAME_BYTES_MAX or len(records) == 1:
        if len(data) > 2 * FRAME_BYTES_MAX:
            raise StorageFailed(f"record {first} takes {len(data)} bytes: too much for one request to etcd")
        return [(len(records), data)]
    half = len(records) // 2
    return _frames(first, records[:half]) + _frames(first + half, records[half:])
