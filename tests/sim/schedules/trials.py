"""Trials: in a world that has healed, one thing is slow, busy or damaged, and what must go on
beside it is demanded in time.

Drawn per seed, mostly none. Each leaves the cluster as it found it, so that the end of the schedule
asks for no less.

* Busy neighbour: one partition is under constant load. A quiet one of the same brokers is
  committed, shown by followers, and loses its old records, as if it were alone.
* Slow journal: each append of the controller takes 0.3 to 0.6 s, and it is kept busy. A broker that
  is frozen or cut off is fenced all the same, within FENCED_SESSIONS session timeouts and
  FENCED_MORE_MS.
* Damage: a bit flips in one replica, and a read finds it. Whoever knows of the damage does not lead
  while a whole in-sync replica can: it is not elected over one (DamagedNotElected), and if it leads
  already it gives that up. The segment is sealed and below the recovery point, so nothing reads it
  at a start: the next process knows of it all the same, and refuses to start (DamageIsRemembered).
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from minilog.core.effects import CONTROLLER_ID
from minilog.wire.messages import ACKS_ALL, CreateTopic, DeleteTopic, Fetch, FetchPartition, FetchReply
from minilog.wire.topic_partition import TopicPartition
from tests.sim.cluster import SimCluster, config_of
from tests.sim.nodes.clients import Load, Producer
from tests.sim.nodes.network import Response
from tests.sim.nodes.world import Violation
from tests.sim.schedules.options import Options

TOLD_MS = 500
"""A follower has learnt of a commit: a few ticks, a round trip and a flush, generously."""
NOTED_MS = 2000
"""A broker has looked at its replicas: it does so every half second."""
GONE_MS = 1500
"""What retention lets go has gone everywhere: a few of its looks."""
FENCED_SESSIONS = 3
"""Clocks that run slow, and once more for what the controller forgives itself."""
FENCED_MORE_MS = 8000
"""Two rounds of requests that are each written down by themselves: one is forgiven, the next one
notices."""
SLOW_APPEND_MS = (270, 600)
HANDED_OVER_MS = 5000
BACK_MS = 15_000
AGAIN_MS = 1000
DAMAGED_FILE = "/data/broker/damaged-0/00000000000000000000.log"
SEGMENT_RECORDS = 400
"""More than a segment holds: what was written before is sealed."""
FLIPPED_BYTE = 70
"""In the records of the first batch of a log."""


class Trials:
    def __init__(self, cluster: SimCluster, options: Options) -> None:
        self.cluster, self.options = cluster, options
        self.rng: Random = cluster.world.rng("trials")
        self.figures: Counter[str] = Counter()

    def run(self) -> None:
        if self.options.trial:
            self.producer = self.cluster.add_producer("trial")
            self.cluster.world.note(f"trial: {self.options.trial}")
            self.figures[f"trial {self.options.trial}"] += 1
            {"busy neighbour": self._neighbour, "slow journal": self._slow_journal, "damage": self._damage}[
                self.options.trial
            ]()

    def _two(self) -> list[int]:
        return self.rng.sample(list(self.cluster.brokers), 2)

    def _create(self, topic: str, replicas: list[int], **config: Any) -> None:
        """Whoever leads it: a stop that was under way may still move that. Asked for again until it
        is there."""
        topics, asked_ms = self.cluster.invariants.truth.topics, [0]
        request = CreateTopic(topic, config=config_of(config.pop("min_isr", 1), config), assignment=[replicas])

        def exists() -> bool:
            if topic not in topics and self.cluster.world.now_ms - asked_ms[0] >= AGAIN_MS:
                asked_ms[0] = self.cluster.world.now_ms
                self.cluster.admin.request(request)
            return topic in topics

        self.cluster.until(exists, f"{topic} is created", BACK_MS)
        self._write(topic, 1)
        self.cluster.settle(topic)  # what was late before all healed is over

    def _write(self, topic: str, count: int) -> int:
        """Acknowledged by all, whatever number of attempts that takes. The end offset."""
        writes = [self.producer.write(topic, 0, ACKS_ALL, count)]

        def is_written() -> bool:
            if writes[-1].outcome not in (None, "ok"):
                writes.append(self.producer.write(topic, 0, ACKS_ALL, count))
            return writes[-1].outcome == "ok"

        self.cluster.until(is_written, f"a write to {topic}", BACK_MS)
        receipt = writes[-1].receipt
        assert receipt is not None
        assert receipt.end_offset is not None
        return receipt.end_offset

    # --- busy neighbour ---------------------------------------------------------------------------

    def _neighbour(self) -> None:
        cluster, pair = self.cluster, self._two()
        self._create("busy", pair)
        self._create("quiet", pair, segment_bytes="4096", retention_bytes="0")
        load: Producer = cluster.add_producer("neighbour", Load(interval_ms=1, acks=(1,), inflight_max=50))
        load.partitions = [("busy", 0)]
        load.begin()
        cluster.run(50)
        for _ in range(2):
            self._until_told(pair, self._write("quiet", 300))
        cluster.until(
            lambda: all(cluster.log(b, "quiet").start_offset >= 300 for b in pair),
            "retention of a quiet partition beside a busy one",
            GONE_MS,
        )
        load.active = False
        cluster.until(lambda: load.is_idle, "the busy neighbour ends", BACK_MS)
        for topic in ("busy", "quiet"):
            cluster.delete_topic(topic)

    def _until_told(self, pair: list[int], end_offset: int) -> None:
        """Readers ask the follower all the while. What they are told of its age is an invariant."""

        def is_told() -> bool:
            follower = next(b for b in pair if b != self.cluster.leader("quiet"))
            self._ask(follower, "quiet", max_lag_ms=100)
            replica = self.cluster.replica(follower, "quiet")
            return replica is not None and replica.role.high_watermark >= end_offset

        self.cluster.until(is_told, "a follower of a quiet partition learns what is committed", TOLD_MS)

    def _ask(self, broker_id: int, topic: str, *, max_lag_ms: int = -1) -> list[Response]:
        """The answers, once they are there."""
        answers: list[Response] = []
        request = Fetch([FetchPartition(topic, 0, 0)], any_replica=True, max_lag_ms=max_lag_ms)
        self.cluster.admin.ask(broker_id, request, answers.append, 2000)
        return answers

    # --- slow journal -----------------------------------------------------------------------------

    def _slow_journal(self) -> None:
        cluster = self.cluster
        controller, usual = cluster.controller, cluster.controller.journal_delay_ms
        node = cluster.brokers[self.rng.choice(list(cluster.brokers))]
        controller.journal_delay_ms = SLOW_APPEND_MS
        frozen = self.rng.random() < 0.5
        if frozen:
            node.pause()
        else:
            cluster.network.cut(node.node_id, CONTROLLER_ID)
        within_ms = FENCED_SESSIONS * self.options.session_timeout_ms + FENCED_MORE_MS
        cluster.until(
            lambda: self._is_fenced(node.node_id), "a silent broker is fenced by a slow controller", within_ms
        )
        controller.journal_delay_ms = usual
        if frozen:
            node.resume()
        else:
            cluster.network.heal()
        cluster.until(cluster.all_ready, "all brokers ready after a slow journal", BACK_MS)

    def _is_fenced(self, broker_id: int) -> bool:
        """Looked at all the time; whenever the controller has nothing to write it is given
        something."""
        truth = self.cluster.invariants.truth
        if self.cluster.controller.is_idle:
            topic = "churn0"
            self.cluster.admin.request(DeleteTopic(topic) if topic in truth.topics else CreateTopic(topic, 1, 1, {}))
        return truth.brokers[broker_id].fenced

    # --- damage -----------------------------------------------------------------------------------

    def _damage(self) -> None:
        cluster = self.cluster
        replicas = self.rng.sample(list(cluster.brokers), min(3, len(cluster.brokers)))
        self._create("damaged", replicas, min_isr=1, retention_ms="-1", segment_bytes="4096")
        self._write("damaged", 5)
        self._write("damaged", SEGMENT_RECORDS)
        cluster.settle("damaged")
        cluster.run(2 * cluster.brokers[replicas[0]].settings.checkpoint_interval_ms)
        leader, leads = self._leader(), len(replicas) < 3 or self.rng.random() < 0.5
        damaged = leader if leads else self.rng.choice([r for r in replicas if r != leader])
        disk = cluster.brokers[damaged].machine.disk
        flipped = disk.flip_bit(DAMAGED_FILE, FLIPPED_BYTE)
        self._find(damaged)
        if leads:
            cluster.until(lambda: self._leader() not in (damaged, -1), "a damaged leader gives up", HANDED_OVER_MS)
        else:
            cluster.brokers[leader].kill()
            cluster.until(lambda: self._leader() not in (leader, -1), "a leader elected", HANDED_OVER_MS)
            if self._leader() == damaged:
                raise Violation("DamagedNotElected", f"b{damaged} leads damaged-0, and knows that it cannot be read")
        self._start_again(damaged)
        disk.restore_bit(DAMAGED_FILE, FLIPPED_BYTE, flipped)
        cluster.start_all()
        cluster.until(cluster.all_ready, "all brokers ready after damage", BACK_MS)
        cluster.settle("damaged")
        cluster.delete_topic("damaged")

    def _start_again(self, broker_id: int) -> None:
        """Once it is noted the next process knows of the damage as well: it refuses to begin with it.
        Until then the controller was not told, so nobody has counted on it."""
        broker = self.cluster.brokers[broker_id]
        self.cluster.until(lambda: self._has_noted(broker_id), "damage that was found is noted", NOTED_MS)
        broker.kill()
        broker.start()
        self.cluster.until(lambda: not broker.running, "a start with what is damaged is refused", BACK_MS)
        if "is damaged" not in broker.refused:
            raise Violation("DamageIsRemembered", f"b{broker_id} ended otherwise: {broker.refused!r}")

    def _has_noted(self, broker_id: int) -> bool:
        core = self.cluster.brokers[broker_id].core
        return core is not None and TopicPartition("damaged", 0) in core.state.damaged

    def _find(self, broker_id: int) -> None:
        answers = self._ask(broker_id, "damaged")
        self.cluster.until(lambda: bool(answers), "a read of what is damaged", BACK_MS)
        answer = answers[0]
        problem = answer.partitions[0].problem if isinstance(answer, FetchReply) else None
        if problem is None or problem.code != "CORRUPT_RANGE":
            raise Violation("ConsistentRead", f"b{broker_id} is damaged, and answers a read with {answer}")

    def _leader(self) -> int:
        return self.cluster.leader("damaged")
