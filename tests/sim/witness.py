"""What a scenario of the disk sweep works with, and who checks it: StoreWitness over the Store, JournalWitness over the
controller's journal.

Each call of a witness does one thing to the real storage and notes, in plain lists, what must be there afterwards and
what may be there if the call is interrupted. ``start`` and ``open`` compare; nothing here looks inside the storage.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, Protocol, TypeVar

from minilog.config import TopicSettings
from minilog.controller.journal import FileJournal
from minilog.errors import DiskFull, RefusesToStart, StorageFailed
from minilog.storage import checkpoint
from minilog.storage.log import PartitionLog
from minilog.storage.store import Store
from minilog.wire.batch import Batch
from minilog.wire.metadata import MetadataRecord, ProducerIdsAllocated
from tests.sim.faulty_disk import FaultyDisk
from tests.unit.storage.batches import everything, make

T = TypeVar("T")

SETTINGS = TopicSettings(segment_bytes=4096)
DATA_DIR = "/data/broker"
JOURNAL_DIR = "/data/controller"
make_batch = cache(make)


class Broken(AssertionError):
    """A promise of the storage was broken."""


def check(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)


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


class Expected(NamedTuple):
    """What a log may hold when it is opened next: a run of ``batches`` from a start in ``starts`` on.

    It ends at ``written_end`` or later, or, if unsynced writes may be missing, at ``durable_end`` or later; or else it
    is empty and begins at one of ``empty_at``.
    """

    batches: tuple[Batch, ...]
    starts: range
    durable_end: int
    written_end: int
    empty_at: tuple[int, ...] = ()


class LogModel:
    def __init__(self, topic: str, topic_id: str) -> None:
        self.topic, self.topic_id = topic, topic_id
        self.start = self.durable_end = self.high_watermark = 0
        self.batches: tuple[Batch, ...] = ()
        self.cut: list[Batch] = []
        """What a truncation has cut or may have cut: in the log or in quarantine."""
        self.wanted_end: int | None = None
        """Of a truncation that was interrupted: the leader asks for it again."""
        self.lossy = False
        """Unsynced writes may be missing: the process did not simply end."""
        self.exists = False
        """Something in it was durable, so its directory is."""
        self.expected = Expected((), range(1), 0, 0)

    @property
    def end(self) -> int:
        return self.batches[-1].end_offset if self.batches else self.start

    def settle(self, start: int, batches: tuple[Batch, ...], durable_end: int) -> None:
        """Nothing is under way: exactly this is in the log."""
        self.start, self.batches, self.durable_end = start, batches, durable_end
        self.exists = self.exists or durable_end > start
        self.expected = Expected(batches, range(start, start + 1), durable_end, self.end)


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
        """A sync failed and the process was killed before it could withdraw the marker: "clean" says too much then."""

    # --- life --------------------------------------------------------------------------------------------------

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
        return self.store.start(f"boot-{self._boot}")

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
        """Finish what was interrupted, write more to every log, stop, lose power, and find all of it again."""
        self.registered()
        for topic in self.logs:
            wanted_end = self.models[topic].wanted_end
            if wanted_end is not None:
                self.truncate(wanted_end, topic)
            self.append(2, topic=topic)
            self.flush(topic)
        self.checkpoint()
        self.stop()
        self.crash()
        self.start()
        check(self.store.was_clean, "a clean stop was followed by an unclean start")

    # --- the broker's own state --------------------------------------------------------------------------------

    def bind(self, cluster: str) -> None:
        self._clusters.add(cluster)
        self._with_room(lambda: self.store.bind_cluster(cluster))
        self._clusters = {cluster}

    def controller_epoch(self, epoch: int) -> None:
        self._epochs = (self._epochs[0], epoch)
        self._with_room(lambda: self.store.save_controller_epoch(epoch))
        self._epochs = (epoch, epoch)

    def checkpoint(self) -> None:
        self._with_room(self.store.checkpoint)

    # --- topics ------------------------------------------------------------------------------------------------

    def open(self, topic: str = "t", topic_id: str = "id-1") -> None:
        """Open or create; of a log that was there before, everything is compared."""
        model = self.models.get(topic)
        if model is not None and model.topic_id != topic_id and topic in self.logs:
            self._deleting = topic
            model = None
        is_new = model is None
        model = model or LogModel(topic, topic_id)
        log = self._with_room(lambda: self.store.open(topic, model.topic_id, 0, SETTINGS))
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

    # --- one log -----------------------------------------------------------------------------------------------

    def append(self, count: int, *, epoch: int | None = None, size: int = 700, topic: str = "t") -> None:
        """``count`` batches in one write."""
        model, log = self.models[topic], self.logs[topic]
        if epoch is None:
            epoch = max(log.last_epoch, 0)
        new = tuple(make_batch(model.end + i, epoch, size=size) for i in range(count))
        batches = model.batches + new
        model.expected = model.expected._replace(batches=batches)
        self._log_step(topic, lambda: log.append(new))
        model.settle(model.start, batches, log.durable_end)

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
        model.cut += cut
        check(log.end_offset == new_end, f"truncated to {log.end_offset}, asked for {end_offset}")
        model.settle(model.start, kept, new_end)
        self._compare_quarantine(model)

    def reset(self, start_offset: int, topic: str = "t") -> None:
        model, log = self.models[topic], self.logs[topic]
        model.cut = []
        lowest = min(model.start, 0)
        model.expected = model.expected._replace(
            durable_end=0, written_end=0, empty_at=(lowest, model.start, start_offset)
        )
        self._log_step(topic, lambda: log.reset(start_offset), resets=True)
        model.high_watermark = start_offset
        model.settle(start_offset, (), start_offset)

    def advance_start(self, offset: int, topic: str = "t") -> None:
        """Retention; ``offset`` is the border of a batch."""
        model, log = self.models[topic], self.logs[topic]
        model.expected = model.expected._replace(starts=range(model.start, offset + 1))
        self._log_step(topic, lambda: log.advance_start(offset))
        kept = tuple(batch for batch in model.batches if batch.base_offset >= log.start_offset)
        check(log.start_offset == offset, f"the log starts at {log.start_offset}, asked for {offset}")
        model.settle(log.start_offset, kept, log.durable_end)

    # --- a full disk -------------------------------------------------------------------------------------------

    def _log_step(self, topic: str, action: Callable[[], object], *, resets: bool = False) -> None:
        """On a full disk the log must be as before, serve reads, and do it when there is room."""
        model, log = self.models[topic], self.logs[topic]
        try:
            action()
        except DiskFull:
            self.disk.full = False
            if not (resets and log.start_offset == log.end_offset == model.start):
                check((log.start_offset, log.end_offset) == (model.start, model.end), "a full disk has changed the log")
                check(everything(log) == _bytes(model.batches), "a full disk has changed what the log holds")
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

    # --- comparing ---------------------------------------------------------------------------------------------

    def _compare(self, model: LogModel, log: PartitionLog) -> None:
        expected = model.expected
        if self._window and log.is_damaged:
            self._repair(log, expected.durable_end)
        found = everything(log)
        floor = expected.durable_end if model.lossy else expected.written_end
        where = f"offsets {log.start_offset} to {log.end_offset}"
        if log.start_offset == log.end_offset and log.start_offset in expected.empty_at:
            batches: tuple[Batch, ...] = ()
        else:
            check(log.start_offset in expected.starts, f"{where}: it may begin in {expected.starts}")
            check(log.end_offset >= floor, f"{where}: written to {floor}")
            batches = tuple(
                batch
                for batch in expected.batches
                if log.start_offset <= batch.base_offset and batch.end_offset <= log.end_offset
            )
            check(found == _bytes(batches), f"{where}: it holds what was never written there")
        check(not log.is_damaged, f"{where}: damaged {log.bad_ranges}, recovered {log.recovered}")
        check(log.durable_end == log.end_offset, f"durable to {log.durable_end} of {log.end_offset} after recovery")
        check(log.epoch_entries == log.recompute_epochs(), f"{where}: epochs {log.epoch_entries}")
        check(log.start_offset <= log.high_watermark <= log.end_offset, f"{where}: high watermark {log.high_watermark}")
        highest = max(model.high_watermark, log.start_offset)
        check(log.high_watermark <= highest, f"high watermark {log.high_watermark}, highest ever was {highest}")
        model.settle(log.start_offset, batches, log.durable_end)
        model.lossy = False
        self._compare_quarantine(model)

    def _repair(self, log: PartitionLog, durable_end: int) -> None:
        """What a failed sync has lost is taken for damage when nobody could note the failure: cut, to be fetched again."""
        start = min(start for start, _ in log.bad_ranges)
        check(start >= durable_end, f"durable to {durable_end}, damaged {log.bad_ranges}")
        log.truncate(start)
        log.missing = None

    def _compare_quarantine(self, model: LogModel) -> None:
        missing = [batch for batch in model.cut if batch not in model.batches]
        if not missing:
            return
        directory = f"{DATA_DIR}/quarantine/{model.topic}-0"
        kept = b""
        for name in self.disk.list(directory):
            if name.endswith(".json") and checkpoint.load(self.disk, f"{directory}/{name}").body is not None:
                kept += checkpoint.read_file(self.disk, f"{directory}/{name.removesuffix('.json')}.log") or b""
        for batch in missing:
            check(batch.tobytes() in kept, f"offset {batch.base_offset} was cut and is not in quarantine")


class JournalWitness:
    """A decision is a list of records; ``decided`` holds those of all that were acknowledged, in order."""

    def __init__(self, disk: FaultyDisk) -> None:
        self.disk = disk
        disk.mkdir("/data")
        disk.fsync_dir("/")
        self.journal = FileJournal(JOURNAL_DIR, disk)
        self.decided: list[MetadataRecord] = []
        self._under_way: list[MetadataRecord] = []

    def start(self) -> None:
        self.journal = FileJournal(JOURNAL_DIR, self.disk)
        try:
            replayed = self.journal.open()
        except RefusesToStart:
            if not self.disk.full:
                raise
            self.journal.close()
            self.disk.full = False
            self.journal = FileJournal(JOURNAL_DIR, self.disk)
            replayed = self.journal.open()
        self.disk.full = False
        found = [*replayed.snapshot, *replayed.tail]
        check(
            found in (self.decided, self.decided + self._under_way),
            f"{len(found)} records were found, {len(self.decided)} acknowledged, {len(self._under_way)} under way",
        )
        check(self.journal.last_index == len(found), f"the last index is {self.journal.last_index} of {len(found)}")
        self.decided, self._under_way = found, []

    def append(self, count: int) -> None:
        first = len(self.decided) + 1
        self._under_way = [ProducerIdsAllocated(1, number) for number in range(first, first + count)]
        try:
            last = self.journal.append(self._under_way)
        except StorageFailed:
            if not self.disk.full:
                raise
            self.kill()  # a controller does not go on without a journal; it does when there is room
            self.disk.full = False
            self.start()
            self.append(count)
            return
        check(last == first + count - 1, "an index has a gap")
        self.decided = self.decided + self._under_way
        self._under_way = []

    def snapshot(self) -> None:
        """A full disk puts it off; the journal goes on."""
        self.journal.snapshot(len(self.decided), self.decided)
        self.disk.full = False

    def stop(self) -> None:
        self.journal.close()
        self.disk.kill()

    def end(self, how: str) -> None:
        if how == "crash":
            self.disk.crash(self.disk.rng)
        elif how == "kill":
            self.disk.kill()
        else:
            self.disk.lose_pages(self.disk.rng)

    def kill(self) -> None:
        self.end("kill")

    def crash(self) -> None:
        self.end("crash")

    def go_on(self) -> None:
        self.append(2)
        self.snapshot()
        self.append(1)
        self.crash()
        self.start()


def _bytes(batches: tuple[Batch, ...]) -> bytes:
    return b"".join(batch.tobytes() for batch in batches)
