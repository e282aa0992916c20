"""Plans of moves: which replicas go where, so that brokers are emptied, a topic has another number
of replicas, or the load is spread. Pure: nothing is decided here.

A plan moves as little as it can. Each replica that has to go is replaced by one on the broker whose
rack the partition does not use yet, then on the one with the fewest replicas. The place in the list
stays, and with it who is preferred to lead, unless that one goes: then the member that is preferred
for the fewest partitions comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from minilog.core.controller.topics import check_min_isr, known_topic
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.moves.moving import is_moving, settled_replicas
from minilog.errors import InvalidReplication, InvalidRequest
from minilog.wire.admin_messages import MovedReplicas, PlanReplicas, PlanReplicasReply

PROBLEMS_MAX = 100


class Plan:
    """The replicas as they would be, while a plan is made."""

    def __init__(self, image: ClusterImage, homes: Iterable[int]) -> None:
        self.image = image
        self.homes = sorted(homes)
        """Brokers that replicas may go to."""
        self.states = [state for _, state in image.partitions()]
        self.replicas = {_key(state): settled_replicas(state) for state in self.states}
        self.problems: list[str] = []
        self.counts = Counter(r for members in self.replicas.values() for r in members)
        self.preferred = Counter(members[0] for members in self.replicas.values())

    def put(self, state: PartitionState, replicas: Sequence[int]) -> None:
        before = self.replicas[_key(state)]
        self.counts.subtract(before)
        self.counts.update(replicas)
        self.preferred.subtract(before[:1])
        self.preferred.update(replicas[:1])
        self.replicas[_key(state)] = list(replicas)

    def home_for(self, state: PartitionState, others: Sequence[int]) -> int | None:
        """Where one more replica goes, beside the ``others``."""
        racks = Counter(self._rack(r) for r in others)
        free = [broker_id for broker_id in self.homes if broker_id not in others]
        return min(free, key=lambda b: (racks[self._rack(b)], self.counts[b], b not in state.replicas, b), default=None)

    def _rack(self, broker_id: int) -> str:
        broker = self.image.brokers.get(broker_id)
        return broker.rack if broker is not None and broker.rack else f"broker {broker_id}"

    def racks_of(self, replicas: Sequence[int]) -> int:
        return len({self._rack(r) for r in replicas})

    def without(self, state: PartitionState, off: set[int]) -> None:
        """Off those brokers, if there is room elsewhere."""
        before = self.replicas[_key(state)]
        after = list(before)
        for broker_id in off & set(before):
            others = [r for r in after if r != broker_id]
            home = self.home_for(state, others)
            if home is None:
                self.problem(state, f"no running broker is left that could take the replica of broker {broker_id}")
                return
            after[after.index(broker_id)] = home
        if before[0] in off:
            first = min(after, key=lambda r: (self.preferred[r], r not in before, after.index(r)))
            after = [first, *(r for r in after if r != first)]
        self.put(state, after)

    def with_factor(self, state: PartitionState, factor: int) -> None:
        replicas = list(self.replicas[_key(state)])
        while len(replicas) < factor:
            home = self.home_for(state, replicas)
            if home is None:
                raise InvalidReplication(
                    f"replication_factor={factor} is not possible: {len(self.homes)} brokers are running "
                    f"({', '.join(map(str, self.homes))}); use 1 to {len(self.homes)} or start more"
                )
            replicas.append(home)
        while len(replicas) > factor:
            replicas.remove(self._dispensable(state, replicas))
        self.put(state, replicas)

    def _dispensable(self, state: PartitionState, replicas: Sequence[int]) -> int:
        """Who is away or behind, then who shares a rack, then who has most. The leader stays."""

        def worth(broker_id: int) -> tuple[bool, bool, int, int, int]:
            racks = self.racks_of([r for r in replicas if r != broker_id])
            is_in_sync = self.image.is_eligible(broker_id) and broker_id in state.isr
            return broker_id == state.leader, is_in_sync, -racks, -self.counts[broker_id], -replicas.index(broker_id)

        return min(replicas, key=worth)

    def spread(self) -> None:
        """One replica after the other from whoever has most to whoever has fewest."""
        for _ in range(sum(self.counts.values())):
            if not self._spread_one():
                return

    def _spread_one(self) -> bool:
        to = min(self.homes, key=lambda b: (self.counts[b], b))
        for broker_id in sorted(self.homes, key=lambda b: (-self.counts[b], b)):
            if self.counts[broker_id] - self.counts[to] < 2:
                return False
            for state in self.states:
                replicas = self.replicas[_key(state)]
                after = [to if r == broker_id else r for r in replicas]
                may_go = broker_id in replicas and to not in replicas and not is_moving(state)
                if may_go and self.racks_of(after) >= self.racks_of(replicas):
                    self.put(state, after)
                    return True
        return False

    def problem(self, state: PartitionState, why: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(f"{state.topic}-{state.partition}: {why}")

    def moves(self) -> list[MovedReplicas]:
        found = []
        for state in self.states:
            before, after = settled_replicas(state), self.replicas[_key(state)]
            if before != after:
                new = [r for r in after if r not in before]
                named = state.topic, state.topic_id, state.partition
                found.append(MovedReplicas(*named, before, after, new, state.partition_epoch))
        return found


def plan_replicas(request: PlanReplicas, image: ClusterImage) -> PlanReplicasReply:
    """What to move for that. Raises UnknownTopic, InvalidRequest, InvalidReplication,
    InvalidConfig."""
    unknown = sorted({*request.off, *request.onto} - {*image.brokers})
    if unknown:
        raise InvalidRequest(
            f"there is no broker {', '.join(map(str, unknown))}; known are {', '.join(map(str, sorted(image.brokers)))}"
        )
    if not (request.off or request.replication_factor or request.spread):
        raise InvalidRequest("nothing to plan: name brokers to empty, a replication factor, or ask to spread the load")
    homes = {b for b in image.brokers if image.is_eligible(b) and b not in request.off}
    away = sorted({*request.onto} - homes)
    if away:
        raise InvalidReplication(f"broker {', '.join(map(str, away))} cannot take replicas: it is not running")
    plan = Plan(image, request.onto or homes)
    if request.replication_factor:
        _change_factor(plan, request, image)
    for state in plan.states:
        if set(request.off) & {*plan.replicas[_key(state)]}:
            if is_moving(state):
                plan.problem(state, "its replicas are on the move already")
            else:
                plan.without(state, set(request.off))
    if request.spread:
        plan.spread()
    return PlanReplicasReply(plan.moves(), plan.problems)


def _change_factor(plan: Plan, request: PlanReplicas, image: ClusterImage) -> None:
    topic = known_topic(request.topic, "", image)
    check_min_isr(topic.settings, request.replication_factor)
    for state in topic.partitions.values():
        if is_moving(state) and len(settled_replicas(state)) != request.replication_factor:
            plan.problem(state, "its replicas are on the move already")
        else:
            plan.with_factor(state, request.replication_factor)


def _key(state: PartitionState) -> tuple[str, int]:
    return state.topic, state.partition
