"""Logs that were recovered before anybody opens them."""

from __future__ import annotations

import pytest

from minilog.config import TopicSettings
from minilog.storage.store import Checked
from minilog.wire.batch import split, stamp
from minilog.wire.records import encode_values
from tests.unit.storage.batches import everything, fill, flush
from tests.unit.storage.memory_disk import Crash, MemoryDisk
from tests.unit.storage.store.store_bench import SETTINGS, crashed_with_logs, started, store_on


def test_a_recovered_log_is_opened_without_reading_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = crashed_with_logs(2)
    store = store_on(disk)
    store.start("boot-2")
    asked: list[Checked] = []
    store.recover(lambda: asked.append(store.checked))
    assert asked[0] == Checked(0, 2)
    assert len(asked) > 2 * 3, "asked between segments too"
    assert store.checked == Checked(2, 2)
    assert list(store.logs()) == [], "nobody has opened one yet"
    for partition in (0, 1):
        with monkeypatch.context() as patched:
            patched.setattr(disk, "pread", None)
            log = store.open("events", "id-1", partition, SETTINGS)
        assert log.end_offset == 30
        assert log is store.open("events", "id-1", partition, SETTINGS)
        fill(log, 1)
    store.registered()
    store.close_cleanly(1)
    assert everything(started(disk).open("events", "id-1", 1, SETTINGS))


@pytest.mark.parametrize("ended_at", range(9))
def test_a_recovery_that_is_ended_anywhere_is_done_again_by_the_next_start(ended_at: int) -> None:
    disk = crashed_with_logs(2)
    store = store_on(disk)
    store.start("boot-2")
    left = ended_at

    def ask() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash

    with pytest.raises(Crash):
        store.recover(ask)
    store.abandon()
    store = store_on(disk)
    assert not store.start("boot-2"), "still unclean: the controller has not been told"
    store.recover(lambda: None)
    for partition in (0, 1):
        assert store.open("events", "id-1", partition, SETTINGS).end_offset == 30


def test_a_log_is_recovered_before_it_is_known_how_long_producers_are_remembered() -> None:
    """The state of the producers is that of the topic's own setting, as if the log had been opened
    with it."""
    remembering = TopicSettings(producer_id_expiration_ms=10**12)
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("events", "id-1", 0, remembering)
    for producer_id, timestamp in ((1, 1000), (2, 10**11)):
        data = encode_values([b"v"], timestamp, producer_id=producer_id, producer_epoch=0, base_sequence=0)
        (batch,) = split(data, 2**31)
        log.append([stamp(batch, log.end_offset, 0, 3)])
    flush(log)
    known = log.producers.table.items()
    disk.crash()
    store = store_on(disk)
    store.start("boot-2")
    store.recover(lambda: None)
    assert store.open("events", "id-1", 0, remembering).producers.table.items() == known
    assert len(known) == 2


def test_a_recovered_log_whose_topic_is_gone_goes_to_the_trash() -> None:
    disk = crashed_with_logs(2)
    store = store_on(disk)
    store.start("boot-2")
    store.recover(lambda: None)
    store.delete("events", "id-1", 0)
    assert store.open("events", "id-2", 1, SETTINGS).end_offset == 0, "made anew under the same name"
    assert disk.list("/data/trash") == ["events-0.1", "events-1.1"]
    store.close_cleanly(1)
    assert store.purge_trash() > 0


def test_a_log_that_cannot_be_recovered_is_left_to_whoever_opens_it() -> None:
    disk = crashed_with_logs(2)
    path = "/data/events-0/00000000000000000000.log"
    handle = disk.open(path)
    data = bytearray(disk.pread(handle, 0, disk.size(path)))
    data[70] ^= 1
    disk.truncate(handle, 0)
    disk.append(handle, 0, [bytes(data)])
    store = store_on(disk)
    store.start("boot-2")
    store.recover(lambda: None)
    assert store.checked == Checked(2, 2)
    assert store.open("events", "id-1", 1, SETTINGS).end_offset == 30
