"""What an operator changes in a living cluster, without what makes it safe."""

from __future__ import annotations

from collections.abc import Iterator

from minilog.config import TopicSettings
from minilog.core.controller import topic_config
from minilog.core.controller.elections import leader_balance
from minilog.core.controller.elections.leader_balance import LeaderBalance
from minilog.core.image import PartitionState, TopicImage
from minilog.core.replication.leader import LeaderState, Outcome
from minilog.core.replication.leader_isr import LeaderIsr
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.cluster import test_topic_config
from tests.sim.stories.replication import test_succession

_on_state_changed = LeaderState.on_state_changed


def _elr_stays(topic: TopicImage, settings: TopicSettings) -> Iterator[PartitionState]:
    return iter(())


def _only_by_another_isr(self: LeaderState, state: PartitionState, settings: TopicSettings) -> list[Outcome]:
    if state.partition_epoch > self.state.partition_epoch:
        return _on_state_changed(self, state, settings)
    self.settings = settings
    return []


def _whatever_is_acknowledged(self: LeaderIsr, acks: int) -> bool:
    return self._is_quiet


LEVER_ABLATIONS = (
    Ablation(
        "R111",
        "a leader hands over before the others hold all that it has",
        ((LeaderIsr, "drained", property(lambda self: True)),),
        story=test_succession.test_a_leader_hands_over_to_the_preferred_replica_and_loses_nothing,
    ),
    Ablation(
        "R111",
        "a leader takes any write while its successor may lead",
        ((LeaderIsr, "refuses", _whatever_is_acknowledged),),
        story=test_succession.test_a_leader_whose_successor_may_lead_takes_no_weak_write,
    ),
    Ablation(
        "R111",
        "a successor is named for ever",
        ((leader_balance, "SUCCESSION_MS", 10**9),),
        story=test_succession.test_a_leader_goes_on_when_its_successor_does_not_catch_up,
    ),
    Ablation(
        "R112",
        "leaderships go to a broker that comes and goes",
        ((LeaderBalance, "_is_steady", lambda self, broker_id, now_ms: True),),
        story=test_succession.test_leaders_go_back_by_themselves_when_all_has_been_calm_for_a_while,
    ),
    Ablation(
        "R110",
        "a lower minimum leaves the ELR as it is",
        ((topic_config, "_without_elr", _elr_stays),),
        story=test_topic_config.test_who_was_complete_by_a_higher_minimum_is_not_by_a_lower_one,
    ),
    Ablation(
        "R110",
        "who waits is not looked at when the minimum rises",
        ((LeaderState, "on_state_changed", _only_by_another_isr),),
        story=test_topic_config.test_a_write_that_a_higher_minimum_cannot_have_is_told_so,
    ),
)
