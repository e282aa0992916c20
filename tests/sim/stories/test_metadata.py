"""Stories of the controller and what brokers believe of it: terms, registrations, fencing, the
order of news."""

from __future__ import annotations

from copy import deepcopy

from minilog.core.broker.registration import Standing
from minilog.core.effects import CONTROLLER_ID
from minilog.wire.messages import Heartbeat, Register, RegisterReply
from minilog.wire.metadata_records import BrokerFenced, BrokerRegistered, PartitionChanged
from tests.sim.cluster import SimCluster
from tests.sim.nodes.controller_node import ControllerNode


def cluster(brokers: int = 3, **timeouts: int) -> SimCluster:
    return SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()


def test_a_controller_with_a_journal_of_yesterday_is_obeyed_by_nobody() -> None:
    """R25: somebody starts one from a backup. Brokers have obeyed a later term, and remember that
    on disk."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    backup = deepcopy(c.controller.journal)
    c.broker(1).kill()
    c.until(lambda: c.leader("t") == 2)
    for _ in range(2):
        c.controller.kill()
        c.controller.start()
        c.run(3000)
    c.controller.kill()
    impostor = ControllerNode(c.world, c.network)
    impostor.journal = backup
    c.network.add(impostor)
    impostor.start()
    c.broker(3).kill()
    c.broker(3).start()
    c.run(5000)
    assert not c.broker(3).running, "it refuses to start, and says why"
    assert "journal is older than the cluster" in c.broker(3).refused
    assert c.leads(2, "t")
    impostor.kill()
    c.network.add(c.controller)
    c.controller.start()
    c.broker(1).start()
    c.broker(3).start()
    c.settle("t")


def test_a_registration_that_is_asked_for_twice_is_one() -> None:
    """R26: the answer is lost. The same process asks again and is given the epoch that it has
    already."""
    c = cluster(2)
    c.broker(2).kill()
    c.until(lambda: c.invariants.truth.brokers[2].fenced)
    lost = c.network.hold(RegisterReply)
    c.broker(2).start()
    c.until(lambda: bool(lost.messages))
    c.network.pass_all()
    c.until(lambda: c.all_ready())
    registrations = [r for r in c.invariants.journal if isinstance(r, BrokerRegistered) and r.broker_id == 2]
    assert len(registrations) == 2, "one for each of its two processes"
    assert c.broker(2).core.broker_epoch == registrations[1].broker_epoch  # type: ignore[union-attr]


def test_a_late_copy_of_a_registration_disturbs_nobody() -> None:
    """R26: the incarnation in it is that of the live process, which stays what it is."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.broker(2).kill()
    copies = c.network.copy(Register)
    c.broker(2).start()
    c.settle("t")
    epochs = {b: c.invariants.truth.brokers[b].epoch for b in (1, 2)}
    copies.release()
    c.run(3000)
    assert {b: c.invariants.truth.brokers[b].epoch for b in (1, 2)} == epochs
    assert c.all_ready()
    assert c.isr("t") == [1, 2]


def test_fencing_is_one_step_of_the_journal() -> None:
    """R27: the broker leaves every ISR, and every partition it led gets its next epoch, in the
    decision that fences it."""
    c = cluster()
    c.create_topic("t", assignment=[[1, 2, 3], [2, 3, 1], [1, 3, 2]], min_isr=2)
    c.broker(1).pause()
    c.until(lambda: c.invariants.truth.brokers[1].fenced)
    fenced = max(i for i, r in enumerate(c.invariants.journal) if isinstance(r, BrokerFenced))
    step = c.invariants.journal[fenced + 1 : fenced + 4]
    assert all(isinstance(r, PartitionChanged) and 1 not in r.isr for r in step)
    assert [(r.leader, r.leader_epoch) for r in step if isinstance(r, PartitionChanged)] == [(-1, 1), (2, 0), (-1, 1)]


def test_a_heartbeat_of_the_process_before_does_not_speak_for_this_one() -> None:
    """R27: an old process is told to register, never taken for alive. Its late heartbeats fence and
    unfence nobody."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    old = c.network.copy(Heartbeat, when=lambda m: isinstance(m, Heartbeat) and m.broker_id == 2)
    c.run(500)
    c.network.pass_all()
    c.broker(2).kill()
    c.until(lambda: c.invariants.truth.brokers[2].fenced)
    old.release()
    c.run(500)
    assert c.invariants.truth.brokers[2].fenced
    c.broker(2).start()
    c.settle("t")


def test_a_process_whose_id_another_one_has_taken_drops_everything() -> None:
    """R27: it slept too long; STALE_BROKER_EPOCH ends all its roles before it asks to be registered
    again."""
    c = cluster(2)
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.produce("t")
    c.broker(1).pause()
    twin = c.twin(1)
    twin.start()
    c.until(lambda: twin.core is not None and twin.core.broker_epoch > 0)
    c.network.hold(Register)
    c.broker(1).resume()
    c.run(100)
    core = c.broker(1).core
    assert core is not None
    assert core.registration.standing is Standing.REGISTERING
    assert core.replicas == {}
    assert c.leads(2, "t")


def test_news_from_before_a_restart_of_the_controller_and_after_it_join_exactly() -> None:
    """R29: brokers take up where they were, whichever controller tells them, and one that lacks too
    much gets all."""
    c = cluster(snapshot_records=5)
    for number in range(4):
        c.create_topic(f"t{number}", partitions=2, min_isr=2)
    c.network.cut(3, CONTROLLER_ID)
    c.create_topic("u", assignment=[[1, 2]])
    c.controller.kill()
    c.controller.start()
    c.delete_topic("t0")
    c.network.heal()
    truth = sorted(map(repr, c.invariants.truth.snapshot()))

    def same() -> bool:
        cores = [node.core for node in c.brokers.values()]
        return all(core is not None and sorted(map(repr, core.image.snapshot())) == truth for core in cores)

    c.run(1000)
    truth = sorted(map(repr, c.invariants.truth.snapshot()))
    c.until(same)
