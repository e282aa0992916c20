"""What a scenario of the disk sweep works with, and who checks it: StoreWitness over the Store
(journal_witness.py has the one over the controller's journal).

Each call of a witness does one thing to the real storage and notes, in plain lists, what must be
there afterwards and what may be there if the call is interrupted. ``start`` and ``open`` compare.
Nothing here looks inside the storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Protocol, TypeVar

from minilog.config import TopicSettings
from minilog.errors import CorruptRange, DiskFull, RefusesToStart, StorageFailed
from minilog.storage import checkpoint, meta
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_state import STATE_FILE
from minilog.storage.store import Store
from minilog.wire.batch import Batch, split, stamp
from minilog.wire.records import Record
from tests.sim.sweep.faulty_disk import FaultyDisk
from tests.sim.sweep.log_model import UNBOUNDED, LogModel, as_bytes, check, check_clean, check_cleaned, held_by
from tests.unit.storage.compaction.rounds import clean_now
from tests.unit.storage.log.producer_model import check_table
from tests.unit.wire.batches import encode_batch

T = TypeVar("T")

DATA_DIR = "/data/broker"
DELETE_RETENTION_MS = 1000
SETTINGS = {
    "t": TopicSettings(segment_bytes=4096),
    "u": TopicSettings(segment_bytes=4096),
    "keyed": TopicSettings(
        segment_bytes=4096, cleanup_policy="compact,delete", delete_retention_ms=DELETE_RETENTION_MS
    ),
}
PRODUCER_ID, ACKS_LEVEL = 7, 3
Pair = tuple[bytes | None, bytes | None]


@cache
def numbered(base_offset: int, epoch: int, size: int) -> Batch:
    """One record of the only producer, whose sequence is the offset."""
    value = f"{base_offset}:{epoch}:".encode().ljust(size, b".")
    return _batch(((None, value),), base_offset, epoch)


@cache
def _batch(pairs: tuple[Pair, ...], base_offset: int, epoch: int) -> Batch:
    records = [Record(i, 1000, key, value) for i, (key, value) in enumerate(pairs)]
    data = encode_batch(records, producer_id=PRODUCER_ID, producer_epoch=0, base_sequence=base_offset)
    (batch,) = split(data, UNBOUNDED)
    return stamp(batch, base_offset, epoch, ACKS_LEVEL)


class Witness(Protocol):
    """What the sweep itself needs of a witness."""

    disk: FaultyDisk

    def start(self) -> None:
        """Start the process anew, and check what it finds."""
        ...

    def stop(self) -> None:
        """A clean stop."""
        ...

    def end(self, how: str) -> None:
        """The process has ended: "kill", "crash" (the machine's) or "eio"."""
        ...

    def go_on(self) -> None:
        """Write a little more, to see that it can be written to."""
        ...


class StoreWitness:
    def __init__(self, disk: FaultyDisk) -> None:
        self.disk = disk
        disk.mkdir("/data")
        disk.fsync_dir("/")
        self.store = Store(disk, DATA_DIR, 1, lambda: 0)
        self.models: dict[str, LogModel] = {}
        self.logs: dict[str, PartitionLog] = {}
        self._boot = 1
        self._phase = "ended"
        self._epochs = (0, 0)
        """(durable, highest that may have been saved)"""
        self._clusters = {""}
        self._must_be_unclean = True
        """Something may be missing, or the controller has not been told that it was."""
        self._must_be_clean = False
        self._deleting = ""
        self._window = False
        """A sync failed and the process was killed before it could withdraw the marker: "clean"
        says too much then."""

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, check what the store says of itself, and open every log."""
        self._phase = "starting"
        self.logs = {}
        clean = self._with_room(self._start_store)
        self._check_claims(clean)
        self._phase = "running"
        for topic, model in self.models.items():
            model.lossy = model.lossy and not (clean and not self._window)
            self.open(topic)

    def _start_store(self) -> bool:
        self.store = Store(self.disk, DATA_DIR, 1, lambda: 0)
        clean = self.store.start(f"boot-{self._boot}")
        self.store.recover(lambda: None)
        return clean

    def _check_claims(self, clean: bool) -> None:
        check(not (clean and self._must_be_unclean and not self._window), "the start claims to be clean")
        check(
            clean or not self._must_be_clean or bool(self.disk.struck), "nothing went wrong, and the start is unclean"
        )
        low, high = self._epochs
        epoch = self.store.controller_epoch
        check(low <= epoch <= high, f"controller epoch {epoch}, saved was {low}, tried {high}")
        self._epochs = (epoch, epoch)
        check(self.store.cluster_id in self._clusters, f"cluster {self.store.cluster_id!r} is none of {self._clusters}")
        self._clusters = {self.store.cluster_id}
        ids = {stored.topic: stored.topic_id for stored in self.store.partitions()}
        for topic, model in self.models.items():
            gone = topic == self._deleting or not model.exists
            check(gone or ids.get(topic) == model.topic_id, f"{topic} is {ids.get(topic)}")
        self.models = {topic: model for topic, model in self.models.items() if ids.get(topic) == model.topic_id}
        self._deleting = ""

    def registered(self) -> None:
        self._must_be_unclean = self._window = False  # the controller knows, whatever becomes of the note
        self._with_room(self.store.registered)
        self._must_be_clean = True

    def stop(self) -> None:
        self._phase = "stopping"
        told = not self._must_be_unclean
        self._with_room(lambda: self.store.close_cleanly(7))
        for topic in self.logs:
            model = self.models[topic]
            model.settle(model.start, model.batches, model.end)
        self._phase = "stopped" if told else "running"
        self.disk.kill()

    def end(self, how: str) -> None:
        if how == "crash":
            self.disk.crash(self.disk.rng)
            self._boot += 1
        elif how == "kill":
            self.disk.kill()
        else:
            self.disk.lose_pages(self.disk.rng)
            self._window = self._window or "kill" in how
        if how != "kill":
            self._must_be_unclean = self._must_be_unclean or self._phase == "running"
            self._must_be_clean = self._phase == "stopped" and how == "crash"
            for model in self.models.values():
                model.lossy = True
        self._phase = "stopped" if self._phase == "stopped" else "ended"

    def kill(self) -> None:
        self.end("kill")

    def crash(self) -> None:
        self.end("crash")

    def go_on(self) -> None:
        """Finish what was interrupted, write more to every log, stop, lose power, and find all of
        it again."""
        self.registered()
        for topic in self.logs:
            wanted_end, log = self.models[topic].wanted_end, self.logs[topic]
            if log.end_offset < log.swept_end:  # as a follower does before its first fetch
                self.reset(log.start_offset, topic)
            elif wanted_end is not None:
                self.truncate(wanted_end, topic)
            self.append(2, topic=topic)
            self.flush(topic)
        self.checkpoint()
        self.stop()
        self.crash()
        self.start()
        check(self.store.was_clean, "a clean stop was followed by an unclean start")

    # --- the broker's own state -------------------------------------------------------------------

    def bind(self, cluster: str) -> None:
        self._clusters.add(cluster)
        self._with_room(lambda: self.store.bind_cluster(cluster))
        self._clusters = {cluster}

    def controller_epoch(self, epoch: int) -> None:
        self._epochs = (self._epochs[0], epoch)
        self.store.save_controller_epoch(epoch)
        self._epochs = (epoch, epoch)

    def full_disk(self, action: Callable[[], None]) -> None:
        """Do it while no file can grow."""
        self.disk.full = True
        try:
            action()
        finally:
            self.disk.full = False

    def format_1(self, epoch: int) -> None:
        """The directory as versions left it that kept the controller epoch in ``meta.json``."""
        for name in (meta.META_FILE + checkpoint.PREVIOUS, meta.EPOCH_FILE):
            with suppress(FileNotFoundError):
                self.disk.remove(f"{DATA_DIR}/{name}")
        body = {"broker_id": 1, "cluster_id": self.store.cluster_id, "format": 1, "controller_epoch": epoch}
        checkpoint.save(self.disk, f"{DATA_DIR}/{meta.META_FILE}", body, keep_previous=False)
        self._epochs = (epoch, epoch)

    def checkpoint(self) -> None:
        self._with_room(self.store.checkpoint)

    # --- topics -----------------------------------------------------------------------------------

    def open(self, topic: str = "t", topic_id: str = "id-1") -> None:
        """Open or create. Of a log that was there before, everything is compared."""
        model = self.models.get(topic)
        if model is not None and model.topic_id != topic_id and topic in self.logs:
            self._deleting = topic
            model = None
        is_new = model is None
        model = model or LogModel(topic, topic_id)
        log = self._with_room(lambda: self.store.open(topic, model.topic_id, 0, SETTINGS[topic]))
        self.models[topic], self.logs[topic] = model, log
        self._deleting = ""
        if is_new:
            check((log.start_offset, log.end_offset) == (0, 0), "a new log is not empty")
        else:
            self._compare(model, log)

    def close(self, topic: str = "t") -> None:
        self._with_room(lambda: self.store.close(topic, 0))
        model = self.models[topic]
        model.settle(model.start, model.batches, model.end)
        del self.logs[topic]

    def delete(self, topic: str = "t") -> None:
        self._deleting = topic
        self._with_room(lambda: self.store.delete(topic, self.models[topic].topic_id, 0))
        del self.models[topic]
        self.logs.pop(topic, None)
        check(topic not in [stored.topic for stored in self.store.partitions()], "a deleted topic is still there")

    def purge(self) -> None:
        self._with_room(self.store.purge_trash)

    # --- one log ----------------------------------------------------------------------------------

    def append(self, count: int, *, epoch: int | None = None, size: int = 700, topic: str = "t") -> None:
        """``count`` batches in one write."""
        end_offset, epoch = self.models[topic].end, self._epoch(epoch, topic)
        self._append(tuple(numbered(end_offset + i, epoch, size) for i in range(count)), topic)

    def put(self, *pairs: Pair, epoch: int | None = None, topic: str = "keyed") -> None:
        """Keys and values (none: a tombstone) in one batch."""
        self._append((_batch(pairs, self.models[topic].end, self._epoch(epoch, topic)),), topic)

    def _epoch(self, epoch: int | None, topic: str) -> int:
        return max(self.logs[topic].last_epoch, 0) if epoch is None else epoch

    def _append(self, new: tuple[Batch, ...], topic: str) -> None:
        model, log = self.models[topic], self.logs[topic]
        batches = model.batches + new
        model.expected = model.expected._replace(batches=batches)
        self._log_step(topic, lambda: log.append(new))
        model.settle(model.start, batches, log.durable_end)

    def read(self, topic: str = "t") -> None:
        """As a consumer would, from every offset on, and by time."""
        model, log = self.models[topic], self.logs[topic]
        for batch in model.batches:
            data = log.read(batch.base_offset, UNBOUNDED, log.end_offset)
            check(data.startswith(batch.tobytes()), f"from {batch.base_offset} on there is something else")
        first = min(batch.base_offset for batch in model.batches)
        check(log.offset_at(1000) == (first, 1000), "the first record is not found by its time")

    def flush(self, topic: str = "t") -> None:
        model, log = self.models[topic], self.logs[topic]

        def flush() -> None:
            job = log.flush_job()
            job.run()
            check(log.complete(job), "a flush of this generation was refused")

        self._log_step(topic, flush)
        check(log.durable_end == model.end, f"flushed to {log.durable_end}, appended to {model.end}")
        model.settle(model.start, model.batches, model.end)

    def high_watermark(self, offset: int, topic: str = "t") -> None:
        self.logs[topic].high_watermark = self.models[topic].high_watermark = offset

    def truncate(self, end_offset: int, topic: str = "t") -> None:
        model, log = self.models[topic], self.logs[topic]
        if end_offset < log.state.unsure_end:
            self._refuses_to_be_cut(end_offset, topic)
            return
        kept = tuple(batch for batch in model.batches if batch.end_offset <= end_offset)
        cut = model.batches[len(kept) :]
        new_end = kept[-1].end_offset if kept else model.start
        model.cut += [batch for batch in cut if batch.end_offset <= model.durable_end]
        model.expected = model.expected._replace(
            durable_end=min(model.durable_end, new_end), written_end=min(model.end, new_end)
        )
        model.wanted_end = end_offset
        self._log_step(topic, lambda: log.truncate(end_offset))
        model.wanted_end = None
        model.high_watermark = min(model.high_watermark, new_end)
        model.cut += cut
        check(log.end_offset == new_end, f"truncated to {log.end_offset}, asked for {end_offset}")
        model.settle(model.start, kept, new_end)
        self._compare_quarantine(model)

    def _refuses_to_be_cut(self, end_offset: int, topic: str) -> None:
        """Its state was damaged and it has holes: it is damaged, and whoever knows that no record
        here counts has it begin anew."""
        log, held = self.logs[topic], self.logs[topic].end_offset
        try:
            log.truncate(end_offset)
        except CorruptRange:
            check(log.is_damaged and log.end_offset == held, "a refused cut leaves all of the log, and is known")
            self.reset(log.start_offset, topic)
            return
        check(False, f"cut to {end_offset}, and what was swept below {log.state.unsure_end} is not known")

    def begin_anew_below_the_sweep(self, end_offset: int, topic: str) -> None:
        """A cut below what was swept. What is left on the way lacks values and says so: then the
        leader has it begin anew."""
        model, log = self.models[topic], self.logs[topic]
        if end_offset < log.state.unsure_end:
            self._refuses_to_be_cut(end_offset, topic)
            return
        if not end_offset < log.swept_end <= log.end_offset:
            end_offset = log.start_offset  # it was interrupted
        model.cut = [batch for batch in model.batches if batch.base_offset >= end_offset]
        model.expected = model.expected._replace(
            durable_end=0, written_end=0, empty_at=(0, model.start), swept_end=log.swept_end
        )
        self._log_step(topic, lambda: log.truncate(end_offset))
        check(log.start_offset == log.end_offset, f"cut to {end_offset}, swept to {log.swept_end}: it holds something")
        model.high_watermark = log.start_offset
        model.settle(log.start_offset, (), log.start_offset)
        self._compare_quarantine(model)

    def reset(self, start_offset: int, topic: str = "t") -> None:
        model, log = self.models[topic], self.logs[topic]
        model.cut = []
        lost = [batch for batch in model.batches if batch.end_offset > model.high_watermark]
        lowest = min(model.start, 0)
        model.expected = model.expected._replace(
            durable_end=0, written_end=0, empty_at=(lowest, model.start, start_offset)
        )
        self._log_step(topic, lambda: log.reset(start_offset), resets=True)
        model.high_watermark = start_offset
        model.settle(start_offset, (), start_offset)
        model.cut = lost
        self._compare_quarantine(model)

    def advance_start(self, offset: int, topic: str = "t") -> None:
        """Retention. ``offset`` is the border of a batch."""
        model, log = self.models[topic], self.logs[topic]
        model.expected = model.expected._replace(starts=range(model.start, offset + 1))
        self._log_step(topic, lambda: log.advance_start(offset))
        kept = tuple(batch for batch in model.batches if batch.base_offset >= log.start_offset)
        model.gone += model.batches[: len(model.batches) - len(kept)]
        check(log.start_offset == offset, f"the log starts at {log.start_offset}, asked for {offset}")
        model.settle(log.start_offset, kept, log.durable_end)

    def compact(self, now_ms: int, *, tombstones_go: bool = False, topic: str = "keyed") -> None:
        """A whole round. With a full disk it is done again when there is room."""
        model, log = self.models[topic], self.logs[topic]
        model.expected = model.expected._replace(cleaned=True, tombstones_go=tombstones_go)
        try:
            check(clean_now(log, now_ms), "a round was given up, and nothing had changed under it")
        except (DiskFull, StorageFailed) as error:
            if not self.disk.full:
                raise
            self.disk.full = False
            if isinstance(error, StorageFailed):  # half-way through a swap: the process ends, the next one goes on
                self.kill()
                self.start()
                self.high_watermark(self.models[topic].high_watermark, topic)
            self.compact(now_ms, tombstones_go=tombstones_go, topic=topic)
            return
        finally:
            self.disk.full = False
        with self.disk.looking_on():
            found = held_by(log)
            check_cleaned(found, model.batches, tombstones_go=tombstones_go)
            check_clean(log, found)
        model.settle(log.start_offset, found, log.durable_end)

    def remove_garbage(self, topic: str) -> None:
        """Files that are no part of the log any more."""
        log = self.logs[topic]
        paths, log.garbage = log.garbage, []
        for path in paths:
            self.disk.remove(path)

    # --- a full disk ------------------------------------------------------------------------------

    def _log_step(self, topic: str, action: Callable[[], object], *, resets: bool = False) -> None:
        """On a full disk the log must be as before, serve reads, and do it when there is room."""
        model, log = self.models[topic], self.logs[topic]
        try:
            action()
        except DiskFull:
            self.disk.full = False
            if not (resets and log.start_offset == log.end_offset == model.start):
                check((log.start_offset, log.end_offset) == (model.start, model.end), "a full disk has changed the log")
                with self.disk.looking_on():
                    check(
                        as_bytes(held_by(log)) == as_bytes(model.batches), "a full disk has changed what the log holds"
                    )
            action()
        finally:
            self.disk.full = False

    def _with_room(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except DiskFull:
            self.disk.full = False
            return action()
        finally:
            self.disk.full = False

    # --- comparing --------------------------------------------------------------------------------

    def _compare(self, model: LogModel, log: PartitionLog) -> None:
        if log.is_damaged and self.disk.misread:
            raise RefusesToStart("what could not be read counts as damaged, until the next start")
        if self._window and log.is_damaged:
            self._repair(log, model.expected.durable_end)
        with self.disk.looking_on():
            batches = self._compare_batches(model, log)
            self._compare_state(model, log, batches)
            model.settle(log.start_offset, batches, log.durable_end)
            model.lossy = False
            self._compare_quarantine(model)

    def _compare_batches(self, model: LogModel, log: PartitionLog) -> tuple[Batch, ...]:
        expected, found = model.expected, held_by(log)
        floor = expected.durable_end if model.lossy else expected.written_end
        where = f"offsets {log.start_offset} to {log.end_offset}"
        if (
            model.lossy
            and self.disk.flipped
            and log.end_offset == floor - 1
            and self._is_kept_with_a_changed_bit(model, floor)
        ):
            floor -= 1
        if log.start_offset == log.end_offset and log.start_offset in expected.empty_at:
            return ()
        starts = expected.starts
        if STATE_FILE in self.disk.flipped:  # then the one before it holds, or none: what retention removed may be back
            starts = range(starts.stop)
        check(log.start_offset in starts, f"{where}: it may begin in {starts}")
        check(log.end_offset >= floor, f"{where}: written to {floor}")
        whole_from = 0 if STATE_FILE in self.disk.flipped else expected.swept_end
        check(log.end_offset >= whole_from or log.end_offset < log.swept_end, f"{where}: it was swept to {whole_from}")
        written = tuple(
            batch
            for batch in _in_order(model.gone + expected.batches)
            if log.start_offset <= batch.base_offset and batch.end_offset <= log.end_offset
        )
        if expected.cleaned:
            check_cleaned(found, written, tombstones_go=expected.tombstones_go)
            return found
        check(as_bytes(found) == as_bytes(written), f"{where}: it holds what was never written there")
        return written

    def _is_kept_with_a_changed_bit(self, model: LogModel, end_offset: int) -> bool:
        """The batch that ends there, in quarantine. After a power cut a bit that has changed in a
        last batch cannot be told from a write that was torn."""
        return any(
            len(kept) == batch.bytes_total
            and (int.from_bytes(kept, "big") ^ int.from_bytes(batch.tobytes(), "big")).bit_count() == 1
            for batch in model.expected.batches
            if batch.end_offset == end_offset
            for kept in self._quarantined(model.topic)
        )

    def _compare_state(self, model: LogModel, log: PartitionLog, batches: tuple[Batch, ...]) -> None:
        where = f"offsets {log.start_offset} to {log.end_offset}"
        check(not log.is_damaged, f"{where}: damaged {log.bad_ranges}, recovered {log.recovered}")
        check(log.durable_end == log.end_offset, f"durable to {log.durable_end} of {log.end_offset} after recovery")
        check(log.epoch_entries == log.recompute_epochs(), f"{where}: epochs {log.epoch_entries}")
        check(log.start_offset <= log.high_watermark <= log.end_offset, f"{where}: high watermark {log.high_watermark}")
        highest = max(model.high_watermark, log.start_offset)
        check(log.high_watermark <= highest, f"high watermark {log.high_watermark}, highest ever was {highest}")
        whole = log.start_offset == 0 and not log.settings.is_compacted
        wrong = check_table(log.producers.table, batches, whole=whole)
        check(not wrong, f"{where}: {wrong}")

    def _repair(self, log: PartitionLog, durable_end: int) -> None:
        """What a failed sync has lost is taken for damage when nobody could note the failure: cut,
        to be fetched again."""
        start = min(start for start, _ in log.bad_ranges)
        check(start >= durable_end, f"durable to {durable_end}, damaged {log.bad_ranges}")
        log.truncate(start)
        log.missing = None

    def _compare_quarantine(self, model: LogModel) -> None:
        missing = [batch for batch in model.cut if batch not in model.batches]
        if not missing:
            return
        kept = b"".join(self._quarantined(model.topic))
        for batch in missing:
            check(batch.tobytes() in kept, f"offset {batch.base_offset} was cut and is not in quarantine")

    def _quarantined(self, topic: str) -> list[bytes]:
        """What was cut of it, one cut after the other."""
        directory = f"{DATA_DIR}/quarantine/{topic}-0"
        with self.disk.looking_on():
            notes = [f"{directory}/{name}" for name in self.disk.list(directory) if name.endswith(".json")]
            whole = [path for path in notes if checkpoint.load(self.disk, path).body is not None]
            return [checkpoint.read_file(self.disk, path.removesuffix(".json") + ".log") or b"" for path in whole]


def _in_order(batches: tuple[Batch, ...]) -> Iterable[Batch]:
    """Each once, by offset."""
    return [batch for _, batch in sorted({batch.base_offset: batch for batch in batches}.items())]
