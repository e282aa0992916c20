"""What the controller's steps mean, and how events of brokers come into the journal."""

from __future__ import annotations

from msgspec.structs import replace

from minilog.core.image import EVENTS_MAX, ClusterImage
from minilog.wire.journal.events import ERROR, Event, EventKind, SeenEvent
from minilog.wire.journal.metadata_records import ControllerStarted, EventNoted
from minilog.wire.messages import (
    AddPartitions,
    CreateTopic,
    DeleteTopic,
    ElectLeader,
    Heartbeat,
    HeartbeatReply,
    IsrLeaver,
    Message,
    RegisterReply,
)
from tests.unit.core.controller.controller_bench import Broker, ControllerBench


def told(bench: ControllerBench) -> list[str]:
    return [record.event.sentence for record in bench.journal if isinstance(record, EventNoted)]


def kinds(bench: ControllerBench, after: int) -> list[str]:
    return [record.event.kind for record in bench.journal[after:] if isinstance(record, EventNoted)]


def test_a_death_is_told_in_one_line_for_each_thing_that_follows_however_many_partitions() -> None:
    bench = ControllerBench()
    bench.create(*[[1, 2, 3]] * 20)
    before = len(bench.journal)
    bench.kill(1)
    assert kinds(bench, before)[:3] == [EventKind.BROKER_FENCED, EventKind.LEADERS_LOST, EventKind.ISR_SHRUNK]
    assert "its process is dead" in told(bench)[-3]


def test_every_event_knows_its_place_in_the_journal() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.kill(1)
    bench.run(3000)
    for index, record in enumerate(bench.journal, 1):
        if isinstance(record, EventNoted):
            assert record.number == index
    assert [noted.number for noted in bench.core.image.events] == sorted(n.number for n in bench.core.image.events)


def test_a_partition_that_nobody_can_lead_is_an_error_and_says_that_nobody_reads_or_writes() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    for broker_id in (1, 2, 3):
        bench.kill(broker_id)
        bench.run(3000)
    offline = [r.event for r in bench.journal if isinstance(r, EventNoted) and r.event.kind == "partitions_offline"]
    assert [event.level for event in offline] == [ERROR]
    assert "no writes and no reads" in offline[0].sentence
    assert (offline[0].topic, offline[0].partition) == ("orders", 0)


def test_who_is_missing_for_acks_all_is_told_when_it_begins() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], min_isr=2)
    bench.kill(2)
    bench.run(3000)
    assert EventKind.UNDER_MIN_ISR not in kinds(bench, 0)
    bench.kill(3)
    bench.run(3000)
    assert kinds(bench, 0).count(EventKind.UNDER_MIN_ISR) == 1


def beat(bench: ControllerBench, *events: SeenEvent) -> HeartbeatReply:
    broker = bench.brokers[1]
    broker.sequence += 1
    request = Heartbeat(
        1, broker.epoch, broker.incarnation, broker.sequence, bench.core.metadata_offset, 1, waits=False
    )
    reply = bench.ask(replace(request, events=list(events)))
    assert isinstance(reply, HeartbeatReply)
    return reply


def seen(number: int) -> SeenEvent:
    return SeenEvent(number, Event(5, "disk_full", ERROR, f"event {number}", 1))


def test_what_a_broker_has_seen_is_noted_once_however_often_it_is_told() -> None:
    bench = ControllerBench()
    assert beat(bench, seen(1), seen(2)).events_noted == 2
    assert beat(bench, seen(1), seen(2), seen(3)).events_noted == 3
    assert beat(bench, seen(2)).events_noted == 3
    assert [sentence for sentence in told(bench) if sentence.startswith("event")] == ["event 1", "event 2", "event 3"]


def test_after_a_restart_of_the_controller_nothing_is_noted_again() -> None:
    for snapshot_at in (None, "end"):
        bench = ControllerBench()
        beat(bench, seen(1), seen(2))
        bench.restart(**({} if snapshot_at is None else {"snapshot_at": len(bench.journal)}))
        bench.beat()
        assert beat(bench, seen(2), seen(3)).events_noted == 3
        assert [sentence for sentence in told(bench) if sentence.startswith("event")] == [
            "event 1",
            "event 2",
            "event 3",
        ]


def test_another_process_counts_anew() -> None:
    bench = ControllerBench()
    beat(bench, seen(1), seen(2))
    bench.kill(1)
    bench.join(1)
    assert beat(bench, seen(1)).events_noted == 1
    assert len(bench.core.image.noted) == 1


def test_an_event_that_is_too_long_is_refused_before_it_is_written_down() -> None:
    bench = ControllerBench()
    broker = bench.brokers[1]
    event = SeenEvent(1, Event(0, "k", "info", "x" * 9000))
    request = Heartbeat(1, broker.epoch, broker.incarnation, 99, bench.core.metadata_offset, 1, events=[event])
    before = len(bench.journal)
    assert bench.problem(request) == "INVALID_REQUEST"
    assert len(bench.journal) == before


def test_the_image_keeps_the_last_events() -> None:
    image = ClusterImage()
    image.apply(1, ControllerStarted("c", 1))
    for index in range(2, EVENTS_MAX + 12):
        image.apply(index, EventNoted(index, Event(0, "k", "info", str(index))))
    assert (len(image.events), image.events[0].number) == (EVENTS_MAX, 12)
    copy = ClusterImage()
    copy.load(image.metadata_offset, image.snapshot())
    assert copy.events == image.events


def test_what_is_noted_stays_noted_when_its_process_registers_once_more() -> None:
    bench = ControllerBench()
    broker = bench.brokers[1]
    bench.silence(1)
    seen = [SeenEvent(1, Event(5, EventKind.LONG_TURN, ERROR, "slow", 1))]
    for registers in (False, True, False):
        if registers:
            bench.run(3000)
            reply = bench.replies[bench.register(1, broker.incarnation)]
            assert isinstance(reply, RegisterReply)
            broker = Broker(1, broker.incarnation)
            broker.epoch = reply.broker_epoch
        broker.sequence += 1
        offset = bench.core.image.metadata_offset
        bench.handle(
            Heartbeat(1, broker.epoch, broker.incarnation, broker.sequence, offset, 1, waits=False, events=seen)
        )
    assert told(bench).count("slow") == 1


def test_who_leaves_the_isr_is_told_of_with_how_far_behind_it_was() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3], [1, 2, 3], [1, 2, 3])
    proposals = [replace(bench.proposal([1, 2], n), leaving=[IsrLeaver(3, 100 * n, 4100)]) for n in (0, 1)]
    before = len(bench.journal)
    bench.ask(bench.alter(1, *proposals, bench.proposal([1, 2], 2)))
    (event,) = [r.event for r in bench.journal[before:] if isinstance(r, EventNoted)]
    assert event.sentence == (
        "broker 3 is no more in sync for 3 partitions (orders-0, orders-1, orders-2): up to 4100 ms behind, 100 records"
    )
    assert event.facts["behind"] == ["orders-0 0 records 4100 ms", "orders-1 100 records 4100 ms"]


def test_what_a_leader_does_not_know_of_who_leaves_is_said() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.ask(bench.alter(1, replace(bench.proposal([1, 2]), leaving=[IsrLeaver(3, -1, 4100)])))
    assert told(bench)[-1].endswith("orders-0: it was behind for 4100 ms, by how many records is not known")


def test_changes_say_from_where_they_were_asked_for_or_that_it_is_not_known() -> None:
    bench = ControllerBench()
    asked: list[Message] = [
        CreateTopic("a", 1, 3, asked_by="10.0.0.9 by way of broker 2"),
        AddPartitions("a", 3),
        DeleteTopic("a", asked_by="10.0.0.9\nerror: forged"),
    ]
    for request in asked:
        bench.handle(request)
        bench.beat()
    unknown = "from where it was asked for is not known"
    assert told(bench)[-3:] == [
        "topic a was created with 1 partitions, asked for from 10.0.0.9 by way of broker 2",
        f"2 partitions were added to topic a, {unknown}",
        f"topic a was deleted, and its records with it, {unknown}",
    ]


def test_an_unclean_election_says_from_where_it_was_asked_for() -> None:
    bench = ControllerBench()
    bench.create([1, 2])
    for broker_id in (2, 1):
        bench.kill(broker_id)
        bench.run(3000)
    bench.join(2)
    bench.handle(ElectLeader("orders", 0, unclean=True, asked_by="10.0.0.9 by way of broker 2"))
    bench.answer_positions(2)
    bench.run(100)
    (event,) = [r.event for r in bench.journal if isinstance(r, EventNoted) and r.event.kind == "unclean_election"]
    assert "by an operator, asked for from 10.0.0.9 by way of broker 2" in event.sentence


def test_a_broker_that_is_in_sync_again_everywhere_is_told_of_once_and_how_long_that_took() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.run(100)
    bench.kill(1)
    bench.run(100)
    for other in (2, 3):
        bench.answer_positions(other)
    for _ in range(2):
        bench.join(1)
        bench.kill(1)
    bench.join(1)
    assert len([f for f in bench.core.image.failovers if f.restored_ms is None]) == 3
    bench.ask(bench.alter(bench.state().leader, bench.proposal([1, 2, 3])))
    back = [r for r in bench.journal if isinstance(r, EventNoted) and r.event.kind == EventKind.BROKER_RESTORED]
    assert [noted.event.broker_id for noted in back] == [1]
    assert "broker 1 is in sync again everywhere, " in back[0].event.sentence
    assert bench.journal[back[0].number - 1] == back[0]


def test_what_the_controllers_own_process_saw_is_noted_by_the_next_tick() -> None:
    bench = ControllerBench()
    bench.core.own_events.add(Event(5, EventKind.LONG_TURN, "warning", "the controller held up everybody"))
    before = len(bench.journal)
    bench.run(100)
    noted = [r for r in bench.journal[before:] if isinstance(r, EventNoted)]
    assert [(n.number, n.event.sentence) for n in noted] == [(before + 1, "the controller held up everybody")]


def test_a_registration_says_the_version_and_the_one_before_where_that_was_another() -> None:
    bench = ControllerBench()
    for version in ("1.0", "1.0", "1.1"):
        bench.kill(1)
        bench.join(1, version=version)
    said = [sentence for sentence in told(bench) if "broker 1 has registered" in sentence][-3:]
    assert "with version 1.0 (before: an older one)" in said[0]
    assert said[1].endswith("with version 1.0")
    assert said[2].endswith("with version 1.1 (before: 1.0)")
    assert bench.core.image.brokers[1].version == "1.1"
