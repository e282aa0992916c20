"""A refusal by the addresses a name had before says nothing of a host that has moved. While DNS is
silent it is believed of a peer that was reached there, so that a dead broker is noticed at once all
the same."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

from minilog.errors import BrokerUnavailable
from minilog.server.outbound.peer_lane import Address
from minilog.server.outbound.peers import Peers
from minilog.wire.messages import Probe, ProbeReply
from tests.unit.server.peer_server import PeerServer, until
from tests.unit.server.test_dial import answer_probe, resolver, run, silent_resolver, unused_port  # noqa: F401


async def probe(peers: Peers, url: str) -> Any:
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    peers.send(2, url, Probe(2, "x"), answered.set_result)
    return await answered


def why(outcome: object) -> object:
    assert isinstance(outcome, BrokerUnavailable), outcome
    return outcome.info["reason"]


def test_a_host_that_has_moved_is_found_where_it_is_when_dns_is_slow(resolver: dict[str, Any]) -> None:  # noqa: F811
    def slowly(host: str) -> list[str]:
        time.sleep(0.3)
        return ["127.0.0.1"]

    async def main() -> None:
        async with PeerServer(answer_probe) as peer, asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 1000)
            url = f"http://moved.test:{Address.of(peer.url).port}"
            resolver["moved.test"] = ["127.0.0.7"]  # where it was. That machine is up, and nobody listens there
            assert why(await probe(peers, url)) == "refused"
            resolver["moved.test"] = slowly
            assert await probe(peers, url) == ProbeReply(2, "x")
            peers.close()

    run(main)


def test_a_refusal_where_the_peer_never_was_proves_nothing_while_dns_is_silent(resolver: dict[str, Any]) -> None:  # noqa: F811
    gate = threading.Event()

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 1000)
            url = f"http://moved.test:{unused_port()}"
            resolver["moved.test"] = ["127.0.0.7"]
            assert why(await probe(peers, url)) == "refused"
            resolver["moved.test"] = silent_resolver(gate)
            assert why(await probe(peers, url)) == "unreachable"
            gate.set()
            peers.close()

    run(main)


def test_a_dead_peer_is_known_for_dead_while_dns_is_silent_or_fails(resolver: dict[str, Any]) -> None:  # noqa: F811
    gate = threading.Event()

    def fail(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 1000)
            resolver["dies.test"] = ["127.0.0.1"]
            async with PeerServer(answer_probe) as peer:
                url = f"http://dies.test:{Address.of(peer.url).port}"
                assert await probe(peers, url) == ProbeReply(2, "x")
            resolver["dies.test"] = silent_resolver(gate)
            assert why(await probe(peers, url)) == "refused"
            gate.set()
            resolver["dies.test"] = fail
            await asyncio.sleep(0.1)
            assert why(await probe(peers, url)) == "refused"
            peers.close()

    run(main)


def test_who_is_expected_is_met_and_who_comes_back_may_have_moved(resolver: dict[str, Any]) -> None:  # noqa: F811
    gate = threading.Event()

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 1000)
            resolver["met.test"] = ["127.0.0.1"]
            async with PeerServer(answer_probe) as peer:
                url = f"http://met.test:{Address.of(peer.url).port}"
                peers.expect([url])
                await until(lambda: peers.has_met(url))
            resolver["met.test"] = silent_resolver(gate)
            assert why(await probe(peers, url)) == "refused"
            peers.expect([url])  # it has registered again, so it is somewhere
            assert why(await probe(peers, url)) == "unreachable"
            gate.set()
            peers.close()

    run(main)
