"""The three flows, as scenarios with a recorder on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.sim.cluster import SimCluster
from tests.sim.recorder import Recorder, transcript

DIRECTORY = Path(__file__).parent


def replicate() -> str:
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.settle("t")
    r = Recorder(c)
    r.note("A client writes two records to the leader, b1. Its followers have long polls open there.")
    c.produce("t", 2)
    c.until(lambda: [c.log(b, "t").high_watermark for b in (1, 2, 3)] == [2, 2, 2])
    return transcript(
        "Replicate: a record is acknowledged when every in-sync replica says, by fetching on, that it has it durably.",
        r.lines,
    )


def leader_change() -> str:
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.settle("t")
    c.run(1000)
    c.cut_off(1)
    c.run(10)
    r = Recorder(c)
    r.note("b1, the leader, is cut off from everybody but a client, which writes with acks=1.")
    c.produce("t", 3, acks=1, at=1)
    r.note("Its session ends. Both others hold the same; the first replica in order wins.")
    c.until(lambda: c.leads(2, "t"))
    c.run(5)
    r.note("The new leader is written to, as in replicate.txt.")
    r.silent = True
    c.produce("t")
    c.run(50)
    r.silent = False
    r.note("b1 is reached again: it learns of the new epoch, is told where its log diverges, cuts, and catches up.")
    c.network.heal()
    c.until(lambda: c.log(1, "t").high_watermark == 2)
    c.settle("t")
    return transcript(
        "Leader change: whoever led before cuts what it alone has, where the new leader says that their logs part.",
        r.lines,
    )


def isr_shrink_and_expand() -> str:
    c = SimCluster(seed=1, brokers=2, timeouts={"replica_lag_max_ms": 1000}).start()
    c.create_topic("t", assignment=[[1, 2]], min_isr=1)
    c.produce("t")
    c.settle("t")
    c.run(1000)
    r = Recorder(c)
    r.note("The link between b1 and b2 is cut. A write waits for b2, for it is in the ISR.")
    c.network.cut(1, 2)
    c.producer.load.timeout_ms = 5000
    write = c.produce("t", wait=False)
    c.until(lambda: write.outcome is not None)
    r.note("The link is back. b2 catches up and is proposed as soon as it holds everything.")
    c.network.heal()
    c.settle("t")
    return transcript(
        "ISR shrink and expand: a follower that lags too long is waited for no more, until it has caught up again.",
        r.lines,
    )


FLOWS: dict[str, Callable[[], str]] = {
    "replicate": replicate,
    "leader_change": leader_change,
    "isr_shrink_and_expand": isr_shrink_and_expand,
}
