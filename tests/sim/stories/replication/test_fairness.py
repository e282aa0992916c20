"""Stories of what many share: whoever takes much of it keeps neither the others nor the cluster from
theirs."""

from __future__ import annotations

from minilog.core.broker.requests.produce import CROWD
from minilog.core.controller.event_queue import EventQueue
from minilog.core.gate import Gate, Passage
from minilog.core.places import Entry, Places
from minilog.core.shares import Shares
from minilog.errors import Overloaded
from minilog.wire.messages import ACKS_ALL, Produce, ProducePartition
from minilog.wire.records import encode_values
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Response


class Visitor:
    """One connection."""

    is_waited_for = True


def crowd(places: Places[Visitor], client: str, count: int, *, busy: bool) -> list[Visitor]:
    visitors = [Visitor() for _ in range(count)]
    for visitor in visitors:
        places.enter(visitor, client, 0)
        visitor.is_waited_for = not busy
    return visitors


def test_idle_strangers_give_way_to_newcomers() -> None:
    """R45: one client holds every connection, and asks for nothing. Whoever comes gets a place, from
    that client, also when it takes again whatever becomes free."""
    places: Places[Visitor] = Places(100, 20)
    crowd(places, "stranger", 80, busy=False)
    for second in range(1, 100):
        for client in ("guest", "stranger"):
            entry, leaver = places.enter(Visitor(), client, second * 1000)
            assert entry is Entry.TAKEN
            assert leaver is not None
    assert places.open.counts["guest"] >= 39


def test_strangers_that_keep_every_connection_busy_keep_no_broker_from_registering() -> None:
    """R45: nobody can give way. A broker has its place all the same, and keeps it whoever comes."""
    places: Places[Visitor] = Places(100, 20)
    crowd(places, "stranger", 80, busy=True)
    crowd(places, "stranger", 50, busy=False)
    broker = Visitor()
    assert places.enter(broker, "stranger", 1000).entry is Entry.ON_TRIAL
    places.vouch(broker)
    crowd(places, "stranger", 50, busy=False)
    assert broker in places.reserved


def test_who_waits_in_great_numbers_leaves_room_for_others() -> None:
    """R45: one client parks as many polls as it may, and comes again and again. Whoever comes then
    may wait as well, and so may the next."""
    shares = Shares(1000)
    counts: list[int] = []
    for client in ("stranger", "guest", "friend"):
        for _ in range(1000):
            if shares.may_take(client):
                shares.take(client)
        counts.append(shares.held[client])
    assert counts == [500, 250, 125]
    for _ in range(400):
        shares.give_back("stranger")
    assert shares.may_take("guest")
    assert shares.may_take("friend", 250)
    assert not shares.may_take("friend", 600)


def test_who_sends_much_waits_behind_itself() -> None:
    """R45: one client sends a thousand requests at once, each of which takes a round of the loop.
    Another one's go on in the next two. Of the first, newer ones are refused when the older ones
    have waited for too long."""
    gate: Gate[str] = Gate(1000)
    gate.begin(0)
    for _ in range(1000):
        gate.arrive("much", ("stranger", "fetch"), 30)
    assert gate.arrive("little", ("guest", "fetch"), 30) is Passage.WAIT
    assert "little" in gate.begin(60) + gate.begin(90)
    now_ms = 90
    while now_ms < 2000:
        now_ms += 30
        gate.begin(now_ms)
    assert gate.arrive("newer", ("stranger", "fetch"), now_ms) is Passage.REFUSED
    assert gate.arrive("little", ("guest", "fetch"), now_ms) is Passage.WAIT


def test_a_controller_hears_brokers_however_many_clients_ask() -> None:
    """R45: a thousand requests of clients wait for the controller, and each takes its time. A
    heartbeat that comes then is decided on after one of them, and none of them waits for ever."""
    queue: EventQueue[str] = EventQueue(1000)
    for number in range(1000):
        queue.put_client(f"client {number}", ("stranger", "Metadata"), 0)
    queue.put("heartbeat")
    assert "heartbeat" in [queue.pop() for _ in range(2)]
    decided: list[str] = []
    for _ in range(3000):
        queue.put("tick")
        decided.append(queue.pop())
    assert len(decided) - decided.count("tick") >= 10


def test_a_write_that_would_be_answered_too_late_is_refused_before_it_is_written() -> None:
    """R45: a follower is slow and many writes wait. A new one with little time is refused for
    certain, one with more time waits as well, and all that was taken is answered as written."""
    c = SimCluster(seed=1, brokers=2).start()
    c.create_topic("t", assignment=[[1, 2]], min_isr=2)
    c.produce("t")
    c.network.cut(1, 2)
    answers: list[Response] = []
    refusals: list[Response] = []
    for _ in range(CROWD):
        c.admin.ask(1, write(60_000), answers.append, 70_000)
    c.run(600)
    c.admin.ask(1, write(1000), refusals.append, 70_000)
    c.admin.ask(1, write(60_000), answers.append, 70_000)
    c.run(100)
    assert [(type(refusal), refusal.definite) for refusal in refusals if isinstance(refusal, Overloaded)] == [
        (Overloaded, True)
    ]
    assert answers == []
    c.network.heal()
    c.until(lambda: len(answers) == CROWD + 1)


def write(timeout_ms: int) -> Produce:
    return Produce(ACKS_ALL, timeout_ms, [ProducePartition("t", 0, memoryview(encode_values([b"x"], 1000)))])
