"""A secured cluster of real processes: strangers change nothing, each may do what a rule allows, and
a failover asks nobody for another token."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from minilog.wire.figure_messages import DescribeBroker
from minilog.wire.messages import (
    CreateTopic,
    Metadata,
    Produce,
    ProducePartition,
    ProduceReply,
    Register,
    decode,
    encode,
)
from minilog.wire.records import encode_values
from minilog_client import Forbidden
from tests.process.security.secured import Secured, secured, until

MSGPACK = "application/msgpack"
PEERS_WORDS = [
    Register(1, "stranger", "", "https://127.0.0.1:1", "", True, 0),
    CreateTopic("stolen"),
    Metadata(),
]


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("secured"), f"event_loop={request.param}") as made:
        done = made.command(
            "ann", "topic", "create", "orders.eu", "-p", "2", "-r", "2", "--config", "min.insync.replicas=1"
        )
        assert done.returncode == 0, done.stderr
        yield made
        for name in made.members:
            assert "this is a bug" not in made.log(name)
            assert "Traceback" not in made.log(name)
            assert "has no effect" not in made.log(name), "asyncio has nothing to warn of"


def metadata_offset(cluster: Secured) -> int:
    status, body = cluster.ask(cluster.url("controller") + "/v1/cluster", cluster.token_of("ann"))
    assert status == 200, body
    return int(json.loads(body)["metadata_offset"])


@pytest.mark.parametrize("token", ["", "wrong"], ids=["nobody", "a wrong token"])
def test_a_stranger_is_answered_401_everywhere_and_nothing_is_written(cluster: Secured, token: str) -> None:
    before = metadata_offset(cluster)
    for name in cluster.members:
        for message in PEERS_WORDS:
            assert cluster.ask(cluster.url(name) + "/internal/rpc", token, encode(message), MSGPACK)[0] == 401
        assert cluster.ask(cluster.url(name) + "/v1/cluster", token)[0] == 401
        assert cluster.ask(cluster.url(name) + "/healthz", token)[0] == 200
    records = json.dumps({"records": [{"value": "x"}]}).encode()
    assert cluster.ask(cluster.url() + "/v1/topics/orders.eu/records", token, records)[0] == 401
    assert metadata_offset(cluster) == before


def test_a_principal_with_few_rights_does_what_a_rule_allows(cluster: Secured) -> None:
    with cluster.client("shop") as shop, shop.producer() as producer:
        receipts = [producer.send("orders.eu", b"tea", partition=n % 2) for n in range(20)]
        assert all(receipt.result().offset is not None for receipt in receipts)
        with pytest.raises(Forbidden, match="may not alter"):
            shop.create_topic("other")
        with shop.consumer("orders.eu") as consumer, pytest.raises(Forbidden, match="may not read topic 'orders"):
            consumer.batch(max_wait_ms=2000)
    for message in (Register(1, "shop", "", "https://127.0.0.1:1", "", True, 0), DescribeBroker()):
        assert (
            cluster.ask(
                cluster.url("controller") + "/internal/rpc", cluster.token_of("shop"), encode(message), MSGPACK
            )[0]
            == 403
        )


def test_a_broker_speaks_for_itself_only(cluster: Secured) -> None:
    before = metadata_offset(cluster)
    told = encode(Register(2, "impostor", "", "https://127.0.0.1:1", "", True, 0))
    assert (
        cluster.ask(cluster.url("controller") + "/internal/rpc", cluster.token_of("broker-1"), told, MSGPACK)[0] == 403
    )
    assert metadata_offset(cluster) == before


def test_what_brokers_pass_on_is_done_with_the_rights_of_who_has_asked(cluster: Secured) -> None:
    """Each broker is asked about each partition, so half of it is passed on."""
    token = cluster.token_of("shop")
    for name in ("broker-1", "broker-2"):
        for partition in (0, 1):
            path = f"{cluster.url(name)}/v1/topics/orders.eu/records"
            body = json.dumps({"records": [{"value": "tea", "partition": partition}]}).encode()
            status, told = cluster.ask(path, token, body)
            assert status == 200, told
            receipt = json.loads(told)["receipts"][0]
            check = json.dumps({"receipts": [receipt]}).encode()
            for other in ("broker-1", "broker-2"):
                status, found = cluster.ask(cluster.url(other) + "/v1/receipts/check", token, check)
                assert (status, json.loads(found)["receipts"][0]["status"]) == (200, "committed"), found
        group = cluster.url(name) + "/v1/groups/billing/offsets"
        body = json.dumps({"offsets": [{"topic": "orders.eu", "partition": 0, "offset": 1}]}).encode()
        assert cluster.ask(group, token, body, method="PUT")[0] == 200
        assert cluster.ask(group, token)[0] == 200
        assert cluster.ask(cluster.url(name) + "/v1/groups/other/offsets", token)[0] == 403


@pytest.mark.parametrize("who", ["broker-1", "controller"])
def test_a_token_of_a_process_opens_no_topic_and_no_group(cluster: Secured, who: str) -> None:
    token = cluster.token_of(who)
    for name in ("broker-1", "broker-2"):
        for method, path in (
            ("GET", "/v1/topics/orders.eu/partitions/0/records?offset=0"),
            ("POST", "/v1/topics/orders.eu/records"),
            ("DELETE", "/v1/topics/orders.eu"),
            ("GET", "/v1/groups/billing/offsets"),
            ("DELETE", "/v1/groups/billing"),
            ("GET", "/metrics"),
        ):
            body = b'{"records": [{"value": "x"}]}' if method == "POST" else None
            assert cluster.ask(cluster.url(name) + path, token, body, method=method)[0] == 403, path
    message = encode(Produce(-1, 1000, [ProducePartition("orders.eu", 0, memoryview(encode_values([b"x"], 1)))]))
    status, answer = cluster.ask(cluster.url() + "/internal/rpc", token, message, MSGPACK)
    if status == 200:
        reply = decode(answer)
        assert isinstance(reply, ProduceReply)
        assert [one.problem and one.problem.code for one in reply.partitions] == ["FORBIDDEN"]
    else:
        assert status == 403


def test_the_command_works_over_tls_and_says_who_may_what(cluster: Secured) -> None:
    for partition in ("0", "1"):
        done = cluster.command("ann", "topic", "consume", "orders.eu", "-p", partition, "-e")
        assert done.returncode == 0, done.stderr
    assert cluster.command("ann", "cluster", "health").stdout.strip() == "healthy"
    refused = cluster.command("shop", "topic", "create", "other")
    assert refused.returncode == 1
    assert "shop may not alter" in refused.stderr


def test_http_on_a_port_that_speaks_tls_is_no_way_in(cluster: Secured) -> None:
    with socket.create_connection(("127.0.0.1", cluster.port()), timeout=10) as plain:
        plain.sendall(b"GET /v1/topics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert not plain.recv(4096).startswith(b"HTTP/1.1 2")


def test_a_token_that_is_withdrawn_is_refused_within_a_second_or_two(cluster: Secured) -> None:
    token = cluster.token("guest", "--allow", "describe").strip()
    until(lambda: cluster.ask(cluster.url() + "/v1/topics", token)[0] == 200, "the new token to be known")
    file = cluster.folder / "security.toml"
    whole = file.read_text()
    file.write_text(whole[: whole.index('[principals."guest"]')])
    until(lambda: cluster.ask(cluster.url() + "/v1/topics", token)[0] == 401, "the token to be refused")
    assert cluster.ask(cluster.url() + "/v1/topics", cluster.token_of("ann"))[0] == 200
    file.write_text("this is no security file")
    until(lambda: "security.toml" in cluster.log("broker-1").split("guest")[-1], "the broken file to be told of")
    assert cluster.ask(cluster.url() + "/v1/topics", cluster.token_of("ann"))[0] == 200, "the last good one is kept"
    file.write_text(whole)


def test_a_leader_that_dies_is_followed_by_another_with_the_same_token(cluster: Secured) -> None:
    with cluster.client("shop") as shop, shop.producer() as producer:
        assert producer.send("orders.eu", b"before", partition=0).result().offset is not None
        status, body = cluster.ask(cluster.url() + "/v1/topics/orders.eu", cluster.token_of("ann"))
        assert status == 200
        leader = f"broker-{json.loads(body)['partitions'][0]['leader']}"
        cluster.kill(leader)
        assert producer.send("orders.eu", b"after", partition=0).result().offset is not None
    cluster.start(leader)
    until(lambda: cluster.command("ann", "cluster", "health").stdout.strip() == "healthy", "all replicas in sync again")
