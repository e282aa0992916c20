"""Which process a broker id belongs to, and what its directory shows (R26, R36)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from minilog.errors import BrokerUnavailable, RefusesToStart
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    PartitionChanged,
)
from minilog.wire.messages import (
    ProbeReply,
    Problem,
    RegisterReply,
    ReplicaName,
)
from tests.unit.core.builders import TOPIC
from tests.unit.core.controller.brokers.brokers_bench import TIMEOUT_MS, code, fenced
from tests.unit.core.controller.controller_bench import REFUSED, SILENT, TICK_MS, Broker, ControllerBench


def test_a_brokers_epoch_is_the_journal_index_of_its_registration() -> None:
    bench = ControllerBench()
    for broker in bench.brokers.values():
        record = bench.journal[broker.epoch - 1]
        assert isinstance(record, BrokerRegistered)
        assert (record.broker_id, record.broker_epoch) == (broker.broker_id, broker.epoch)


def test_a_new_process_stays_fenced_until_it_knows_of_itself() -> None:
    bench = ControllerBench(brokers=())
    reply = bench.replies[bench.register(1, "p")]
    assert reply == RegisterReply("p", 3, bench.core.image.cluster_id, 1, bench.core.settings.session_timeout_ms)
    broker = Broker(1, "p")
    broker.epoch = 3
    bench.heartbeat(broker)
    assert fenced(bench) == {1}, "it has not applied its own registration yet"
    bench.hear(broker)
    bench.heartbeat(broker)
    assert fenced(bench) == set()


def test_asking_again_is_the_same_registration() -> None:
    bench = ControllerBench()
    offset = bench.core.metadata_offset
    broker = bench.brokers[1]
    reply = bench.replies[bench.register(1, broker.incarnation)]
    assert isinstance(reply, RegisterReply)
    assert reply.broker_epoch == broker.epoch
    assert bench.core.metadata_offset == offset


def test_a_second_process_with_the_id_of_a_live_one_is_refused() -> None:
    bench = ControllerBench()
    second = bench.register(1, "second")
    assert second not in bench.replies, "the live one is asked first"
    bench.answer_probe(1)
    assert code(bench, second) == "DUPLICATE_BROKER_ID"
    assert bench.core.image.brokers[1].incarnation == bench.brokers[1].incarnation


def test_a_process_that_gives_no_answer_may_be_alive() -> None:
    bench = ControllerBench()
    second = bench.register(1, "second")
    bench.answer_probe(1, SILENT)
    assert code(bench, second) == "DUPLICATE_BROKER_ID"


@pytest.mark.parametrize("answer", [REFUSED, ProbeReply(1, "second")], ids=["refused", "replaced"])
def test_a_process_that_is_gone_is_fenced_and_replaced_in_one_step(answer: ProbeReply | BrokerUnavailable) -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    second = bench.register(1, "second")
    bench.answer_probe(1, answer)
    reply = bench.replies[second]
    assert isinstance(reply, RegisterReply)
    step = bench.steps[-1]
    assert [type(record) for record in step] == [BrokerFenced, BrokerRegistered, PartitionChanged]
    assert isinstance(bench.journal[reply.broker_epoch - 1], BrokerRegistered)
    assert bench.core.image.brokers[1].incarnation == "second"
    assert 1 not in bench.state().isr


def test_of_two_that_wait_for_the_same_id_the_later_one_counts() -> None:
    bench = ControllerBench()
    second, third = bench.register(1, "second"), bench.register(1, "third")
    assert code(bench, second) == "DUPLICATE_BROKER_ID"
    bench.answer_probe(1, REFUSED)
    assert isinstance(bench.replies[third], RegisterReply)


def test_who_waits_for_an_id_is_answered_also_when_the_session_ends_first() -> None:
    """The old process hangs: the probe is still unanswered when its session times out."""
    bench = ControllerBench()
    bench.silence(1)
    bench.run(1000)
    second = bench.register(1, "second")
    bench.run(TIMEOUT_MS)
    assert fenced(bench) == {1}
    for probe in bench.probes(1):
        bench.respond(probe, SILENT)
    bench.run(TIMEOUT_MS)
    assert second in bench.replies


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"cluster_id": "another"}, "its data directory belongs to cluster another"),
        ({"directory_id": "of 2"}, "its data directory of 2 is that of broker 2, or a copy"),
    ],
)
def test_a_directory_of_another_cluster_or_another_broker_is_refused(claims: dict[str, Any], sentence: str) -> None:
    bench = ControllerBench(brokers=())
    bench.join(2, directory_id="of 2")
    reply = bench.replies[bench.register(1, "p", **claims)]
    assert isinstance(reply, Problem)
    assert reply.detail.startswith(sentence)
    assert list(bench.core.image.brokers) == [2]


@pytest.mark.parametrize(
    "claims",
    [
        {"controller_epoch": 2},
        {"term_id": "of another journal", "metadata_offset": 3},
        {"term_id": ..., "metadata_offset": 1000},
    ],
)
@pytest.mark.parametrize("is_registered", [False, True])
def test_who_has_applied_what_the_journal_does_not_hold_ends_the_controller(
    claims: dict[str, Any], is_registered: bool
) -> None:
    """R38. Of another cluster it is nobody's business."""
    bench = ControllerBench()
    image = bench.core.image
    claims = {name: image.term_id if value is ... else value for name, value in claims.items()}
    says = partial(bench.heartbeat, bench.brokers[1]) if is_registered else partial(bench.register, 4, "p")
    with pytest.raises(RefusesToStart, match="has applied metadata record"):
        says(cluster_id=image.cluster_id, **claims)
    elsewhere = bench.replies[bench.register(4, "p", cluster_id="another", **claims)]
    assert isinstance(elsewhere, Problem)


def test_what_has_been_applied_of_this_journal_and_of_former_terms_is_known() -> None:
    """R38: the end of a former term is where the next one begins."""
    bench = ControllerBench()
    former, end = bench.core.image.term_id, bench.core.metadata_offset
    bench.restart()
    bench.restart(snapshot_at=bench.core.metadata_offset)
    bench.beat()
    cluster_id = bench.core.image.cluster_id
    for broker_id, offset in ((4, 1), (5, end)):
        bench.join(broker_id, cluster_id=cluster_id, term_id=former, metadata_offset=offset)
    with pytest.raises(RefusesToStart):
        bench.register(6, "p", cluster_id=cluster_id, term_id=former, metadata_offset=end + 1)


def two_copies() -> ControllerBench:
    """Broker 1 and then broker 2 are lost, and with them the partition's leader: min ISR 2."""
    bench = ControllerBench(brokers=(3,))
    for broker_id in (1, 2):
        bench.join(broker_id, directory_id=f"of {broker_id}")
    bench.create([1, 2], min_isr=2)
    for broker_id in (1, 2):
        bench.kill(broker_id)
    assert (bench.state().leader, bench.state().elr) == (NO_LEADER, [1, 2])
    return bench


def leads_again(bench: ControllerBench, broker_id: int) -> bool:
    """It can be elected, and is."""
    bench.run(TICK_MS)
    if broker_id in bench.queries():
        bench.answer_positions(broker_id, 0, 7)
    return bench.state().leader == broker_id


LOST_ALL = {"directory_id": "new", "last_epoch": 0}


@pytest.mark.parametrize(
    ("claims", "complete"),
    [
        ({"last_epoch": ...}, True),
        ({"last_epoch": 1}, False),
        ({"last_epoch": 0}, False),
        (LOST_ALL, False),
        ({"directory_id": "", "last_epoch": -1}, False),
    ],
)
@pytest.mark.parametrize("clean", [True, False])
def test_complete_is_who_shows_the_directory_and_the_last_epoch_in_use(
    claims: dict[str, Any], complete: bool, clean: bool
) -> None:
    """R36. One that is not is no last known member either (R37)."""
    bench = two_copies()
    used = bench.core.image.brokers[2].used_epoch
    claims = {"directory_id": "of 2"} | {name: used if value is ... else value for name, value in claims.items()}
    bench.join(2, clean=clean, **claims)
    assert bench.state().last_known_elr == ([2] if complete and not clean else [])
    assert leads_again(bench, 2) is (complete and clean)


def test_an_epoch_that_was_never_in_use_need_not_be_shown() -> None:
    """R36: a process is registered, and dies before it has noted its epoch."""
    bench = two_copies()
    used = bench.core.image.brokers[2].used_epoch
    for _ in range(2):
        bench.register(2, directory_id="of 2", last_epoch=used)
        bench.run(3000)
        assert bench.core.image.brokers[2].used_epoch == used
    bench.join(2, directory_id="of 2", last_epoch=used)
    assert leads_again(bench, 2)


def unused(bench: ControllerBench, **claims: Any) -> int:
    """A process of broker 2 registers and comes to nothing. Returns its epoch."""
    bench.register(2, directory_id="of 2", **claims)
    bench.run(3000)
    return bench.core.image.brokers[2].epoch


def test_an_epoch_that_this_journal_never_gave_makes_nobody_complete() -> None:
    """R36, R38: the journal was made anew without its last part. The log is compared with the
    others."""
    bench = two_copies()
    bench.join(2, directory_id="of 2", last_epoch=1000)
    assert bench.state().last_known_elr == [2]
    assert not leads_again(bench, 2)


@pytest.mark.parametrize("restarts", [False, True], ids=["", "the controller restarts between"])
@pytest.mark.parametrize("notes", [(True, False), (False, True), (True, True), (False, False), (True, False, False)])
def test_what_was_found_holds_however_many_registrations_come_to_nothing(
    notes: tuple[bool, ...], restarts: bool
) -> None:
    """R36: an older copy is registered again and again. Some of its processes note their epochs
    before they die."""
    bench = two_copies()
    shown = 1
    for is_noted in notes:
        epoch = unused(bench, last_epoch=shown)
        shown = epoch if is_noted else shown
        if restarts:
            bench.restart(snapshot_at=len(bench.journal))
            bench.beat()
    bench.join(2, directory_id="of 2", last_epoch=shown)
    assert bench.state().elr == [1]
    assert bench.state().last_known_elr == []


def test_what_was_found_of_a_copy_is_no_finding_about_the_directory_itself() -> None:
    """R36: somebody starts an older copy, sees the mistake, and puts the disk back that was in
    use. Each is known by the epoch that it shows."""
    bench = two_copies()
    used = bench.core.image.brokers[2].used_epoch
    of_copy = unused(bench, last_epoch=1)
    unused(bench, last_epoch=used)
    unused(bench, last_epoch=of_copy)
    bench.join(2, directory_id="of 2", last_epoch=used)
    assert leads_again(bench, 2)


def test_a_log_that_was_lost_stays_lost_when_something_is_in_its_place_at_the_next_start() -> None:
    """R37: whether the process that missed the log has noted its epoch or not."""
    bench = two_copies()
    used = bench.core.image.brokers[2].used_epoch
    unused(bench, last_epoch=used, lost=[ReplicaName(TOPIC, bench.state().topic_id, 0)])
    bench.join(2, directory_id="of 2", last_epoch=used)
    assert bench.state().elr == [1]


def test_what_is_lost_is_lost_alone() -> None:
    """R37: a partition whose directory is missing, named by topic id."""
    bench = two_copies()
    state = bench.state()
    other = ReplicaName(TOPIC, "another topic id", 0)
    bench.join(2, directory_id="of 2", last_epoch=bench.brokers[2].epoch, lost=[other])
    assert leads_again(bench, 2)
    bench.kill(2)
    bench.join(2, directory_id="of 2", last_epoch=bench.brokers[2].epoch, lost=[ReplicaName(TOPIC, state.topic_id, 0)])
    assert not leads_again(bench, 2)
    assert bench.state().elr == [1]
