"""Producers of a log through restarts, cuts and power cuts: always what its batches say (R32), with
snapshots or without."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from minilog.errors import CorruptRange, StorageFailed
from minilog.storage import checkpoint
from minilog.storage.log import producer_snapshots, producers
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.log_place import RecoveryPoint
from minilog.storage.log.producer_snapshots import SUFFIX
from minilog.storage.recovery.recovery import NOTHING_KNOWN
from minilog.wire.batch import Batch, split, stamp
from minilog.wire.records import encode_values
from tests.unit.storage.batches import SMALL, everything, flush, open_in
from tests.unit.storage.log.producer_model import of_log, of_table
from tests.unit.storage.memory_disk import Crash, MemoryDisk

DIRECTORY = "/d/t-0"


def numbered(base_offset: int, sequence: int, producer_id: int = 7, epoch: int = 0, *, size: int = 10) -> Batch:
    value = b"%d:%d" % (base_offset, producer_id)
    data = encode_values(
        [value.ljust(size, b".")],
        1000 + base_offset,
        producer_id=producer_id,
        producer_epoch=0 if producer_id >= 0 else -1,
        base_sequence=sequence,
    )
    (batch,) = split(data, 2**31)
    return stamp(batch, base_offset, epoch, 0)


def write(log: PartitionLog, count: int, producer_id: int = 7, *, epoch: int = 0, size: int = 900) -> None:
    """Append batches that follow on each other."""
    for _ in range(count):
        known = log.producers.table.get(producer_id)
        sequence = -1 if producer_id < 0 else 0 if known is None else known.next_sequence
        log.append([numbered(log.end_offset, sequence, producer_id, epoch, size=size)])


def snapshots(disk: MemoryDisk) -> list[int]:
    return [int(name.partition(".")[0]) for name in disk.list(DIRECTORY) if name.endswith(SUFFIX)]


def path_of(offset: int) -> str:
    return f"{DIRECTORY}/{offset:020d}{SUFFIX}"


def check(log: PartitionLog) -> None:
    assert of_table(log.producers.table) == of_log(split(everything(log), 2**31, stored=True))


def reopened(disk: MemoryDisk, point: RecoveryPoint = NOTHING_KNOWN) -> PartitionLog:
    """After a kill -9."""
    return open_in(disk, point=point, power_loss=False)


def test_a_snapshot_is_made_at_each_roll_and_at_a_clean_stop_and_two_are_kept() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 4)
    assert snapshots(disk) == []
    write(log, 1)
    assert snapshots(disk) == [4]
    write(log, 12)
    assert snapshots(disk) == [4, 8, 12, 16], "nothing of this is committed: any of it may still be cut"
    log.high_watermark = 13
    write(log, 4)
    assert snapshots(disk) == [8, 12, 16, 20]
    log.high_watermark = log.end_offset
    log.close()
    assert snapshots(disk) == [20, 21]


def test_a_checkpoint_makes_one_when_enough_has_come_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.storage.log.stored_log.SNAPSHOT_BYTES", 1500)
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 1)
    log.checkpoint()
    assert snapshots(disk) == []
    write(log, 1)
    log.checkpoint()
    log.checkpoint()
    assert snapshots(disk) == [2]


def test_a_restart_reads_only_what_the_snapshot_does_not_know() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 5)
    body = checkpoint.decode(bytes(disk.file(path_of(4)).content))
    assert body is not None
    body["producers"][0][0] = 99  # believed, or it was not read at all
    disk.file(path_of(4)).content[:] = checkpoint.encode(body)
    table = reopened(disk).producers.table
    assert [producer_id for producer_id, _ in table.items()] == [99, 7]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "torn": lambda data: data[:-10],
    "zeros": lambda data: bytes(len(data)),
    "a flipped bit": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "not what it should say": lambda data: checkpoint.encode({"offset": 8}),
    "of another offset": lambda data: checkpoint.encode({**(checkpoint.decode(data) or {}), "offset": 9}),
    "of another log": lambda data: checkpoint.encode({**(checkpoint.decode(data) or {}), "last_epoch": 77}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("damaged", [[8], [4, 8]])
def test_a_damaged_snapshot_is_as_good_as_none(damage: Callable[[bytes], bytes], damaged: list[int]) -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 4)
    write(log, 2, 8)
    write(log, 4)
    assert snapshots(disk) == [4, 8]
    for offset in damaged:
        file = disk.file(path_of(offset))
        file.content[:] = damage(bytes(file.content))
    check(reopened(disk))


def test_without_room_there_is_no_snapshot_and_nothing_else_suffers() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 5)
    for operation in range(1, 12):
        disk.faults = {operation + len(disk.operations): "full"}
        log.producers.save(log.end_offset, 0, 0)
        disk.faults = {}
    log = reopened(disk)
    check(log)
    assert not [name for name in disk.list(DIRECTORY) if name.endswith(checkpoint.TEMPORARY)]


def test_a_cut_takes_the_numbers_with_it_and_the_snapshots_above() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 9)
    write(log, 2, 8)
    assert snapshots(disk) == [4, 8]
    log.truncate(10)
    assert snapshots(disk) == [4, 8]
    check(log)
    log.truncate(6)
    assert snapshots(disk) == [4]
    check(log)
    known = log.producers.table.get(7)
    assert known is not None
    assert known.next_sequence == 6
    write(log, 3, 8, epoch=1)
    check(log)
    check(reopened(disk))
    log.reset(100)
    assert snapshots(disk) == []
    check(log)


def test_a_power_cut_at_every_operation_of_a_cut_and_what_follows_leaves_no_number_of_the_old_tail() -> None:
    for last in range(1, 80):
        disk = MemoryDisk()
        log = open_in(disk)
        write(log, 9)
        flush(log)
        disk.faults = {len(disk.operations) + last: "crash"}
        try:
            log.truncate(5)
            write(log, 8, 8, epoch=1)
            flush(log)
        except Crash:
            pass
        done, disk.faults = not disk.faults or len(disk.operations) < max(disk.faults), {}
        disk.crash(random.Random(last))
        check(open_in(disk))
        if done:
            return
    raise AssertionError("it never got to the end")


def test_a_snapshot_of_a_tail_that_was_lost_does_not_speak_for_the_one_in_its_place() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 1, size=100)
    size = log.size_bytes
    write(log, 1, size=100)
    log.producers.save(2, 0, 0)
    del disk.file(f"{DIRECTORY}/{0:020d}.log").content[size + 20 :]
    log = open_in(disk)
    assert log.end_offset == 1
    write(log, 3, 8, size=100)
    check(reopened(disk))


def test_what_retention_has_taken_is_remembered_over_a_restart() -> None:
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 2)
    write(log, 8, 8)
    flush(log)
    log.high_watermark = 10
    before = of_table(log.producers.table)
    log.advance_start(6)
    assert of_table(reopened(disk).producers.table) == before


def test_how_long_a_silent_producer_is_remembered_is_the_topics_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WITNESSES", 2), ("PRODUCERS_KEPT", 4), ("FORGOTTEN_AT_ONCE", 2)):
        monkeypatch.setattr(producers, name, value)
    disk = MemoryDisk()
    log = open_in(disk, msgspec.structs.replace(SMALL, producer_id_expiration_ms=10_000))
    for producer_id in range(8):
        write(log, 1, producer_id)
    log.configure(msgspec.structs.replace(SMALL, producer_id_expiration_ms=1))
    write(log, 1, 8)
    assert [producer_id for producer_id, _ in log.producers.table.items()] == [2, 3, 4, 5, 6, 7, 8]
    before = of_table(log.producers.table)
    point = log.close()
    assert of_table(open_in(disk, log.settings, point).producers.table) == before


def test_what_cannot_be_read_of_a_log_is_not_left_out_of_its_producers() -> None:
    """R32: with some of the batches unread, a retry of one of them would be written again."""
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 10)
    point = log.close()
    for offset in snapshots(disk):
        disk.remove(path_of(offset))
    content = disk.file("/d/t-0/00000000000000000000.log").content
    content[100] ^= 1  # of a sealed segment: recovery has no other reason to read it
    with pytest.raises(CorruptRange, match="is damaged at byte 0"):
        reopened(disk, point)
    content[100] ^= 1
    log = reopened(disk, point)
    content[100] ^= 1
    with pytest.raises(StorageFailed, match="cut to offset 2"):
        log.truncate(2)


class ProducerMachine(RuleBasedStateMachine):
    """A log of numbered and other batches, and everything that can happen to it."""

    @initialize()
    def begin(self) -> None:
        self.disk = MemoryDisk()
        self.log = open_in(self.disk)
        self.epoch = 0
        self.point = NOTHING_KNOWN
        self.seen: set[int] = set()

    @rule(who=st.lists(st.sampled_from((-1, 1, 1, 2)), min_size=1, max_size=3), size=st.integers(10, 1500))
    def append(self, who: list[int], size: int) -> None:
        for producer_id in who:
            write(self.log, 1, producer_id, epoch=self.epoch, size=size)

    @rule(sequence=st.integers(0, 3))
    def append_out_of_order(self, sequence: int) -> None:
        self.log.append([numbered(self.log.end_offset, sequence, 1, self.epoch)])

    @rule()
    def flush(self) -> None:
        flush(self.log)

    @rule(fraction=st.floats(0, 1))
    def commit(self, fraction: float) -> None:
        high = self.log.high_watermark
        self.log.high_watermark = high + int(fraction * (self.log.end_offset - high))

    @rule()
    def checkpoint(self) -> None:
        self.point = self.log.checkpoint()

    @rule(fraction=st.floats(0, 1))
    def truncate(self, fraction: float) -> None:
        high = self.log.high_watermark
        self.log.truncate(high + int(fraction * (self.log.end_offset - high)))
        self.epoch += 1

    @rule(ahead=st.integers(0, 100))
    def reset(self, ahead: int) -> None:
        self.log.reset(self.log.end_offset + ahead)

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        if clean:
            self.point = self.log.close()
        else:
            self.log.abandon()
        self.log = reopened(self.disk, self.point)

    @rule(seed=st.integers(0, 2**32))
    def power_cut(self, seed: int) -> None:
        self.disk.crash(random.Random(seed))
        self.log = open_in(self.disk, point=self.point)

    @invariant()
    def knows_what_its_batches_say(self) -> None:
        check(self.log)
        there = set(snapshots(self.disk))
        if there - self.seen:  # the superfluous go when a new one is made, not when the high watermark passes them
            assert sum(offset <= self.log.high_watermark for offset in there) <= producer_snapshots.KEPT + 1
        self.seen = there


ProducerMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestProducerMachine = ProducerMachine.TestCase


def test_a_snapshot_of_an_older_version_is_read() -> None:
    """It held a time with each producer. Without it the whole log would have to be read."""
    disk = MemoryDisk()
    log = open_in(disk)
    write(log, 3)
    write(log, 2, 8)
    before = of_table(log.producers.table)
    point = log.close()
    for offset in snapshots(disk):
        body = checkpoint.decode(checkpoint.read_file(disk, path_of(offset)) or b"")
        assert body is not None
        body["time_ms"] = 4_100_000_000_000
        for _, producer in body["producers"]:
            producer.insert(2, 4_100_000_000_000)
        disk.remove(path_of(offset))
        checkpoint.write_synced(disk, path_of(offset), checkpoint.encode(body))
    kept = snapshots(disk)
    again = reopened(disk, point)
    assert of_table(again.producers.table) == before
    assert snapshots(disk) == kept
