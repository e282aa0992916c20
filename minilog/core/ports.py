"""What the cores need from storage: protocols only, so that core and storage do not know each
other.

All offsets are record offsets. Every "end" is exclusive. All calls return at once (page cache),
except that ``open`` may read what recovery must read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from minilog.config import TopicSettings
from minilog.wire.batch import Batch
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.messages import ReplicaName


class WrittenBatch(Protocol):
    """Where a batch that was sent again lies in the log (R31). ``crc`` as stored, ``timestamp`` its
    latest record's."""

    @property
    def base_offset(self) -> int: ...

    @property
    def end_offset(self) -> int: ...

    @property
    def leader_epoch(self) -> int: ...

    @property
    def crc(self) -> int: ...

    @property
    def timestamp(self) -> int: ...


class ReplicaLog(Protocol):
    """One partition's log on this broker.

    Invariants: ``start_offset <= high_watermark <= end_offset``. ``durable_end <= end_offset``.
    Offsets contiguous and leader epochs non-decreasing from ``start_offset`` to ``end_offset``.
    """

    @property
    def start_offset(self) -> int: ...

    @property
    def start_epoch(self) -> int:
        """Leader epoch of the batch that ended at ``start_offset`` and has gone; -1 when there was
        none or it is not known."""
        ...

    @property
    def end_offset(self) -> int:
        """Log end offset (LEO): the offset the next record will get."""
        ...

    @property
    def durable_end(self) -> int:
        """Records below this offset have been fdatasynced."""
        ...

    @property
    def last_epoch(self) -> int:
        """Leader epoch of the last batch, -1 when the log is empty."""
        ...

    @property
    def swept_end(self) -> int:
        """Whatever compaction took out of this log, here or where it was copied from, went because
        of a record below this. A log that ends below it lacks values that nothing in it has
        overtaken."""
        ...

    @property
    def high_watermark(self) -> int:
        """The last committed end this replica was told; checkpointed now and then, so a floor,
        never a decision."""
        ...

    @high_watermark.setter
    def high_watermark(self, value: int) -> None: ...

    def append(self, batches: Sequence[Batch]) -> None:
        """Write batches whose offsets and epochs are final, in one write.

        The first ``base_offset`` must equal ``end_offset`` (asserted). Raises ``DiskFull`` (nothing
        was written, the log goes on) or ``StorageFailed`` (the process must stop).
        """
        ...

    def note_copied(self, swept_end: int) -> None:
        """What is about to be appended comes from a log that was swept up to there, and holds.
        Durable on return.

        Raises ``DiskFull``: nothing has changed."""
        ...

    def find_written(self, batches: Sequence[Batch]) -> Sequence[WrittenBatch | None]:
        """R31: for batches that a leader is about to append in one go, where each lies already;
        None: it is new.

        Empty when all are new. What the log knows of producers is a function of its batches alone
        (R32). Raises ProducerFenced, OutOfOrderSequence or DuplicateSequence.
        """
        ...

    def read(self, offset: int, max_bytes: int, end_offset: int) -> bytes:
        """Whole batches from the one that holds ``offset``, all below ``end_offset``.

        At least one batch when there is one, even if it is larger than ``max_bytes``. Otherwise at
        most ``max_bytes``. ``start_offset <= offset <= end_offset`` is the caller's duty. b"" at
        the end. Every batch is verified (CRC, contiguity) before it leaves; raises
        ``CorruptRange``.
        """
        ...

    def truncate(self, end_offset: int) -> int:
        """Cut the log so that its end is at most ``end_offset``, on a batch border; returns the new
        end."""
        ...

    def reset(self, start_offset: int, start_epoch: int = -1) -> None:
        """Drop everything and begin anew at ``start_offset`` (a follower whose leader has deleted
        that far).

        ``start_epoch`` is the leader's ``start_epoch`` there, so that this log can tell as well who
        diverges.

        What is not known to be committed goes to quarantine and is counted: what lies above the
        high watermark. All of it when ``start_offset`` is not beyond the end, because then the log
        diverges, and nobody knows from where on. Raises DiskFull: nothing is lost then that was not
        saved."""
        ...

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        """R2 lookup: (largest epoch <= ``epoch`` in the log, where that epoch ends).

        The end is the start of the next larger epoch, or ``end_offset`` for the last one. When no
        epoch <= ``epoch`` exists: (``epoch``, start of the lowest epoch), for an empty log
        (``epoch``, ``end_offset``).
        """
        ...

    def epoch_at(self, offset: int) -> int:
        """Leader epoch of the record at ``offset``; -1 when there is none."""
        ...

    def offset_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record whose timestamp is >= ``timestamp_ms``; None when
        there is none.

        Exact to the record for uncompressed batches and to the batch's base offset otherwise.
        """
        ...

    def look(self, now_ms: int) -> None:
        """Note that all there is had been written by ``now_ms``, the time of turns: from here on
        counts for how long it has been here (R40)."""
        ...

    def written_at(self, offset: int) -> tuple[int, int] | None:
        """(end offset, ms): what lies from ``offset`` up to there has been here for at least so
        long, or in the log it was copied from: time that was watched, no wall clock's. None when
        nothing is known of it yet."""
        ...

    def note_written(self, end_offset: int, ms_ago: int) -> None:
        """What lies below was copied from a log where all of it had been for so long."""
        ...

    def expired_end(self, wall_ms: int | None) -> int:
        """Where the log may start by the topic's retention settings, a border at or below the high
        watermark. ``start_offset`` when nothing is to go.

        ``wall_ms`` None: the time is not known for sure, and nothing goes because of its age."""
        ...

    def advance_start(self, offset: int) -> None:
        """Forget what lies below ``offset``, durably before anything goes. Raises DiskFull. Nothing
        has changed then.

        ``offset`` is at most the high watermark and ``durable_end`` (asserted)."""
        ...

    def maybe_roll(self, wall_ms: int | None) -> bool:
        """Begin a new segment when the active one has become too old, so that retention can get at
        it. Raises DiskFull."""
        ...

    def configure(self, settings: TopicSettings) -> None:
        """Take over changed topic settings (segment size, flush policy, ...)."""
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def is_damaged(self) -> bool:
        """Something that was durable cannot be read any more: not to be elected, not to count as in
        sync."""
        ...

    def note_damage(self) -> None:
        """Make durable that the log was found damaged, so that the next start looks again (R53).
        Raises DiskFull."""
        ...


class CutTail(Protocol):
    """Records that have left the end of a log and lie in quarantine. ``records_by_acks``: how many
    of unknown origin, with acks=0, acks=1, and more. ``end_offset`` is exclusive."""

    @property
    def partition(self) -> str:
        """``topic-partition``"""
        ...

    @property
    def reason(self) -> str: ...

    @property
    def base_offset(self) -> int: ...

    @property
    def end_offset(self) -> int: ...

    @property
    def last_epoch(self) -> int: ...

    @property
    def records_by_acks(self) -> tuple[int, int, int, int]: ...

    @property
    def unreadable_bytes(self) -> int:
        """What is no whole batch: nobody can count the records in it."""
        ...


class LogStore(Protocol):
    """The logs of one broker's data directory, and the little state that is the broker's own."""

    def open(self, topic: str, topic_id: str, partition: int, settings: TopicSettings) -> ReplicaLog:
        """Open or create. A directory left by an earlier topic of the same name is moved to trash
        first.

        Raises DiskFull, NameRefused (the file system takes no such directory), CorruptRange or
        StorageFailed."""
        ...

    def close(self, topic: str, partition: int) -> None: ...

    def delete(self, topic: str, topic_id: str, partition: int) -> None:
        """Move the partition's files to trash, if the directory belongs to that topic id.

        Raises ``DiskFull``. Then they stay, and the caller tries again."""
        ...

    def put_aside(self, topic: str, topic_id: str, partition: int) -> None:
        """As ``delete``, to ``stray/``, where they are kept."""
        ...

    def partitions(self) -> Sequence[tuple[str, str, int]]:
        """(topic, topic id, partition) of everything that has files here, open or not."""
        ...

    @property
    def lacks(self) -> int:
        """How often the disk had no room: it grows."""
        ...

    def take_cuts(self) -> Sequence[CutTail]:
        """What was cut since this was last asked, also before the logs were opened."""
        ...

    @property
    def records_lost(self) -> Sequence[int]:
        """Records cut since the start, in the order of ``CutTail.records_by_acks``: it grows."""
        ...

    @property
    def lost_kept(self) -> int:
        """Records in quarantine that were not written again, as of a moment ago."""
        ...

    @property
    def strays(self) -> int:
        """How many partitions are kept in ``stray/``."""
        ...

    @property
    def controller_epoch(self) -> int:
        """Highest controller epoch this broker has obeyed (R25), durable."""
        ...

    def save_controller_epoch(self, epoch: int) -> None: ...

    @property
    def directory_id(self) -> str:
        """Which data directory this is: made with it, never changed (R36)."""
        ...

    @property
    def broker_epoch(self) -> int:
        """The last broker epoch that was noted here, 0 for none."""
        ...

    def save_broker_epoch(self, epoch: int) -> None:
        """Durable on return. Raises ``DiskFull``."""
        ...

    @property
    def lost(self) -> Sequence[ReplicaName]:
        """Replicas that were here and were not found at the start (R37). Empty once the controller
        has been told."""
        ...

    @property
    def metadata(self) -> MetadataCopy:
        """What was applied here of the metadata, as it was last saved (R38)."""
        ...

    @property
    def cluster_id(self) -> str:
        """The cluster this data directory belongs to; "" before the first registration."""
        ...

    def bind_cluster(self, cluster_id: str) -> None:
        """Remember the cluster, durably, once; asserted to be unbound or the same."""
        ...
