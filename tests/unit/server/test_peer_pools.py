"""What brokers pass on for their clients: which calls may wait for which, what bounds them, what is
kept when all is quiet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from minilog.server.outbound import peer_lane as lane_module
from minilog.server.outbound import peers as peers_module
from minilog.server.outbound.peers import Peers, PoolLimits
from minilog.wire.group_messages import DescribeGroup, ForwardedGroupRequest
from minilog.wire.messages import (
    CreateTopic,
    Heartbeat,
    Message,
    Offsets,
    Ok,
    Problem,
    Produce,
    ProducePartition,
    ReplicaFetch,
    encode,
)
from tests.unit.server.peer_server import Exchange, PeerServer, until

OK = Ok(7)
GROUP = ForwardedGroupRequest(memoryview(encode(DescribeGroup("g"))))


def produce(size_bytes: int = 10, number: int = 0) -> Produce:
    return Produce(-1, 30_000, [ProducePartition("t", number, memoryview(bytes(size_bytes)))])


def with_peer(
    handler: Callable[[Exchange], Awaitable[None]], check: Callable[[Peers, PeerServer], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        async with PeerServer(handler) as peer, asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 2000)
            async with asyncio.timeout(8):
                await check(peers, peer)
            peers.close()

    asyncio.run(main())


def calls(peers: Peers, peer: PeerServer, *requests: Message) -> list[asyncio.Task[Message]]:
    return [asyncio.create_task(peers.call(peer.url, request, 8000)) for request in requests]


def seconds_waited(peers: Peers, purpose: str) -> tuple[float, float]:
    """(calls, seconds they waited together) of the metric."""
    (family,) = peers.queue_latency.collect()
    by_name = {sample.name: sample.value for sample in family.samples if sample.labels["purpose"] == purpose}
    return by_name["minilog_peer_queue_seconds_count"], by_name["minilog_peer_queue_seconds_sum"]


@pytest.mark.parametrize("stuck", [produce(), GROUP, Offsets([]), CreateTopic("t", 1, 1, {})])
@pytest.mark.parametrize("other", [produce(), GROUP, Offsets([]), CreateTopic("t", 1, 1, {})])
def test_no_purpose_waits_for_another(monkeypatch: pytest.MonkeyPatch, stuck: Message, other: Message) -> None:
    """More of one kind than its pool takes, none of them answered. The other kind is, at once."""
    if type(stuck) is type(other):
        return
    limits = {kind: PoolLimits(pool.purpose, 4, pool.bytes_max) for kind, pool in peers_module.POOLS.items()}
    monkeypatch.setattr(peers_module, "POOLS", limits)
    monkeypatch.setattr(peers_module, "QUESTIONS", PoolLimits("questions", 4, 1000))

    async def only_the_other(exchange: Exchange) -> None:
        if type(exchange.message) is type(other):
            exchange.reply(OK)

    async def check(peers: Peers, peer: PeerServer) -> None:
        waiting = calls(peers, peer, *[stuck] * 20)
        await until(lambda: len(peer.requests) == 4)
        assert await peers.call(peer.url, other, 1000) == OK
        for request in (Heartbeat(1, 1, "i", 1, 0, 0), ReplicaFetch(1, 1, 2, 1, 1, 0, 1000, [])):
            peers.send(2, peer.url, request, lambda response: None)
            await until(lambda request=request: request in peer.requests)  # type: ignore[misc]
        for call in waiting:
            call.cancel()

    with_peer(only_the_other, check)


def test_hundreds_of_slow_produces_are_under_way_at_once() -> None:
    held: list[Exchange] = []

    async def hold(exchange: Exchange) -> None:
        held.append(exchange)

    async def check(peers: Peers, peer: PeerServer) -> None:
        waiting = calls(peers, peer, *[produce()] * 300)
        await until(lambda: len(held) == 300)
        for exchange in held:
            exchange.reply(OK)
        assert await asyncio.gather(*waiting) == [OK] * 300

    with_peer(hold, check)


def test_produce_is_bounded_by_bytes_and_the_wait_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "POOLS", {Produce: PoolLimits("forwarded produce", 100, 25_000)})
    held: list[Exchange] = []

    async def hold(exchange: Exchange) -> None:
        held.append(exchange)

    async def check(peers: Peers, peer: PeerServer) -> None:
        waiting = calls(peers, peer, *[produce(10_000, number) for number in range(4)], produce(90_000, 4))
        await until(lambda: len(held) == 2)
        await asyncio.sleep(0.05)
        assert len(held) == 2, "a third would hold more bytes than are allowed"
        for number, begun in enumerate((3, 4, 4, 5)):
            held[number].reply(OK)
            await until(lambda begun=begun: len(held) == begun)  # type: ignore[misc]
        held[4].reply(OK)
        assert await asyncio.gather(*waiting) == [OK] * 5, "one larger than the bound goes alone"
        order = [r.partitions[0].partition for r in peer.requests if isinstance(r, Produce)]
        assert sorted(order[:2]) == [0, 1]
        assert order[2:] == [2, 3, 4], "who has waited longest is next"
        count, seconds = seconds_waited(peers, "forwarded produce")
        assert count == 5
        assert seconds >= 0.1, "two waited for at least 50 ms"

    with_peer(hold, check)


def test_what_waited_in_vain_is_definite_and_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "POOLS", {Produce: PoolLimits("forwarded produce", 1, 25_000)})

    async def silent(exchange: Exchange) -> None: ...

    async def check(peers: Peers, peer: PeerServer) -> None:
        sent = asyncio.create_task(peers.call(peer.url, produce(), 400))
        await until(lambda: peer.requests)
        late = await peers.call(peer.url, produce(), 100)
        assert isinstance(late, Problem)
        assert (late.code, late.definite) == ("REQUEST_TIMED_OUT", True)
        gone = asyncio.create_task(peers.call(peer.url, produce(), 5000))
        await asyncio.sleep(0)
        gone.cancel()
        answer = await sent
        assert isinstance(answer, Problem)
        assert not answer.definite
        assert len(peer.requests) == 1

    with_peer(silent, check)


def test_a_call_given_up_costs_its_connection_and_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "POOLS", {Produce: PoolLimits("forwarded produce", 1, 25_000)})

    async def silent_first(exchange: Exchange) -> None:
        if len(exchange.peer.requests) > 1:
            exchange.reply(OK)

    async def check(peers: Peers, peer: PeerServer) -> None:
        (first,) = calls(peers, peer, produce())
        await until(lambda: peer.requests)
        (second,) = calls(peers, peer, produce())
        await asyncio.sleep(0)
        first.cancel()
        assert await second == OK
        assert peer.connections == 2

    with_peer(silent_first, check)


def test_what_nobody_uses_is_closed_by_this_side_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "IDLE_S", 0.2)

    async def ok(exchange: Exchange) -> None:
        exchange.reply(OK)

    async def check(peers: Peers, peer: PeerServer) -> None:
        await asyncio.gather(*calls(peers, peer, *[produce()] * 5, GROUP))
        answered = asyncio.get_running_loop().create_future()
        peers.send(2, peer.url, ReplicaFetch(1, 1, 2, 1, 1, 0, 1000, []), answered.set_result)
        await answered
        assert peer.open_connections == 7
        for _ in range(4):  # one connection that is used stays
            await asyncio.sleep(0.1)
            assert await peers.call(peer.url, GROUP, 1000) == OK
        await until(lambda: peer.open_connections == 1)
        assert peer.connections == 7
        await until(lambda: not peer.open_connections)
        assert not peers.remembered, "nothing is kept of an address that nobody asks any more"
        assert await peers.call(peer.url, GROUP, 1000) == OK

    with_peer(ok, check)


def test_lanes_close_well_before_the_listener_would() -> None:
    from minilog.server.inbound.accepted_connection import IDLE_S

    assert lane_module.IDLE_S * 2 <= IDLE_S


@pytest.mark.parametrize("how", ["its time is up", "its client leaves"])
def test_who_waits_behind_a_large_one_goes_when_that_is_given_up(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """There is room for the small one, but not before it is its turn."""
    monkeypatch.setattr(peers_module, "POOLS", {Produce: PoolLimits("forwarded produce", 100, 25_000)})

    async def only_the_small(exchange: Exchange) -> None:
        if exchange.message == produce(10, 2):
            exchange.reply(OK)

    async def check(peers: Peers, peer: PeerServer) -> None:
        (stuck,) = calls(peers, peer, produce(20_000))
        await until(lambda: peer.requests)
        patience_ms = 100 if how == "its time is up" else 8000
        large = asyncio.create_task(peers.call(peer.url, produce(20_000, 1), patience_ms))
        await asyncio.sleep(0)
        (small,) = calls(peers, peer, produce(10, 2))
        await asyncio.sleep(0)
        if how == "its client leaves":
            large.cancel()
        assert await asyncio.wait_for(small, 3) == OK
        assert not stuck.done()
        stuck.cancel()

    with_peer(only_the_small, check)
