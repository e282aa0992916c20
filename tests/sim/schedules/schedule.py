"""Schedule: one random run. Phase one: faults, and safety is checked at every event. Phase two: all
heals, and progress is demanded within a bounded virtual time: leaders, full ISRs, equal logs, new
writes, nobody left waiting.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from minilog.core.replication.leader import LeaderState
from minilog.wire.batch import split
from minilog.wire.records import decode_batch
from tests.sim.checks.history import UNBOUNDED
from tests.sim.cluster import SimCluster
from tests.sim.nodes.clients import Consumer, Producer, Write
from tests.sim.nodes.numbered import NumberedProducer
from tests.sim.nodes.world import START_MS, Violation
from tests.sim.schedules.faults import Faults
from tests.sim.schedules.group_load import GroupLoad
from tests.sim.schedules.options import Options
from tests.sim.schedules.recreation import Recreation
from tests.sim.schedules.trials import Trials

SETTLE_MS = 15_000
WRITE_MS = 3_000
SUPERVISION_MS = 100
TODAY_MS = 1_700_000_000_000
"""What clocks show where history is loaded: elsewhere they begin in 1970, and nothing could be
older."""


@dataclass
class Outcome:
    seed: int
    digest: int
    events: int
    virtual_ms: int
    figures: Counter[str]
    violation: str = ""
    trace: tuple[str, ...] = ()


class Schedule:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.cluster = SimCluster(
            options.seed, brokers=options.brokers, timeouts=options.timeouts(), controllers=options.controllers
        )
        self.recreation = Recreation(self.cluster, options)
        self.faults = Faults(self.cluster, options, self.recreation)
        self.trials = Trials(self.cluster, options)
        self.groups = GroupLoad(self.cluster, options)
        self.producers: list[Producer] = []
        self.consumers: list[Consumer] = []
        self.names: list[tuple[str, int]] = []

    def run(self) -> Outcome:
        world = self.cluster.world
        violation = ""
        try:
            self._prepare()
            self.faults.begin()
            world.run_for(self.options.faults_ms)
            self._heal()
            self._check_end()
        except Violation as found:
            violation = str(found)
        except AssertionError as found:
            violation = f"Assertion: {found} ({_place(found)})"
        except Exception as found:
            violation = f"{type(found).__name__}: {found} ({_place(found)})"
        figures = self._figures()
        if violation:
            figures[f"violation {violation.partition(':')[0]}"] += 1
        return Outcome(
            self.options.seed,
            world.digest,
            world.events,
            world.now_ms - START_MS,
            figures,
            violation,
            tuple(world.trace_lines()) if violation else (),
        )

    # --- before -----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        cluster, options = self.cluster, self.options
        rng = cluster.world.rng("clocks")
        for node in (*cluster.controllers, *cluster.brokers.values()):
            node.clock_offset_ms = rng.randint(-options.clock_skew_ms, options.clock_skew_ms)
            node.clock_drift = rng.uniform(-options.clock_drift, options.clock_drift)
            node.clock_offset_ms += TODAY_MS if options.loads_history else 0
            node.tick_ms = options.tick_ms
            node.wall_step_max_ms = options.wall_step_max_ms
        for node in cluster.brokers.values():
            node.disk_delay_ms = (1, options.disk_delay_max_ms)
        cluster.controller.journal_delay_ms = (0, options.journal_delay_max_ms)
        cluster.start()
        for number in range(options.topics):
            cluster.create_topic(
                f"t{number}",
                partitions=options.partitions,
                replicas=options.replicas,
                min_isr=options.min_isr,
                **options.topic_config(),
            )
            self.names += [(f"t{number}", partition) for partition in range(options.partitions)]
        self._load_history()
        self._add_clients()
        self.groups.begin(self.names)
        self.recreation.begin()

    def _load_history(self) -> None:
        """Old records of a producer that numbers them, in every partition."""
        if not self.options.loads_history:
            return
        loader = self.cluster.add_numbered_producer("loader", self.options.load())
        loader.clock_offset_ms = TODAY_MS - self.options.history_age_ms
        loader.ask_for_id()
        writes = [loader.write(*name, -1, 2) for name in self.names for _ in range(2)]
        self.cluster.until(lambda: all(write.outcome == "ok" for write in writes), "history is loaded", SETTLE_MS)
        self.producers.append(loader)

    def _add_clients(self) -> None:
        count = max(self.options.producers, 3) if self.options.loads_history else self.options.producers
        for number in range(count):
            add = self.cluster.add_numbered_producer if self.options.numbered else self.cluster.add_producer
            producer = add(f"p{number}", self.options.load())
            producer.partitions = self.names
            if self.options.loads_history:
                producer.clock_offset_ms = TODAY_MS + (self.options.wrong_clock_ms if number == 0 else 0)
            producer.begin()
            self.producers.append(producer)
        for number in range(self.options.consumers):
            consumer = self.cluster.add_consumer(f"c{number}")
            consumer.any_replica = number == 1
            consumer.max_lag_ms = self.options.reader_lag_max_ms if number == 1 else -1
            consumer.names_epoch = self.options.seed % 2 == 0
            for name in self.names:
                consumer.assign(*name)
            consumer.begin()
            self.consumers.append(consumer)

    # --- after ------------------------------------------------------------------------------------

    def _heal(self) -> None:
        cluster = self.cluster
        self.faults.end()
        self.groups.heal()
        self._supervise()
        cluster.until(cluster.all_ready, "all brokers ready after healing", SETTLE_MS)
        self._adopt()
        self._until_led()
        self.trials.run()
        self._until_led()
        for producer in self.producers:
            producer.active = False
        cluster.until(lambda: all(producer.is_idle for producer in self.producers), "writes end", SETTLE_MS)
        writes = {name: cluster.producer.write(*name, -1, 2) for name in self.names}
        cluster.until(lambda: self._written(writes), "new acks=all writes succeed", WRITE_MS)
        for name in self.names:
            cluster.until(lambda name=name: cluster.converged(*name), f"{name} converges", SETTLE_MS)  # type: ignore[misc]
        cluster.until(self._is_quiet, "nobody waits any more", SETTLE_MS)
        for consumer in self.consumers:
            consumer.any_replica, consumer.max_lag_ms = (
                False,
                -1,
            )  # asking around among brokers without a replica takes too long
        cluster.until(self._consumed, "consumers reach the end", SETTLE_MS)
        self.groups.settle(SETTLE_MS)
        if self.options.retains:
            cluster.until(self._starts_settled, "what was to go has gone", SETTLE_MS)
        cluster.until(self._metadata_converged, "brokers know all metadata", SETTLE_MS)
        cluster.until(self._removed_are_gone, "what was moved away has gone", SETTLE_MS)
        cluster.until(self._is_settled, "all of this at once", SETTLE_MS)

    def _is_settled(self) -> bool:
        """A late copy of a write may have come after a look at its partition."""
        return all(self.cluster.converged(*name) for name in self.names) and self._consumed()

    def _until_led(self) -> None:
        for name in self.names:
            what = f"{name} has a leader and a full ISR"
            self.cluster.until(lambda name=name: self._is_led(name), what, SETTLE_MS)  # type: ignore[misc]

    def _adopt(self) -> None:
        """What was deleted and made anew is a topic like the others now."""
        recreation = self.recreation
        self.cluster.until(lambda: recreation.settled, "the last topic made anew", SETTLE_MS)
        self.names = self.names + recreation.names
        self.producers += recreation.producers
        self.consumers += recreation.consumers

    def _supervise(self) -> None:
        """As an init system would: whatever ends now (a stop under way, a disk found broken) is
        started again."""
        self.cluster.start_all()
        self.cluster.world.after(SUPERVISION_MS, "supervision", self._supervise)

    def _written(self, writes: dict[tuple[str, int], Write]) -> bool:
        """What ended otherwise (a leader may still be moving) is followed by another one."""
        for name, write in writes.items():
            if write.outcome not in (None, "ok"):
                writes[name] = self.cluster.producer.write(*name, -1, 2)
        return all(write.outcome == "ok" for write in writes.values())

    def _is_led(self, name: tuple[str, int]) -> bool:
        state = self.cluster.state(*name)
        return (
            state.leader >= 0
            and not state.target
            and sorted(state.isr) == sorted(state.replicas)
            and self.cluster.leads(state.leader, *name)
        )

    def _is_quiet(self) -> bool:
        return all(node.waiting_produces == 0 for node in self.cluster.brokers.values())

    def _consumed(self) -> bool:
        if not all(self._is_led(name) for name in self.names):
            return False  # whoever was restarted just now is still coming back
        ends = {name: self.cluster.log(self.cluster.leader(*name), *name).end_offset for name in self.names}
        return all(c.offset == ends[name] for consumer in self.consumers for name, c in consumer.cursors.items())

    def _starts_settled(self) -> bool:
        """What a leader has published has been done, by itself and by its followers."""
        for name in self.names:
            leader = self.cluster.replica(self.cluster.leader(*name), *name)
            if leader is None or not isinstance(leader.role, LeaderState):
                return False
            start_offset = leader.role.log_start.published
            replicas = [self.cluster.replica(r, *name) for r in leader.role.state.replicas]
            if any(r is None or r.log.start_offset < start_offset for r in replicas):
                return False
        return True

    def _metadata_converged(self) -> bool:
        truth = sorted(map(repr, self.cluster.invariants.truth.snapshot()))
        cores = [node.core for node in self.cluster.brokers.values()]
        return all(core is not None and sorted(map(repr, core.image.snapshot())) == truth for core in cores)

    def _removed_are_gone(self) -> bool:
        for node in self.cluster.brokers.values():
            for topic, topic_id, partition in node.store.partitions():
                state = self.cluster.invariants.truth.partition(topic, partition)
                if state is not None and state.topic_id == topic_id and node.node_id not in state.replicas:
                    return False
        return True

    # --- the whole history ------------------------------------------------------------------------

    def _check_end(self) -> None:
        found: Counter[bytes] = Counter()
        held: Counter[bytes] = Counter()
        for topic, partition in self.names:
            state = self.cluster.state(topic, partition)
            history = self.cluster.history.of(topic, state.topic_id, partition)
            contents = [self._content(r, topic, partition) for r in state.replicas]
            whole = history.committed_records() if history.records is not None else contents[0]
            for broker_id, content in zip(state.replicas, contents, strict=True):
                start_offset = self.cluster.log(broker_id, topic, partition).start_offset
                if content != [record for record in whole if record[0] >= start_offset]:
                    raise Violation("LogMatching", f"{topic}-{partition}: {broker_id} gives back something else")
            found.update(value for _, value in whole)
            held.update(value for _, value in contents[0])
            self._check_order(topic, partition, dict(whole))
            self._check_numbered(topic, partition, [value for _, value in contents[0]])
        self.recreation.check(set(found))
        for producer in (*self.producers, self.cluster.producer):
            for write in producer.writes:
                if not self.recreation.is_answerable(write):
                    continue
                for values in write.batches():
                    self._check_write(write, values, found)
        twice = [value for value, count in held.items() if count > 1]  # whose first copy has gone is not known any more
        if twice:
            raise Violation("Duplicates", f"{twice[:5]} are there more than once")

    def _content(self, broker_id: int, topic: str, partition: int) -> list[tuple[int, bytes]]:
        """(offset, value) of everything a replica holds, as it reads it back."""
        log = self.cluster.log(broker_id, topic, partition)
        content: list[tuple[int, bytes]] = []
        offset = log.start_offset
        while offset < log.end_offset:
            for batch in split(log.read(offset, 2**20, log.end_offset), UNBOUNDED, stored=True):
                content += [(record.offset, record.value or b"") for record in decode_batch(batch)]
                offset = batch.end_offset
        return content

    def _check_order(self, topic: str, partition: int, by_offset: dict[int, bytes]) -> None:
        if sorted(by_offset) != list(range(len(by_offset))):
            raise Violation("OffsetsContiguous", f"{topic}-{partition}: a gap in {sorted(by_offset)[:20]}")
        for producer in self.producers:
            for write in producer.writes:
                is_here = (write.topic, write.partition) == (topic, partition)
                if is_here and write.outcome == "ok" and write.acks == -1 and self.recreation.of_present(write):
                    for offset, value in write.places():
                        if by_offset.get(offset) != value:
                            raise Violation("AckedBatchesSurvive", f"{value!r} is not at its offset: {write.receipt}")

    def _check_numbered(self, topic: str, partition: int, values: list[bytes]) -> None:
        """What a numbering producer has written is there in the order in which it was made (R33),
        and no replica remembers anything else than its log says (R32)."""
        for producer in self.producers:
            if isinstance(producer, NumberedProducer):
                made = [int(v.split(b".")[1]) for v in values if v.startswith(producer.name.encode() + b".")]
                if made != sorted(made):
                    raise Violation("ProducerSequences", f"{topic}-{partition}: {producer.name} wrote {made}")
        for broker_id in self.cluster.state(topic, partition).replicas:
            self.cluster.log(broker_id, topic, partition).check_producers()

    def _check_write(self, write: Write, values: list[bytes], found: Counter[bytes]) -> None:
        outcome, acks = write.outcome, write.acks
        present = sum(value in found for value in values)
        if present not in (0, len(values)):
            raise Violation("Atomicity", f"{values} is there in part")
        if outcome == "failed" and present:
            raise Violation("AbortedRead", f"{values} definitely failed and is there")
        lost = outcome == "ok" and not present
        if lost and acks == -1:
            raise Violation("AckedBatchesSurvive", f"{values} is lost")
        if lost and acks > 0:
            self._check_given_up(write, values)
        self.cluster.invariants.figures[f"lost acks={acks}"] += lost

    def _check_given_up(self, write: Write, values: list[bytes]) -> None:
        """The election is known at which this was lost, and it may have been."""
        state = self.cluster.state(write.topic, write.partition)
        weak = self.cluster.history.of(write.topic, state.topic_id, write.partition).weak
        base_offset = next(offset for offset, value in write.places() if value == values[0])
        if base_offset not in weak.given_up:
            raise Violation("WeakAcksSurvive", f"{values}, acks={write.acks}, is lost at no election: {write.receipt}")

    def _figures(self) -> Counter[str]:
        figures = Counter(self.cluster.invariants.figures)
        figures.update(self.faults.figures)
        figures.update(self.groups.figures)
        figures.update(self.trials.figures)
        figures.update(self.cluster.watch.figures)
        figures.update(self.cluster.network.figures)
        for history in self.cluster.history.partitions.values():
            figures["log starts moved"] += history.starts.moved
            figures["records removed"] += history.starts.records_removed
        figures["consumers overtaken"] += sum(consumer.overtaken for consumer in self.consumers)
        for node in self.cluster.brokers.values():
            figures["torn files"] += node.machine.disk.torn
            figures.update({f"broker {name}": count for name, count in node.figures.items()})
        for controller in self.cluster.controllers:
            figures.update({f"controller {name}": count for name, count in controller.figures.items()})
        if self.cluster.etcd is not None:
            figures.update({f"etcd {name}": count for name, count in self.cluster.etcd.figures.items()})
        for producer in self.producers:
            figures.update(f"writes {write.outcome}" for write in producer.writes)
            if isinstance(producer, NumberedProducer):
                figures["writes numbered"] += len(producer.writes)
                figures["duplicate answers"] += producer.duplicates
                figures["duplicates in parts"] += producer.parted
                figures["producer epochs"] += producer.epochs_begun
        return figures


def _place(error: BaseException) -> str:
    """Where it was raised, for the one-line report."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
