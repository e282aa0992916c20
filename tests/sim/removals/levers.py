"""What an operator changes in a living cluster, without what makes it safe."""

from __future__ import annotations

from collections.abc import Iterator

from minilog.config import TopicSettings
from minilog.core.controller import topic_config
from minilog.core.image import PartitionState, TopicImage
from minilog.core.replication.leader import LeaderState, Outcome
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.cluster import test_topic_config

_on_state_changed = LeaderState.on_state_changed


def _elr_stays(topic: TopicImage, settings: TopicSettings) -> Iterator[PartitionState]:
    return iter(())


def _only_by_another_isr(self: LeaderState, state: PartitionState, settings: TopicSettings) -> list[Outcome]:
    if state.partition_epoch > self.state.partition_epoch:
        return _on_state_changed(self, state, settings)
    self.settings = settings
    return []


LEVER_ABLATIONS = (
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
