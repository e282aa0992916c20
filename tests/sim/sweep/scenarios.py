"""The scenarios of the disk sweep: each a short function over a witness.

What comes before ``begin`` only prepares. To add one: write the function, decorate it, that is all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from tests.sim.sweep.faulty_disk import FaultyDisk
from tests.sim.sweep.journal_witness import JournalWitness
from tests.sim.sweep.witness import StoreWitness, Witness

W = TypeVar("W", StoreWitness, JournalWitness)
Begin = Callable[[], None]


class Scenario(NamedTuple):
    name: str
    make: Callable[[FaultyDisk], Witness]
    act: Callable[[Witness, Begin], None]


SCENARIOS: dict[str, Scenario] = {}


def over(witness: type[W]) -> Callable[[Callable[[W, Begin], None]], None]:
    def register(act: Callable[[W, Begin], None]) -> None:
        name = act.__name__.replace("_", " ")
        SCENARIOS[name] = Scenario(name, witness, act)  # type: ignore[arg-type]

    return register


def running(w: StoreWitness) -> None:
    """A broker in the middle of its life, with five records that are durable and known to be."""
    w.start()
    w.registered()
    w.open()
    w.append(5, size=300)
    w.flush()
    w.high_watermark(5)
    w.checkpoint()


@over(StoreWitness)
def first_start_and_registration(w: StoreWitness, begin: Begin) -> None:
    begin()
    w.start()
    w.bind("c1")
    w.registered()
    w.controller_epoch(1)
    w.controller_epoch(4)
    w.kill()
    w.start()


@over(StoreWitness)
def a_new_controller_while_the_disk_is_full(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.controller_epoch(1)
    begin()
    w.full_disk(lambda: w.controller_epoch(2))
    w.full_disk(lambda: w.controller_epoch(5))
    w.kill()
    w.start()
    w.controller_epoch(6)
    w.crash()
    w.start()


@over(StoreWitness)
def a_directory_of_format_1(w: StoreWitness, begin: Begin) -> None:
    """What a start makes of it, and the next ones."""
    running(w)
    w.stop()
    w.format_1(epoch=3)
    begin()
    w.start()
    w.controller_epoch(4)
    w.kill()
    w.start()


@over(StoreWitness)
def topic_created_and_written(w: StoreWitness, begin: Begin) -> None:
    w.start()
    w.registered()
    begin()
    w.open()
    w.append(2)
    w.flush()
    w.append(1)
    w.kill()
    w.start()


@over(StoreWitness)
def appends_flushes_and_checkpoints(w: StoreWitness, begin: Begin) -> None:
    running(w)
    begin()
    w.append(1)
    w.append(2)
    w.flush()
    w.append(1, epoch=3)
    w.high_watermark(8)
    w.checkpoint()
    w.append(1, epoch=4)
    w.flush()
    w.checkpoint()
    w.append(2)


@over(StoreWitness)
def segment_roll(w: StoreWitness, begin: Begin) -> None:
    running(w)
    begin()
    w.append(3, size=900)
    w.append(3, size=900)
    w.append(1, size=900)
    w.flush()
    w.append(4, size=900)
    w.checkpoint()


@over(StoreWitness)
def truncation_within_a_segment(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(2)
    begin()
    w.truncate(3)
    w.append(2, epoch=2)
    w.flush()
    w.checkpoint()


@over(StoreWitness)
def truncation_over_segments(w: StoreWitness, begin: Begin) -> None:
    running(w)
    for _ in range(3):
        w.append(3, size=900)
    w.flush()
    w.checkpoint()
    w.append(1, epoch=1)
    begin()
    w.truncate(4)
    w.append(1, epoch=2)
    w.kill()
    w.start()


@over(StoreWitness)
def truncations_one_after_the_other(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(3, epoch=1)
    w.flush()
    w.checkpoint()
    begin()
    w.truncate(7)
    w.append(1, epoch=2)
    w.truncate(6)
    w.append(1, epoch=3)
    w.flush()
    w.crash()
    w.start()


@over(StoreWitness)
def a_cut_below_the_high_watermark(w: StoreWitness, begin: Begin) -> None:
    """Only an unclean election makes one. What comes in place of what was committed is not."""
    running(w)
    begin()
    w.truncate(3)
    w.append(4, epoch=2)
    w.flush()
    w.kill()
    w.start()


@over(StoreWitness)
def reset_to_a_later_start(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(3, size=900)
    w.append(3, size=900)
    begin()
    w.reset(1000)
    w.append(2, epoch=2)
    w.flush()
    w.checkpoint()


@over(StoreWitness)
def two_resets(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(3, size=900)
    w.flush()
    w.checkpoint()
    begin()
    w.reset(1000)
    w.append(2, epoch=2)
    w.reset(2000)
    w.append(2, epoch=3)
    w.flush()
    w.checkpoint()


@over(StoreWitness)
def reset_to_an_earlier_start(w: StoreWitness, begin: Begin) -> None:
    """A leader whose disk is new begins further down than the log that follows it."""
    running(w)
    w.reset(1000)
    w.append(2, epoch=2)
    w.flush()
    w.checkpoint()
    begin()
    w.reset(500)
    w.append(2, epoch=3)
    w.flush()
    w.checkpoint()
    w.kill()
    w.start()


@over(StoreWitness)
def a_start_within_a_segment_and_a_cut_there(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(3, size=900)
    w.flush()
    w.high_watermark(8)
    w.checkpoint()
    begin()
    w.advance_start(3)
    w.truncate(3)
    w.append(2, epoch=2)
    w.flush()
    w.checkpoint()
    w.kill()
    w.start()


@over(StoreWitness)
def retention(w: StoreWitness, begin: Begin) -> None:
    running(w)
    for _ in range(3):
        w.append(3, size=900)
    w.flush()
    w.high_watermark(14)
    begin()
    w.advance_start(7)
    w.append(1)
    w.advance_start(12)
    w.remove_garbage("t")
    w.checkpoint()


def keyed(w: StoreWitness) -> None:
    """A broker with a compacted topic of three segments, all of it committed and most of it
    overtaken."""
    w.start()
    w.registered()
    w.open("keyed")
    for number in range(8):
        value = f"{number}".encode() * 600
        w.put((b"a", value), (b"%d" % (number % 3), value), (b"b", None if number == 5 else value))
    w.flush("keyed")
    w.checkpoint()
    w.high_watermark(24, "keyed")


@over(StoreWitness)
def compaction(w: StoreWitness, begin: Begin) -> None:
    keyed(w)
    begin()
    w.compact(2000)
    w.put((b"a", b"new"), epoch=1)
    w.remove_garbage("keyed")
    w.flush("keyed")
    w.checkpoint()


@over(StoreWitness)
def compaction_of_what_was_compacted(w: StoreWitness, begin: Begin) -> None:
    keyed(w)
    w.compact(2000)
    for number in range(4):
        w.put((b"c", b"%d" % number * 900), (b"a", None if number == 0 else b"%d" % number * 900))
    w.flush("keyed")
    w.high_watermark(w.logs["keyed"].end_offset, "keyed")
    begin()
    w.compact(2500)
    w.compact(9000, tombstones_go=True)
    w.kill()
    w.start()
    w.put((b"a", b"again"))


@over(StoreWitness)
def compaction_then_retention_and_a_cut(w: StoreWitness, begin: Begin) -> None:
    keyed(w)
    w.put((b"a", b"not committed"), epoch=1)
    begin()
    w.compact(2000)
    w.truncate(24, "keyed")
    w.advance_start(w.models["keyed"].batches[1].base_offset, "keyed")
    w.remove_garbage("keyed")
    w.crash()
    w.start()
    w.put((b"b", b"after"), epoch=2)


@over(StoreWitness)
def a_cut_below_what_was_swept(w: StoreWitness, begin: Begin) -> None:
    """Older values went because of what is cut, so the log begins anew."""
    keyed(w)
    w.compact(2000)
    w.put((b"a", b"not committed"), epoch=1)
    w.flush("keyed")
    w.checkpoint()
    begin()
    w.begin_anew_below_the_sweep(9, "keyed")
    w.put((b"a", b"fetched again"), epoch=2)
    w.flush("keyed")
    w.kill()
    w.start()


@over(StoreWitness)
def reads_and_look_ups(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(4, size=900)
    w.append(3, size=900, epoch=2)
    w.kill()
    w.start()
    begin()
    w.read()
    w.append(1)
    w.read()


@over(StoreWitness)
def topic_deleted_and_made_again(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.open("u")
    w.append(2, topic="u")
    w.flush("u")
    begin()
    w.delete("u")
    w.open(topic_id="id-2")
    w.append(1)
    w.flush()
    w.purge()


@over(StoreWitness)
def logs_closed_and_opened(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.open("u")
    w.append(2)
    begin()
    w.close()
    w.open()
    w.append(1)
    w.append(1, topic="u")
    w.flush("u")
    w.checkpoint()


@over(StoreWitness)
def clean_stop_and_start(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.open("u")
    w.append(2, topic="u")
    w.append(1)
    begin()
    w.stop()
    w.start()
    w.append(1)
    w.kill()
    w.start()


@over(StoreWitness)
def clean_stop_and_reboot(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(2)
    w.stop()
    w.crash()
    begin()
    w.start()
    w.append(1)


@over(StoreWitness)
def recovery_after_a_kill(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(3, size=900)
    w.append(2)
    w.kill()
    begin()
    w.start()
    w.append(1)
    w.kill()
    w.start()
    w.registered()


@over(StoreWitness)
def recovery_after_a_crash(w: StoreWitness, begin: Begin) -> None:
    running(w)
    w.append(2)
    w.append(3, epoch=1, size=400)
    w.crash()
    begin()
    w.start()
    w.append(1, epoch=2)
    w.kill()
    w.start()
    w.registered()
    w.flush()


@over(JournalWitness)
def journal_appends(w: JournalWitness, begin: Begin) -> None:
    begin()
    w.start()
    w.append(2)
    w.append(1)
    w.append(3)
    w.kill()
    w.start()
    w.append(1)


@over(JournalWitness)
def journal_snapshots(w: JournalWitness, begin: Begin) -> None:
    w.start()
    w.append(3)
    w.snapshot()
    w.append(2)
    begin()
    w.snapshot()
    w.append(1)
    w.snapshot()
    w.append(2)


@over(JournalWitness)
def journal_recovery(w: JournalWitness, begin: Begin) -> None:
    w.start()
    w.append(3)
    w.snapshot()
    w.append(2)
    w.crash()
    begin()
    w.start()
    w.append(1)
    w.crash()
    w.start()
    w.append(1)
