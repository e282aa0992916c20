"""Other settings for a topic that exists: what is decided, and every refusal with its sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest

from minilog.core.controller.topic_config import configure_topic
from minilog.core.image import ClusterImage
from minilog.errors import MinilogError
from minilog.wire.admin_messages import ConfigureTopic, ConfigureTopicReply
from minilog.wire.journal.events import EventKind
from minilog.wire.journal.metadata_records import EventNoted, PartitionChanged, TopicConfigured
from tests.unit.core.builders import TOPIC, TOPIC_ID, image_of, partition_state, topic_records
from tests.unit.core.controller.controller_bench import ControllerBench


def image(**state: Any) -> ClusterImage:
    return image_of(*topic_records(partition_state(**state)))


def configure(into: ClusterImage, *reset: str, dry_run: bool = False, **config: str) -> tuple[list[Any], Any]:
    given = {key.replace("_", "."): value for key, value in config.items()}
    return configure_topic(ConfigureTopic(TOPIC, given, list(reset), dry_run=dry_run), into)


def test_settings_that_are_not_named_stay() -> None:
    cluster = image()
    records, _ = configure(cluster, retention_ms="5000", segment_bytes="8192")
    cluster.apply(cluster.metadata_offset + 1, records[0])
    records, reply = configure(cluster, "segment.bytes", flush_ms="9")
    assert [type(record) for record in records] == [TopicConfigured]
    assert records[0].config == reply.config
    assert (reply.config["retention.ms"], reply.config["flush.ms"]) == ("5000", "9")
    assert "segment.bytes" in reply.before
    assert "segment.bytes" not in reply.config
    assert reply.metadata_offset == cluster.metadata_offset + 1


def test_what_the_topic_has_already_is_no_change() -> None:
    cluster = image()
    records, reply = configure_topic(ConfigureTopic(TOPIC, cluster.topics[TOPIC].config), cluster)
    assert (records, reply.metadata_offset, reply.before) == ([], 0, reply.config)


def test_a_dry_run_tells_and_changes_nothing() -> None:
    records, reply = configure(image(replicas=[1, 2, 3], isr=[1]), dry_run=True, min_insync_replicas="2")
    assert records == []
    assert (reply.config["min.insync.replicas"], reply.under_min_isr, reply.metadata_offset) == ("2", [0], 0)


def test_a_reset_minimum_is_a_majority_again() -> None:
    _, reply = configure(image(replicas=[1, 2, 3]), "min.insync.replicas")
    assert reply.config["min.insync.replicas"] == "2"


def test_a_lower_minimum_empties_the_elr_where_the_isr_has_it_now() -> None:
    cluster = image_of(
        *topic_records(
            partition_state(replicas=[1, 2, 3], isr=[1], elr=[2]),
            partition_state(partition=1, replicas=[1, 2, 3], isr=[], elr=[1, 2], leader=-1),
            min_isr=2,
        )
    )
    records, _ = configure(cluster, min_insync_replicas="1")
    changed = [record for record in records if isinstance(record, PartitionChanged)]
    assert [(c.partition, c.isr, c.elr, c.partition_epoch) for c in changed] == [(0, [1], [], 11)]
    for index, record in enumerate(records, cluster.metadata_offset + 1):
        cluster.apply(index, record)
    cluster.check_invariants()


@pytest.mark.parametrize(
    ("request_", "code", "sentence"),
    [
        (ConfigureTopic("absent", {}), "UNKNOWN_TOPIC_OR_PARTITION", "there is no topic 'absent'"),
        (ConfigureTopic(TOPIC, {}, [], "another"), "UNKNOWN_TOPIC_OR_PARTITION", "with topic id another any more"),
        (ConfigureTopic("__groups", {}), "INVALID_TOPIC", "minilog's own"),
        (ConfigureTopic(TOPIC, {"retention.m": "1"}), "INVALID_CONFIG", "unknown topic setting 'retention.m'"),
        (ConfigureTopic(TOPIC, {}, ["flush"]), "INVALID_CONFIG", "unknown topic setting 'flush'"),
        (ConfigureTopic(TOPIC, {"flush.ms": "-5"}), "INVALID_CONFIG", "flush.ms cannot be '-5'"),
        (ConfigureTopic(TOPIC, {"flush.ms": "5"}, ["flush.ms"]), "INVALID_CONFIG", "ask for one of both"),
        (ConfigureTopic(TOPIC, {"flush.ms": "5" * 99}), "INVALID_CONFIG", "at most 64"),
        (
            ConfigureTopic(TOPIC, {"min.insync.replicas": "4"}),
            "INVALID_CONFIG",
            "never be met with 3 replicas; use 1 to 3",
        ),
        (
            ConfigureTopic(TOPIC, {"retention.ms": "5", "max.compaction.lag.ms": "5", "min.compaction.lag.ms": "6"}),
            "INVALID_CONFIG",
            "the first may be at most the second",
        ),
    ],
)
def test_what_is_refused(request_: ConfigureTopic, code: str, sentence: str) -> None:
    with pytest.raises(MinilogError, match=re.escape(sentence)) as refused:
        configure_topic(request_, image(replicas=[1, 2, 3]))
    assert refused.value.code == code


def test_who_asked_is_journalled_and_everybody_knows_before_the_answer() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    sent = bench.handle(ConfigureTopic(TOPIC, {"retention.ms": "7000"}, asked_by="10.0.0.9 by way of broker 2"))
    assert sent not in bench.replies
    bench.beat()
    reply = bench.replies[sent]
    assert isinstance(reply, ConfigureTopicReply)
    noted = [r.event for r in bench.journal if isinstance(r, EventNoted)]
    told = [event for event in noted if event.kind == EventKind.TOPIC_CONFIGURED]
    assert [event.sentence for event in told] == [
        f"topic {TOPIC} has other settings: retention.ms=7000, asked for from 10.0.0.9 by way of broker 2"
    ]
    assert bench.core.image.topics[TOPIC].settings.retention_ms == 7000
    assert isinstance(bench.ask(ConfigureTopic(TOPIC, {"retention.ms": "7000"})), ConfigureTopicReply)


def test_a_snapshot_has_the_settings_of_now() -> None:
    cluster = image()
    records, _ = configure(cluster, retention_ms="5000")
    cluster.apply(cluster.metadata_offset + 1, records[0])
    copy = ClusterImage()
    copy.load(cluster.metadata_offset, cluster.snapshot())
    assert copy.topics[TOPIC].settings == cluster.topics[TOPIC].settings
    assert copy.topics[TOPIC].topic_id == TOPIC_ID
