"""The settings of a topic that exists: what may be changed, and what changes with it. Pure.

Invariant (R110): when ``min.insync.replicas`` goes down to what an ISR has, its ELR is emptied in
the same step. The leader may move the high watermark from then on, and whoever is in the ELR does
not hold what it commits.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from minilog.config import TopicSettings, check_topic_keys, topic_settings
from minilog.core.controller.elections.partition_change import with_isr
from minilog.core.controller.topics import check_lengths, check_min_isr, known_topic, with_min_isr
from minilog.core.image import ClusterImage, TopicImage
from minilog.core.moves.moving import least_factor
from minilog.core.topic_names import check_not_internal
from minilog.errors import InvalidConfig
from minilog.wire.admin_messages import ConfigureTopic, ConfigureTopicReply
from minilog.wire.journal.metadata_records import MetadataRecord, PartitionChanged, TopicConfigured


def configure_topic(request: ConfigureTopic, image: ClusterImage) -> tuple[list[MetadataRecord], ConfigureTopicReply]:
    """The records that give a topic other settings, none when it has them already, and the answer.

    Raises UnknownTopic, InvalidTopic, InvalidConfig."""
    check_not_internal(request.topic, "given other settings")
    topic = known_topic(request.topic, request.topic_id, image)
    config = _config(request, topic)
    settings = topic_settings(config)
    for state in topic.partitions.values():
        check_min_isr(settings, least_factor(state))
    records: list[MetadataRecord] = []
    if config != topic.config and not request.dry_run:
        records.append(TopicConfigured(topic.topic, topic.topic_id, config))
        records += _without_elr(topic, settings)
    short = [s.partition for s in topic.partitions.values() if len(s.isr) < settings.min_insync_replicas]
    end = image.metadata_offset + len(records) if records else 0
    return records, ConfigureTopicReply(topic.topic, topic.topic_id, topic.config, config, short, end)


def _config(request: ConfigureTopic, topic: TopicImage) -> dict[str, str]:
    """All that the topic is to have. Raises InvalidConfig."""
    check_lengths(request.config)
    check_topic_keys(request.reset)
    twice = sorted(set(request.config) & set(request.reset))
    if twice:
        raise InvalidConfig(f"topic setting {twice[0]} is to be set and to be reset; ask for one of both")
    kept = {key: value for key, value in topic.config.items() if key not in request.reset}
    factor = min((least_factor(state) for state in topic.partitions.values()), default=1)
    return with_min_isr({**kept, **request.config}, factor)


def _without_elr(topic: TopicImage, settings: TopicSettings) -> Iterator[PartitionChanged]:
    for state in topic.partitions.values():
        minimum = min(settings.min_insync_replicas, len(state.replicas))
        if state.elr and len(state.isr) >= minimum:
            yield replace(with_isr(state, state.isr, minimum), partition_epoch=state.partition_epoch + 1)
