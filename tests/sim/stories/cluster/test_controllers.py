"""Several controllers around one journal in etcd: who writes, who takes over, and what becomes of
requests that nobody knows the end of."""

from __future__ import annotations

from collections.abc import Callable

from minilog.core.controller.shared.transaction import Answer, Put, Transaction
from minilog.wire.messages import AllocateProducerIds, CreateTopic
from tests.sim.cluster import SimCluster
from tests.sim.nodes.etcd import ETCD_ID, SimEtcd
from tests.sim.nodes.process import Process
from tests.sim.nodes.shared_controller import SharedController
from tests.sim.nodes.world import Violation

Ask = Callable[[Process, Transaction, Callable[[Answer | None], None]], None]


def cluster(controllers: int = 3, **timeouts: int) -> SimCluster:
    c = SimCluster(controllers=controllers, timeouts=timeouts).start()
    c.create_topic("t", min_isr=2)
    return c


def active(c: SimCluster) -> SharedController:
    assert isinstance(c.controller, SharedController)
    return c.controller


def create(c: SimCluster, topic: str) -> None:
    """As brokers do: one that has just begun to decide is asked again."""
    for _ in range(100):
        try:
            c.create_topic(topic)
            return
        except Violation as violation:
            if "retry" not in str(violation) and "stands by" not in str(violation):
                raise
            c.run(50)
    raise Violation("Progress", f"{topic} is not created")


def etcd(c: SimCluster) -> SimEtcd:
    assert c.etcd is not None
    return c.etcd


def terms(c: SimCluster) -> int:
    return sum(node.figures["terms"] for node in c.controllers)


def decides(c: SimCluster, but: SharedController | None = None) -> bool:
    return active(c).is_active and active(c) is not but


def settled(c: SimCluster) -> None:
    c.until(lambda: c.all_ready() and decides(c), "all brokers have a controller")
    c.run(3000)
    c.settle()


class Held:
    """Requests to etcd that a scenario keeps back, or keeps copies of."""

    def __init__(self, c: SimCluster, *, copies: bool = False) -> None:
        self.kept: list[tuple[Process, Transaction]] = []
        self._etcd, self._ask, self._copies = etcd(c), etcd(c).ask, copies
        self.matches: Callable[[Process, Transaction], bool] = lambda process, transaction: False
        self._etcd.ask = self._hold  # type: ignore[method-assign]

    def _hold(self, process: Process, transaction: Transaction, on_answer: Callable[[Answer | None], None]) -> None:
        if self.matches(process, transaction):
            self.kept.append((process, transaction))
            if not self._copies:
                process.later(self._etcd.timeout_ms, "etcd is given up", lambda: on_answer(None))
                return
        self._ask(process, transaction, on_answer)

    def release(self) -> None:
        """Late, and whoever sent it may have ended."""
        for process, transaction in self.kept:
            self._etcd.run(transaction, process.name)
        self.kept = []


def moves_end(transaction: Transaction) -> bool:
    return any(isinstance(one, Put) and one.key.endswith("/end") for one in transaction.then)


def test_a_standby_takes_over_when_the_active_one_is_killed() -> None:
    """R120: what was decided stays, and what is asked next is decided."""
    c = cluster()
    first = active(c)
    c.produce("t")
    first.kill()
    assert c.until(lambda: decides(c, first), "another decides") < 1000
    create(c, "u")
    c.produce("t")
    settled(c)
    assert terms(c) == 2


def test_the_leader_and_the_controller_die_together() -> None:
    """R120: the next controller elects, from the journal alone."""
    c = cluster()
    c.produce("t", 4)
    dead = c.leader("t")
    active(c).kill()
    c.broker(dead).kill()
    c.until(lambda: c.leader("t") not in (dead, -1), "another leads", 6000)
    c.produce("t")
    c.start_all()
    settled(c)


def test_who_was_deposed_while_it_stood_still_writes_nothing() -> None:
    """R120: it goes on where it was, with requests in its hands, and ends at the first write."""
    c = cluster()
    first, tending = active(c), Held(c)
    tending.matches = lambda process, transaction: (
        process is first and any(isinstance(one, Put) and one.key.endswith("/active") for one in transaction.then)
    )
    first.pause()
    c.admin.request(CreateTopic("mine", 1, 3))
    c.until(lambda: decides(c, first), "another decides", 10_000)
    create(c, "u")
    first.resume()
    c.until(lambda: first.figures["deposed"] == 1, "the first one ends")
    settled(c)


def test_an_append_that_was_on_its_way_when_the_term_was_taken_counts_for_nothing() -> None:
    """R120: between the taking and the first decision of the next one the end has not moved."""
    c = cluster()
    first, held, begun = active(c), Held(c), Held(c)
    held.matches = lambda process, transaction: process is first and moves_end(transaction)
    begun.matches = lambda process, transaction: process is not first and moves_end(transaction)
    c.broker(3).kill()
    c.until(lambda: bool(held.kept), "the first one writes")
    first.pause()
    c.until(lambda: bool(begun.kept), "the next one has taken the term, and writes", 10_000)
    held.release()
    begun.matches = held.matches = lambda process, transaction: False
    c.until(lambda: decides(c, first), "the next one decides")
    first.resume()
    c.start_all()
    settled(c)


def test_a_snapshot_of_a_controller_that_was_deposed_replaces_nothing() -> None:
    """R120: nor do its pieces."""
    c = cluster(snapshot_records=5)
    first, held = active(c), Held(c)
    held.matches = lambda process, transaction: (
        process is first and any("/s/" in one.key for one in transaction.then if isinstance(one, Put))
    )
    for number in range(6):
        c.admin.request(CreateTopic(f"u{number}", 1, 3))
        c.run(100)
    c.until(lambda: bool(held.kept), "a snapshot is on its way")
    first.pause()
    c.until(lambda: decides(c, first), "another decides", 10_000)
    held.release()
    held.matches = lambda process, transaction: False
    first.resume()
    settled(c)


def test_a_look_that_is_out_of_date_deposes_nobody() -> None:
    """R121: two have seen the first one die. The second of them asks when the other decides."""
    c = cluster()
    first, held = active(c), Held(c)
    slow = next(node for node in c.controllers if node is not first)
    held.matches = lambda process, transaction: (
        process is slow and any(isinstance(one, Put) and one.key.endswith("/term") for one in transaction.then)
    )
    first.kill()
    c.until(lambda: bool(held.kept) and decides(c, first), "one has taken over, one would like to", 10_000)
    second = active(c)
    held.release()
    held.matches = lambda process, transaction: False
    c.run(2000)
    if active(c) is not second or terms(c) != 2:
        raise Violation("NeedlessTerm", f"{active(c).name} has deposed {second.name}, which was well")
    c.start_all()
    settled(c)


def test_a_late_copy_of_an_append_takes_the_end_nowhere() -> None:
    """R122: the term is the same, and much was decided since."""
    c = cluster()
    held = Held(c, copies=True)
    held.matches = lambda _, transaction: moves_end(transaction)
    create(c, "u")
    held.matches = lambda _, transaction: False
    create(c, "v")
    held.release()
    create(c, "w")
    settled(c)


def test_an_append_without_an_answer_is_there_once() -> None:
    """R123: the requests arrive, and no answer comes back. Nobody is told meanwhile."""
    c = cluster(controllers=2)
    first = active(c)
    c.run(1000)
    c.until(lambda: first.is_idle, "nothing is under way")
    etcd(c).lease_ms = 60_000
    c.network.cut(ETCD_ID, first.node_id, both=False)
    answered, records = len(c.admin.answers), len(etcd(c).records)
    core = c.broker(1).core
    assert core is not None
    c.admin.request(AllocateProducerIds(1, core.broker_epoch, core.registration.incarnation))
    c.run(1000)
    if (len(etcd(c).records), len(c.admin.answers)) != (records + 1, answered):
        raise Violation("Once", f"{len(etcd(c).records) - records} records, {len(c.admin.answers) - answered} answers")
    c.network.heal()
    c.until(lambda: len(c.admin.answers) > answered, "the answer")
    c.run(1000)
    if len(etcd(c).records) != records + 1 and terms(c) == 1:
        raise Violation("Once", f"{len(etcd(c).records) - records} records")
    settled(c)


def test_nothing_is_decided_without_etcd_and_data_goes_on() -> None:
    """R24: heartbeats are answered, writes are acknowledged."""
    c = cluster()
    c.produce("t")
    etcd(c).is_up = False
    c.run(5000)
    for _ in range(10):
        c.produce("t")
    etcd(c).is_up = True
    create(c, "u")
    settled(c)


def test_two_that_cannot_hear_each_other_do_not_fight() -> None:
    """R120: refused connections prove death, unless a network only says so."""
    c = cluster(controllers=2)
    one, two = c.controllers
    c.network.cut(one.node_id, two.node_id)
    c.run(60_000)
    assert terms(c) == 1
    c.network.heal()
    settled(c)


def test_a_controller_that_takes_long_keeps_its_term() -> None:
    """Etcd is slow for all: nobody is deposed because of that."""
    c = cluster()
    etcd(c).weather.delay_ms = 150
    c.run(20_000)
    create(c, "u")
    assert terms(c) == 1
    settled(c)


def test_a_controller_that_etcd_does_not_reach_keeps_no_broker() -> None:
    """R124: brokers hear it well. Nothing is to be written, so nothing tells it that it is
    deposed."""
    c = cluster()
    first = active(c)
    c.produce("t")
    c.network.cut(ETCD_ID, first.node_id)
    c.until(lambda: decides(c, first), "another decides", 10_000)
    c.run(5000)
    heard = [core.image.controller_epoch for node in c.brokers.values() if (core := node.core) is not None]
    if set(heard) != {2}:
        raise Violation("Deposed", f"brokers obey the controllers of epochs {heard}, and {active(c).name} decides")
    create(c, "u")
    c.network.heal()
    settled(c)


def test_a_leader_beside_a_controller_that_was_deposed_takes_no_writes() -> None:
    """R124: a rack is cut off, with a controller and a leader that hear each other."""
    c = cluster()
    first, leader = active(c), c.leader("t")
    inside = {first.node_id, leader}
    outside = {node.node_id for node in c.controllers} | {*c.brokers} | {ETCD_ID}
    for one in inside:
        for other in outside - inside:
            c.network.cut(one, other)
    c.until(lambda: c.leader("t") not in (leader, -1), "another leads", 15_000)
    core = c.broker(leader).core
    assert core is not None
    if not core.state.is_isolated(c.broker(leader).now_ms):
        raise Violation("Deposed", f"broker {leader} takes writes as a leader, and broker {c.leader('t')} leads")
    c.network.heal()
    settled(c)


def test_an_outage_of_etcd_is_none_of_the_controller_that_decides() -> None:
    """R124: those that stand by hear nothing of etcd either, so none of them has taken the term."""
    c = cluster()
    etcd(c).is_up = False
    c.run(10_000)
    cores = [node.core for node in c.brokers.values()]
    if any(
        core is None or core.state.is_isolated(node.now_ms)
        for core, node in zip(cores, c.brokers.values(), strict=True)
    ):
        raise Violation("Progress", "leaders take no writes, because etcd is away")
    etcd(c).is_up = True
    settled(c)
