"""What a member commits: which partitions it holds, how far the application is with each, and what
may be committed. Pure.

Invariants:
* A record counts as finished when the application has asked for the next one, or has said so by
  committing. What is finished never falls while reading goes on: only who reads elsewhere (a seek,
  a reset) may finish less than before.
* Only what is held under the current grant is committed. A record handed out before the partition
  was lost belongs to whoever has it now, even when it has come back meanwhile.
* A request is checked as a whole before anything of it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from minilog.errors import InvalidRequest, MinilogError, NotAssigned, StaleMemberEpoch
from minilog.wire.group_messages import OffsetCommit
from minilog.wire.http import INT64_MAX
from minilog_client.connection.backoff import Attempts
from minilog_client.consumer.partition_fetch import PartitionFetch
from minilog_client.consumer.records import AnyRecord, Record
from minilog_client.consumer.start import StartLike
from minilog_client.values import PartitionKey

METADATA_CHARS_MAX: Final = 1000


class Mark(NamedTuple):
    """The next record to read, and the epoch of the one before it (-1: unknown)."""

    offset: int
    leader_epoch: int


class Held:
    """One partition under one grant. ``low`` and ``high`` bound the offsets handed out under it."""

    __slots__ = (
        "_committed_in", "_finished_in", "_generation", "_may_fall", "attempts", "committed", "covered", "finished", "grant", "handed", "high", "low", "pinned",
        "state", "topic_id",
    )  # fmt: skip

    def __init__(
        self, grant: int, state: PartitionFetch, committed: Mark | None, pinned: bool, topic_id: str = ""
    ) -> None:
        self.grant = grant
        self.topic_id = topic_id
        """Of the very topic that was granted, "" if the coordinator does not say."""
        self.state = state
        self.committed = committed
        self.handed: Mark | None = None
        """Up to where the application was given records that it may be working on still."""
        self.finished: Mark | None = None
        self.covered: Mark | None = None
        """What was finished when something was committed last: the application may have said more,
        or less, than that, and is not contradicted until it goes on."""
        self.pinned = pinned
        """Where reading began is to be committed, because looking it up again would give something
        else."""
        self.low = committed.offset if committed else 0
        self.high = 0
        self.attempts = Attempts()
        """Commits that nobody has asked for, and that were refused in a row."""
        self._generation = state.generation
        self._finished_in = self._committed_in = 0
        self._may_fall = False

    def hand_out(self, mark: Mark, generation: int) -> None:
        """The application was given all before ``mark``. ``generation`` of the partition says since
        which move."""
        if generation > self._generation:  # reading was reset, so it went on elsewhere
            self._generation, self._may_fall, self.low = generation, True, 0
        self.handed = mark
        self.high = max(self.high, mark.offset)

    def finish_handed(self) -> None:
        """Everything handed out so far is done with."""
        if self.handed is not None:
            self.finish(self.handed)

    def finish_record(self, record: AnyRecord) -> None:
        self.finish(Mark(record.offset + 1, record.leader_epoch))

    def finish(self, mark: Mark) -> None:
        if self.finished is None or self._may_fall or mark.offset > self.finished.offset:
            self.finished, self._may_fall = mark, False
            self._finished_in = self._generation

    def follow(self) -> None:
        """The application works on none of its records, and reading has gone on where there are
        none any more, as compaction leaves it: the group is that far as well."""
        last, position = self.finished or self.committed, self.state.position
        read_in = self._finished_in or 1
        if last is not None and position is not None and position > last.offset and self.state.generation == read_in:
            self.finish(Mark(position, self.state.epoch_before(position)))

    def on_put_back(self) -> None:
        """Some of what was handed out is handed out once more: that is no move to elsewhere."""
        self._generation = self.state.generation
        self.handed = None

    def on_seek(self, to: StartLike, position: int | None) -> None:
        """The application reads on at ``to``, which was at ``position`` before, and finishes what
        it reads there."""
        self.high = max(self.high, position or 0)
        self.low = min(self.low, to) if isinstance(to, int) else 0
        self.handed = None
        self._generation, self._may_fall = self.state.generation, True

    def on_committed(self, mark: Mark, covered: Mark | None, generation: int) -> None:
        """``generation`` of the partition, in which that was asked for."""
        self.committed, self.covered = mark, covered
        self._committed_in = generation
        self.attempts.on_success()

    def due(self, with_finished: bool) -> Mark | None:
        """What is to be committed without being asked."""
        if self.state.remade_as:  # what was read is of a topic that is gone
            return None
        began_at = self.state.began_at
        if self._is_reset and began_at is not None:
            return Mark(*began_at)
        if with_finished and self.finished is not None:
            return None if self.finished in (self.covered, self.committed) else self.finished
        if self.pinned and self.committed is None and began_at is not None:
            return Mark(*began_at)
        return None

    @property
    def has_pin(self) -> bool:
        """Where reading began, or went on after a reset, is to be committed, and is not yet."""
        return self._is_reset or (self.pinned and self.committed is None)

    @property
    def _is_reset(self) -> bool:
        """Reading was reset, and nothing was finished, committed or sought since."""
        reset_in = self.state.reset_in
        return bool(reset_in) and self.state.generation == reset_in > max(self._finished_in, self._committed_in)

    def handed_out(self, offset: int) -> bool:
        return self.low <= offset < max(self.high, self.state.position or 0)


class Holdings(dict[PartitionKey, Held]):
    """What the member holds, and why it holds no more what it has lost."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: dict[PartitionKey, MinilogError] = {}

    def parse(self, what: object) -> dict[PartitionKey, Mark]:
        """``what`` an application asks to commit. Raises TypeError, InvalidRequest, NotAssigned,
        StaleMemberEpoch, UnknownMember."""
        if isinstance(what, Record):
            marks = self._of_records([what])
        elif isinstance(what, Mapping):
            marks = dict(_of_offset(key, value) for key, value in what.items())
        elif isinstance(what, Sequence) and not isinstance(what, str | bytes):
            marks = self._of_records(what)
        else:
            raise TypeError(
                "commit takes a record, a list of records, offsets like {('orders', 0): 42}, or nothing; "
                f"got {type(what).__name__}"
            )
        for key in marks:
            self.require(key)
        return marks

    def _of_records(self, records: Iterable[Any]) -> dict[PartitionKey, Mark]:
        marks: dict[PartitionKey, Mark] = {}
        for record in records:
            if not isinstance(record, Record):
                raise TypeError(f"a list to commit must hold records, got {type(record).__name__}")
            key = (record.topic, record.partition)
            self._require_handed_out(record, self.require(key))
            if key not in marks or marks[key].offset <= record.offset:
                marks[key] = Mark(record.offset + 1, record.leader_epoch)
        return marks

    def _require_handed_out(self, record: AnyRecord, held: Held) -> None:
        if not held.handed_out(record.offset):
            raise StaleMemberEpoch(
                f"the record {record.topic}-{record.partition} at {record.offset} was not handed out since this member "
                "was given the partition: it had lost it in between, and the record belongs to that time"
            )

    def require(self, key: PartitionKey) -> Held:
        held = self.get(key)
        if held is not None:
            return held
        name = f"{key[0]}-{key[1]}"
        reason = self.lost.get(key)
        if reason is not None:
            raise type(reason)(f"{name} was lost ({reason.detail}); whoever has it now commits for it")
        mine = ", ".join(f"{topic}-{partition}" for topic, partition in sorted(self)[:10]) or "nothing yet"
        raise NotAssigned(f"{name} is not assigned to this member; it has {mine}")


def _of_offset(key: Any, offset: Any) -> tuple[PartitionKey, Mark]:
    if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str) and isinstance(key[1], int)):
        raise TypeError(f"offsets to commit are named by (topic, partition), got {key!r}")
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise TypeError(f"the offset to commit for {key[0]}-{key[1]} must be a whole number, got {offset!r}")
    if not 0 <= offset <= INT64_MAX:
        raise InvalidRequest(f"the offset to commit for {key[0]}-{key[1]} is {offset}; allowed are 0 to {INT64_MAX}")
    return key, Mark(offset, -1)


class Wanted(NamedTuple):
    """One partition of a commit: the grant it is of, and what was finished under it when it was
    asked for."""

    key: PartitionKey
    held: Held
    mark: Mark
    covered: Mark | None
    generation: int

    def is_granted(self, granted: Mapping[PartitionKey, int]) -> bool:
        return granted.get(self.key) == self.held.grant

    def message(self, metadata: str) -> OffsetCommit:
        offset, leader_epoch = self.mark
        return OffsetCommit(*self.key, offset, leader_epoch, metadata, self.held.topic_id)
