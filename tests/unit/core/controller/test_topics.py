"""Creating and deleting topics: what is decided, and every refusal with its code and its
sentence."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.config import ControllerSettings
from minilog.core.controller import topics
from minilog.core.controller.topics import add_partitions, create_topic, created_info, delete_topic
from minilog.core.image import ClusterImage
from minilog.core.topic_names import check_topic_name
from minilog.errors import CoordinatorNotAvailable, InvalidTopic, MinilogError, UnknownTopic
from minilog.wire.journal.metadata_records import (
    BrokerFenced,
    BrokerShuttingDown,
    PartitionChanged,
    TopicCreated,
    TopicDeleted,
)
from minilog.wire.messages import AddPartitions, CreateTopic, DeleteTopic
from tests.unit.core.builders import TOPIC, TOPIC_ID, image_of, partition_state, topic_records

EPOCHS = {1: 2, 2: 4, 3: 6}


def create(request: CreateTopic, image: ClusterImage | None = None, **limits: int) -> list[Any]:
    settings = ControllerSettings(data_dir="x", **limits)  # type: ignore[arg-type]
    return list(create_topic(request, image or image_of(), settings, Random(7)))


def test_a_topic_is_one_record_and_one_per_partition() -> None:
    head, *partitions = create(CreateTopic("t", 3, 2, {"min.insync.replicas": "2"}))
    assert isinstance(head, TopicCreated)
    assert (head.topic, head.config) == ("t", {"min.insync.replicas": "2"})
    assert re.fullmatch("[0-9a-f]{32}", head.topic_id)
    assert [p.partition for p in partitions] == [0, 1, 2]
    for p in partitions:
        assert isinstance(p, PartitionChanged)
        assert (p.topic_id, p.leader, p.isr) == (head.topic_id, p.replicas[0], p.replicas)
        assert (p.leader_epoch, p.partition_epoch, p.elr, p.last_known_elr) == (0, 0, [], [])


def test_the_cluster_defaults_fill_in_what_is_left_out() -> None:
    _, *partitions = create(CreateTopic("t"), default_partitions=4, default_replication_factor=2)
    assert [len(p.replicas) for p in partitions] == [2, 2, 2, 2]


def test_the_default_factor_bends_to_the_brokers_that_run() -> None:
    _, partition = create(CreateTopic("t"), image_of(brokers=(4, 5)), default_replication_factor=3)
    assert sorted(partition.replicas) == [4, 5]


@pytest.mark.parametrize(
    ("away", "default", "replicas"),
    [
        ([], 3, [1, 2, 3]),
        ([3], 3, [1, 2, 3]),
        ([2, 3], 3, [1, 2, 3]),
        ([1], 3, [2, 3, 1]),
        ([3], 2, [1, 2]),
        ([2, 3], 2, [1, 2]),
        ([3], 5, [1, 2, 3]),
        ([2, 3], 1, [1]),
    ],
)
def test_a_topic_that_asks_for_no_factor_gets_replicas_on_brokers_that_are_away_for_the_moment(
    away: list[int], default: int, replicas: list[int]
) -> None:
    """Or it would have fewer copies for ever. Only those that are here are in sync, and one of them
    leads."""
    image = image_of(*(BrokerFenced(broker_id, EPOCHS[broker_id]) for broker_id in away))
    _, partition = create(CreateTopic("t"), image, default_replication_factor=default)
    assert partition.replicas == replicas
    assert partition.isr == [r for r in replicas if r not in away]
    assert partition.leader == replicas[0]


def test_one_that_is_leaving_counts_as_away() -> None:
    _, partition = create(CreateTopic("t"), image_of(BrokerShuttingDown(3, 6)))
    assert (partition.replicas, partition.isr) == ([1, 2, 3], [1, 2])


@pytest.mark.parametrize("factor", [2, 3])
def test_who_asks_for_more_copies_than_can_be_made_now_is_refused(factor: int) -> None:
    image = image_of(BrokerFenced(2, 4), BrokerFenced(3, 6))
    with pytest.raises(
        MinilogError, match=rf"replication_factor={factor} is not possible: 1 brokers are running \(1\)"
    ):
        create(CreateTopic("t", 1, factor), image, default_replication_factor=3)


def test_where_all_are_away_nothing_can_be_created() -> None:
    image = image_of(*(BrokerFenced(broker_id, epoch) for broker_id, epoch in EPOCHS.items()))
    with pytest.raises(MinilogError, match=r"0 brokers are running \(none\)"):
        create(CreateTopic("t"), image)


def test_brokers_that_are_fenced_or_leaving_get_no_replica() -> None:
    image = image_of(BrokerFenced(1, 2), BrokerShuttingDown(2, 4))
    _, partition = create(CreateTopic("t", 1, 1), image)
    assert partition.replicas == [3]


def test_topics_follow_each_other_round_the_brokers() -> None:
    image = image_of(*topic_records(partition_state(partition=0), partition_state(partition=1)))
    _, partition = create(CreateTopic("t", 1, 1), image)
    assert partition.replicas == [3]


def test_an_assignment_is_taken_as_it_is_and_led_by_the_first_that_runs() -> None:
    _, first, second = create(CreateTopic("t", assignment=[[1, 2], [3, 1]]), image_of(BrokerFenced(1, 2)))
    assert (first.replicas, first.leader, first.isr) == ([1, 2], 2, [2])
    assert (second.replicas, second.leader, second.isr) == ([3, 1], 3, [3])


def test_topic_ids_come_from_the_given_randomness() -> None:
    settings = ControllerSettings(data_dir="x")
    rng = Random(1)
    ids = [create_topic(CreateTopic(name), image_of(), settings, rng)[0] for name in ("a", "b")]
    again = create_topic(CreateTopic("a"), image_of(), settings, Random(1))[0]
    assert ids[0] == again
    assert ids[0].topic_id != ids[1].topic_id  # type: ignore[attr-defined]


REFUSALS: dict[str, tuple[CreateTopic, dict[str, int], str, str]] = {
    "no name": (
        CreateTopic(""), {}, "INVALID_TOPIC",
        "'' is no topic name; use 1 to 249 of the characters A-Z a-z 0-9 . _ -, but not '.' or '..'",
    ),
    "exists": (CreateTopic(TOPIC), {}, "TOPIC_EXISTS", "topic orders exists already"),
    "unknown setting": (
        CreateTopic("t", config={"min.isr": "2"}), {}, "INVALID_CONFIG",
        "unknown topic setting 'min.isr'; known are: min.insync.replicas, max.message.bytes, ",
    ),
    "impossible value": (
        CreateTopic("t", config={"min.insync.replicas": "0"}), {}, "INVALID_CONFIG",
        "topic setting min.insync.replicas cannot be '0': ",
    ),
    "too many partitions": (
        CreateTopic("t", partitions=11), {"partitions_max": 10}, "INVALID_REQUEST",
        "partitions=11 is not allowed; use 1 to 10",
    ),
    "negative partitions": (
        CreateTopic("t", partitions=-1), {"partitions_max": 10}, "INVALID_REQUEST",
        "partitions=-1 is not allowed; use 1 to 10",
    ),
    "factor above the brokers": (
        CreateTopic("t", replication_factor=4), {}, "INVALID_REPLICATION_FACTOR",
        "replication_factor=4 is not possible: 3 brokers are running (1, 2, 3); use 1 to 3 or start more",
    ),
    "negative factor": (
        CreateTopic("t", replication_factor=-1), {}, "INVALID_REPLICATION_FACTOR",
        "replication_factor=-1 is not possible: 3 brokers are running (1, 2, 3); use 1 to 3 or start more",
    ),
    "min ISR above the factor": (
        CreateTopic("t", 1, 2, {"min.insync.replicas": "3"}), {}, "INVALID_CONFIG",
        "min.insync.replicas=3 can never be met with 2 replicas; use 1 to 2",
    ),
    "topics are full": (
        CreateTopic("t"), {"topics_max": 1}, "INVALID_REQUEST",
        "the cluster has 1 topics and 1 partitions; allowed are 1 and 100000",
    ),
    "partitions are full": (
        CreateTopic("t", partitions=2), {"partitions_max": 2}, "INVALID_REQUEST",
        "the cluster has 1 topics and 1 partitions; allowed are 10000 and 2",
    ),
    "assignment and partitions disagree": (
        CreateTopic("t", partitions=2, assignment=[[1]]), {}, "INVALID_REQUEST",
        "an assignment fixes partitions and replicas by itself; leave out partitions and replication_factor",
    ),
    "assignment and factor": (
        CreateTopic("t", replication_factor=1, assignment=[[1]]), {}, "INVALID_REQUEST",
        "an assignment fixes partitions and replicas by itself; leave out partitions and replication_factor",
    ),
    "assignment to nobody": (
        CreateTopic("t", assignment=[[1], []]), {}, "INVALID_REPLICATION_FACTOR",
        "assignment of partition 1 is []; every partition needs the same number of different brokers",
    ),
    "assignment twice to one": (
        CreateTopic("t", assignment=[[1, 1]]), {}, "INVALID_REPLICATION_FACTOR",
        "assignment of partition 0 is [1, 1]; every partition needs the same number of different brokers",
    ),
    "assignment uneven": (
        CreateTopic("t", assignment=[[1, 2], [3]]), {}, "INVALID_REPLICATION_FACTOR",
        "assignment of partition 1 is [3]; every partition needs the same number of different brokers",
    ),
    "assignment to strangers": (
        CreateTopic("t", assignment=[[1, 9]]), {}, "INVALID_REPLICATION_FACTOR",
        "assignment of partition 0 is [1, 9]; known brokers are 1, 2, 3, and one of them must be running",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "limits", "code", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(request_: CreateTopic, limits: dict[str, int], code: str, sentence: str) -> None:
    image = image_of(*topic_records(partition_state()))
    with pytest.raises(MinilogError) as caught:
        create(request_, image, **limits)
    assert caught.value.code == code
    assert caught.value.definite
    assert caught.value.detail.startswith(sentence)


def test_an_assignment_to_brokers_that_are_all_down_is_refused() -> None:
    with pytest.raises(MinilogError, match="one of them must be running"):
        create(CreateTopic("t", assignment=[[1]]), image_of(BrokerFenced(1, 2)))


def test_nothing_can_be_created_without_brokers() -> None:
    with pytest.raises(MinilogError, match=r"0 brokers are running \(none\)"):
        create(CreateTopic("t"), image_of(brokers=()))


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 249, "...", "-", "_"])
def test_good_names(name: str) -> None:
    check_topic_name(name)


@pytest.mark.parametrize(("length", "most"), [(249, 100_000), (248, 1_000_000), (244, 2**31 - 1), (1, 2**31 - 1)])
def test_a_name_and_the_highest_partition_make_a_directory_together(length: int, most: int) -> None:
    """``<topic>-<partition>`` is a file name, and file systems take 255 bytes."""
    topics._check_directories("n" * length, most)
    if most < 2**31 - 1:
        said = f"a topic name of {length} characters is too long for {most + 1} partitions"
        with pytest.raises(InvalidTopic, match=said):
            topics._check_directories("n" * length, most + 1)


def test_a_name_that_leaves_no_room_for_its_partitions_is_refused_before_anything_is_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topics, "FILE_NAME_BYTES_MAX", 12)
    create(CreateTopic("n" * 10, partitions=10))
    with pytest.raises(InvalidTopic, match="use at most 9 characters or fewer partitions"):
        create(CreateTopic("n" * 10, partitions=11))
    monkeypatch.setattr(topics, "FILE_NAME_BYTES_MAX", len(TOPIC) + 2)
    assert len(add(10)) == 8
    with pytest.raises(InvalidTopic, match="is too long for 11 partitions"):
        add(11)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 250, "a/b", "a b", "é", "a\n", "a\x00", "\\", "a:b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidTopic):
        check_topic_name(name)


@given(st.text(max_size=10))
@settings(deadline=None, max_examples=60)
def test_whatever_name_passes_is_one_plain_path_segment(name: str) -> None:
    try:
        check_topic_name(name)
    except InvalidTopic:
        return
    assert name.isascii()
    assert not set(name) & set("/\\\0\n ")
    assert name not in ("", ".", "..")


def test_deleting_names_the_topic_by_its_id() -> None:
    image = image_of(*topic_records(partition_state()))
    assert delete_topic(DeleteTopic(TOPIC), image) == [TopicDeleted(TOPIC, TOPIC_ID)]
    with pytest.raises(UnknownTopic, match="there is no topic 'absent'"):
        delete_topic(DeleteTopic("absent"), image)


@pytest.mark.parametrize("topic_id", ["another", TOPIC_ID[:-1], TOPIC_ID + " "])
def test_a_topic_that_is_not_the_one_that_was_meant_is_not_deleted(topic_id: str) -> None:
    """It was deleted and made again since, or is not known here yet."""
    image = image_of(*topic_records(partition_state()))
    with pytest.raises(UnknownTopic, match="there is no topic 'orders' with topic id") as refused:
        delete_topic(DeleteTopic(TOPIC, topic_id), image)
    assert refused.value.info == {"topic_id": TOPIC_ID}
    assert delete_topic(DeleteTopic(TOPIC, TOPIC_ID), image) == [TopicDeleted(TOPIC, TOPIC_ID)]


def test_the_creator_is_told_what_was_made() -> None:
    records = create(CreateTopic("t", 2, 3, {"flush.policy": "interval"}))
    info = created_info(records)
    assert (info.topic, info.topic_id, info.config) == (
        "t",
        records[0].topic_id,
        {"min.insync.replicas": "2", "flush.policy": "interval"},
    )
    assert [(p.partition, p.leader, p.isr) for p in info.partitions] == [
        (r.partition, r.leader, r.isr) for r in records[1:]
    ]


# --- more partitions ------------------------------------------------------------------------------


def add(partitions: int, topic: str = TOPIC, topic_id: str = "", **limits: int) -> list[Any]:
    image = image_of(
        *topic_records(partition_state(replicas=[1, 2]), partition_state(partition=1, replicas=[2, 3], leader=2))
    )
    settings = ControllerSettings(data_dir="x", **limits)  # type: ignore[arg-type]
    return list(add_partitions(AddPartitions(topic, partitions, topic_id), image, settings))


def test_added_partitions_go_on_where_the_topic_ended() -> None:
    added = add(4)
    assert [p.partition for p in added] == [2, 3]
    for p in added:
        assert isinstance(p, PartitionChanged)
        assert (p.topic, p.topic_id, p.leader, p.isr) == (TOPIC, TOPIC_ID, p.replicas[0], p.replicas)
        assert (len(p.replicas), p.leader_epoch, p.partition_epoch) == (2, 0, 0)


@pytest.mark.parametrize(
    ("partitions", "topic", "limits", "code", "sentence"),
    [
        (2, TOPIC, {}, "INVALID_REQUEST", "has 2 partitions and cannot have 2; use 3 to"),
        (1, TOPIC, {}, "INVALID_REQUEST", "can only be added"),
        (9, "nothing", {}, "UNKNOWN_TOPIC_OR_PARTITION", "no topic 'nothing'"),
        (9, "__groups", {}, "INVALID_TOPIC", "minilog's own"),
        (9, TOPIC, {"partitions_max": 8}, "INVALID_REQUEST", "use 3 to 8"),
    ],
)
def test_partitions_that_cannot_be_added(
    partitions: int, topic: str, limits: dict[str, int], code: str, sentence: str
) -> None:
    with pytest.raises(MinilogError, match=re.escape(sentence)) as refused:
        add(partitions, topic, "", **limits)
    assert refused.value.code == code


def test_a_topic_that_is_not_the_one_that_was_meant_gets_no_partitions() -> None:
    with pytest.raises(UnknownTopic, match="there is no topic 'orders' with topic id another") as refused:
        add(4, topic_id="another")
    assert refused.value.info == {"topic_id": TOPIC_ID}
    assert len(add(4, topic_id=TOPIC_ID)) == 2


def test_a_full_cluster_may_still_give_its_topics_partitions() -> None:
    assert len(add(3, topics_max=1)) == 1


def test_the_topic_of_groups_is_made_in_one_way_only() -> None:
    head, *partitions = create(CreateTopic("__groups", 99, 1, {"segment.bytes": "5000"}), groups_partitions=5)
    assert (head.topic, len(partitions)) == ("__groups", 5)
    assert all(sorted(p.replicas) == [1, 2, 3] for p in partitions)
    assert (head.config["cleanup.policy"], head.config["min.insync.replicas"]) == ("compact", "2")
    head, *partitions = create(CreateTopic("__groups"), image_of(brokers=(4,)))
    assert (head.config["min.insync.replicas"], partitions[0].replicas) == ("1", [4])


def test_the_topic_of_groups_has_copies_on_brokers_that_are_away_for_the_moment() -> None:
    image = image_of(BrokerFenced(2, 4), BrokerShuttingDown(3, 6))
    head, *partitions = create(CreateTopic("__groups"), image, groups_partitions=2, default_replication_factor=1)
    assert head.config["min.insync.replicas"] == "2"
    assert [(p.replicas, p.leader, p.isr) for p in partitions] == [([1, 2, 3], 1, [1]), ([1, 3, 2], 1, [1])]


@pytest.mark.parametrize(
    ("known", "away", "minimum", "factor"),
    [
        ((1, 2), [], 3, None),
        ((1,), [], 2, None),
        ((), [], 1, None),
        ((1, 2, 3), [], 3, 3),
        ((1, 2, 3), [2, 3], 3, 3),
        ((1,), [], 1, 1),
        ((1, 2, 3, 4), [], 4, 3),
    ],
)
def test_the_topic_of_groups_waits_for_as_many_brokers_as_are_coming(
    known: tuple[int, ...], away: list[int], minimum: int, factor: int | None
) -> None:
    image = image_of(*(BrokerFenced(broker_id, EPOCHS[broker_id]) for broker_id in away), brokers=known)
    if factor is None:
        with pytest.raises(CoordinatorNotAvailable) as refused:
            create(CreateTopic("__groups"), image, groups_brokers_min=minimum)
        assert refused.value.detail == (
            f"__groups is made when {minimum} brokers have registered (groups_brokers_min), so far {len(known)} have; "
            "start the others and retry"
        )
        return
    _, partition, *_ = create(CreateTopic("__groups"), image, groups_brokers_min=minimum)
    assert len(partition.replicas) == factor


def test_other_topics_do_not_wait_for_brokers() -> None:
    assert create(CreateTopic("t"), image_of(brokers=(1,)), groups_brokers_min=3)


@pytest.mark.parametrize("name", ["__groups", "__x", "__"])
def test_internal_names_are_not_for_users(name: str) -> None:
    with pytest.raises(InvalidTopic, match="minilog's own"):
        delete_topic(DeleteTopic(name), image_of())
    if name != "__groups":
        with pytest.raises(InvalidTopic, match="minilog's own"):
            create(CreateTopic(name))
