"""Stories of values that cannot be: whoever sends them is refused, and the journal holds none of
them."""

from __future__ import annotations

import pytest

from minilog.core.controller.journal.foreign_values import CONDITIONS_MAX
from minilog.core.effects import CONTROLLER_ID
from minilog.errors import InvalidConfig, InvalidRequest
from minilog.wire.journal.metadata_records import ReplicaName
from minilog.wire.messages import Condition, CreateTopic, Heartbeat, LoneEnd, Message, Register
from tests.sim.cluster import SimCluster
from tests.sim.nodes.network import Response


def tell(c: SimCluster, message: Message) -> Response:
    """What the controller answers; it has written nothing down meanwhile."""
    answers: list[Response] = []
    before = len(c.invariants.journal)
    c.admin.ask(CONTROLLER_ID, message, answers.append, 2000)
    c.until(lambda: bool(answers), "an answer")
    assert len(c.invariants.journal) == before, c.invariants.journal[before:]
    return answers[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://broker-4..internal:8082",
        "http://" + "a" * 2000,
        "http://" + "a" * 64 + ".internal:8082",
        "http://broker-4:99999",
        "http://broker 4:8082",
        "ftp://x",
        "",
    ],
    ids=lambda url: url[:24],
)
def test_an_address_that_nobody_can_connect_to_is_not_journalled(url: str) -> None:
    """R44: a typo in one broker's advertised_url. The others would all try to connect to it."""
    c = SimCluster(seed=1).start()
    refused = tell(c, Register(55, "typo", "", url, "", True, 0))
    assert isinstance(refused, InvalidRequest), refused
    assert "of broker 55 is not allowed" in refused.detail
    assert len(refused.detail) < 1000
    assert 55 not in c.invariants.truth.brokers


def test_a_replica_that_cannot_be_is_neither_lost_nor_unfit() -> None:
    """R44: names that no topic has, and ids and numbers that none of them can have."""
    c = SimCluster(seed=1).start()
    c.create_topic("t", assignment=[[1, 2, 3]])
    broker = c.invariants.truth.brokers[1]
    process = broker.broker_id, broker.epoch, broker.incarnation
    for name in (("../t", "id", 0), ("t" * 1000, "id", 0), ("t", "i" * 1000, 0), ("t", "id", -1)):
        lost = Register(1, broker.incarnation, "", broker.url, "", True, 0, lost=[ReplicaName(*name)])
        unfit = Heartbeat(*process, 10**6, 0, 0, unfit=[ReplicaName(*name)])
        alone = Heartbeat(*process, 10**6, 0, 0, lone_ends=[LoneEnd(name[0], name[1][:100], name[2], 5)])
        for message in (lost, unfit) if len(name[1]) > 100 else (lost, unfit, alone):
            refused = tell(c, message)
            assert isinstance(refused, InvalidRequest), refused
            assert len(refused.detail) < 1000
    many = Heartbeat(*process, 10**6, 0, 0, conditions=[Condition("k", "s", "n")] * (CONDITIONS_MAX + 1))
    assert isinstance(tell(c, many), InvalidRequest)


def test_a_setting_is_as_long_as_its_value_can_be() -> None:
    """R44: a megabyte of leading zeros is a number."""
    c = SimCluster(seed=1).start()
    for key, value in (("retention.ms", "0" * 80 + "7"), ("min.cleanable.dirty.ratio", "0" * 10**4 + "0.5")):
        refused = tell(c, CreateTopic("t", 1, 1, {key: value}))
        assert isinstance(refused, InvalidConfig)
        assert len(refused.detail) < 1000


def test_one_request_makes_so_many_partitions_and_no_more() -> None:
    """R44: every broker opens a log for each of them."""
    c = SimCluster(seed=1).start()
    most = c.controller.settings.new_partitions_max
    for request in (
        CreateTopic("t", most + 1, 1),
        CreateTopic("t", assignment=[[1]] * (most + 1)),
    ):
        assert isinstance(tell(c, request), InvalidRequest)
