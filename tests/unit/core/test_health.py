"""Health is evidence with an age (R46): each state has a name, a sentence and a next step, and what
cannot be known is called so."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from minilog.core.health import RECENT_MS, Knowledge, health_of
from minilog.core.image import ClusterImage
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    BrokerUnfenced,
    ControllerStarted,
    DiskState,
    MetadataRecord,
    UncleanElection,
)
from minilog.wire.json.json_answers import Finding, Health
from minilog.wire.messages import BrokerHealth, Condition, DescribeClusterReply
from tests.unit.core.builders import TOPIC, TOPIC_ID, image_of, partition_state, topic_records

NOW_MS = 1_800_000_000_000
BROKERS = [1, 2, 3]


def told(
    image: ClusterImage, conditions: tuple[Condition, ...] = (), skew_ms: int | None = None, **ages: int
) -> DescribeClusterReply:
    """What the controller answers: who was heard how long ago (``b2=50``), -1 for never."""
    brokers = [
        BrokerHealth(b.broker_id, b.url, b.state, b.epoch, 0, ages.get(f"b{b.broker_id}", -1 if b.fenced else 50))
        for b in image.brokers.values()
    ]
    brokers[0].conditions, brokers[0].clock_skew_ms = list(conditions), skew_ms
    return DescribeClusterReply(image.cluster_id, image.controller_epoch, image.metadata_offset, brokers, [])


def health(image: ClusterImage, *, heard: bool = True, heard_ms_ago: int | None = 100, **more: Any) -> Health:
    controller = told(image, **more) if heard else None
    return health_of(image, Knowledge(1, controller, "http://c:9093", heard_ms_ago, "refused", NOW_MS, 60_000))


def image_with(*records: MetadataRecord, **state: Any) -> ClusterImage:
    return image_of(*topic_records(replace(partition_state(), **state)), *records, brokers=BROKERS)


def kinds(found: Health) -> list[str]:
    return [finding.kind for finding in found.findings]


def one(found: Health, kind: str) -> Finding:
    [finding] = [finding for finding in found.findings if finding.kind == kind]
    assert finding.next_step
    return finding


def test_nothing_is_found_where_all_is_well_and_the_controller_says_so_now() -> None:
    found = health(image_with())
    assert (found.healthy, found.findings, found.controller_heard_ms_ago) == (True, [], 100)


@pytest.mark.parametrize(("heard_ms_ago", "said"), [(22_000, "was last heard 22.0 s ago"), (None, "was never heard")])
def test_without_the_controller_nothing_is_healthy_and_others_are_unknown(heard_ms_ago: int | None, said: str) -> None:
    found = health(image_with(), heard=False, heard_ms_ago=heard_ms_ago)
    assert not found.healthy
    assert said in one(found, "controller_unheard").sentence
    assert [f.broker_id for f in found.findings if f.kind == "broker_unknown"] == [2, 3]


def test_what_the_controller_has_decided_and_this_broker_has_not_heard_of_is_not_called_healthy() -> None:
    image = image_with()
    for ahead, is_healthy in ((0, True), (-1, True), (1, False)):
        controller = replace(told(image), metadata_offset=image.metadata_offset + ahead)
        found = health_of(image, Knowledge(1, controller, "http://c:9093", 4200, "", NOW_MS, 60_000))
        assert (found.healthy, kinds(found)) == (is_healthy, [] if is_healthy else ["metadata_behind"])
    said = one(found, "metadata_behind").sentence
    assert (
        f"up to record {image.metadata_offset}, and the controller has decided record {image.metadata_offset + 1}"
        in said
    )
    assert "last answered 4.2 s ago" in said


def test_a_broker_that_its_controller_has_not_heard_is_unknown() -> None:
    """A controller that has just started goes by what its journal says."""
    found = health(image_with(), b2=-1)
    assert not found.healthy
    assert one(found, "broker_unknown").broker_id == 2


def test_a_partition_waits_for_whom_it_waits() -> None:
    down = BrokerFenced(2, image_with().brokers[2].epoch)
    image = image_with(down, leader=NO_LEADER, isr=[], elr=[2])
    found = health(image, b1=5, b3=5)
    assert not found.healthy
    assert "waits for broker 2" in one(found, "offline").sentence
    assert one(found, "broker_not_running").broker_id == 2


def test_a_partition_without_a_complete_copy_names_the_command() -> None:
    found = health(image_with(leader=NO_LEADER, isr=[], elr=[], last_known_elr=[]))
    assert not found.healthy
    assert f"minilog partition elect {TOPIC} 0" in one(found, "lost").next_step


def test_refused_writes_are_a_state_of_their_own() -> None:
    image = image_of(*topic_records(replace(partition_state(), isr=[1]), min_isr=2), brokers=BROKERS)
    found = health(image)
    assert not found.healthy
    assert "acks=all is refused" in one(found, "under_min_isr").sentence


def test_a_broker_that_is_fenced_and_alive_is_not_one_that_does_not_run() -> None:
    image = image_with(BrokerFenced(3, image_with().brokers[3].epoch), isr=[1, 2])
    assert one(health(image, b3=40), "broker_fenced").broker_id == 3
    assert one(health(image), "broker_not_running").broker_id == 3
    assert health(image).healthy, "missing replicas alone only warn"


def test_a_lost_disk_is_shown_until_its_replicas_have_caught_up() -> None:
    epoch = image_with().metadata_offset + 1
    back = BrokerRegistered(3, epoch, "new", "http://b3", disk=DiskState.OTHER)
    assert one(health(image_with(back, BrokerUnfenced(3, epoch), isr=[1, 2])), "disk_lost").broker_id == 3
    assert kinds(health(image_with(back, BrokerUnfenced(3, epoch)))) == []


def test_what_a_broker_says_of_itself_is_shown() -> None:
    for is_warning in (True, False):
        full = Condition("disk_full", "its disk is full", "make room", is_warning)
        found = health(image_with(), conditions=(full,), b1=5)
        assert found.healthy is is_warning
        assert one(found, "disk_full").sentence == "broker 1: its disk is full"


@pytest.mark.parametrize(("skew_ms", "said"), [(60_001, "60.0 s ahead of"), (-90_000, "90.0 s behind"), (60_000, "")])
def test_a_clock_that_is_off_is_shown_from_the_bound_on(skew_ms: int, said: str) -> None:
    found = health(image_with(), skew_ms=skew_ms, b1=5)
    assert found.healthy, "nobody is kept from reading or writing"
    assert said in (one(found, "clock_skew").sentence if said else "")
    assert kinds(found) == (["clock_skew"] if said else [])


@pytest.mark.parametrize(("age_ms", "shown"), [(0, True), (RECENT_MS, True), (RECENT_MS + 1, False)])
def test_an_unclean_election_is_told_for_a_day(age_ms: int, shown: bool) -> None:
    election = UncleanElection(TOPIC, TOPIC_ID, 0, 1, 4, [], 7, "operator", NOW_MS - age_ms)
    found = health(image_with(election))
    assert found.healthy
    assert ("unclean_election" in kinds(found)) is shown
    if shown:
        assert "at least 7 committed records were lost" in one(found, "unclean_election").sentence


def test_processes_of_several_versions_are_named_and_those_that_are_away_are_not() -> None:
    def registered(broker_id: int, epoch: int, version: str) -> BrokerRegistered:
        return BrokerRegistered(broker_id, epoch, f"process-{epoch}", f"http://b{broker_id}:8082", version=version)

    image = image_with()
    first = image.metadata_offset + 1
    started = ControllerStarted("cluster", image.controller_epoch + 1, "term", first, version="1.0")
    of_brokers: list[MetadataRecord] = [BrokerFenced(n, image.brokers[n].epoch) for n in BROKERS]
    for broker_id, version in ((1, "1.0"), (2, "1.1"), (3, "")):
        epoch = first + 1 + len(of_brokers)
        of_brokers += [registered(broker_id, epoch, version), BrokerUnfenced(broker_id, epoch)]
    state = partition_state()
    gone = replace(state, isr=[], elr=[], leader=NO_LEADER, partition_epoch=state.partition_epoch + 1)
    for index, record in enumerate([started, gone, *of_brokers], first):
        image.apply(index, record)
    found = one(health(image), "mixed_versions")
    assert found.is_warning
    assert found.sentence == (
        "not all processes run the same version: broker 1 runs 1.0; broker 2 runs 1.1; broker 3 runs an older one; "
        "the controller runs 1.0"
    )
    for broker_id in (2, 3):
        image.apply(image.metadata_offset + 1, BrokerFenced(broker_id, image.brokers[broker_id].epoch))
    assert "mixed_versions" not in kinds(health(image))
    copy = ClusterImage()
    copy.load(image.metadata_offset, image.snapshot())
    assert (copy.brokers, copy.controller_version) == (image.brokers, "1.0")


def test_a_replica_that_is_behind_although_its_broker_runs_is_a_finding_of_its_broker() -> None:
    found = health(image_with(isr=[1, 2]))
    finding = one(found, "replicas_behind")
    assert (found.healthy, finding.broker_id, f"1 partition ({TOPIC}-0)" in finding.sentence) == (True, 3, True)
    away = health(image_with(BrokerFenced(3, image_with().brokers[3].epoch), isr=[1, 2]))
    assert "replicas_behind" not in kinds(away)
