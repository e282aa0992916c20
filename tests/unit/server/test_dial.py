"""Connecting to hosts of several addresses, of silent names and of strange ones: each failure known
for what it is."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.config import url_fault
from minilog.errors import BrokerUnavailable, MinilogError, TimedOut
from minilog.server.outbound.dial import Unreached
from minilog.server.outbound.host_names import Names, Target
from minilog.server.outbound.peer_lane import Address
from minilog.server.outbound.peers import Peers
from minilog.wire.messages import Ok, Probe, ProbeReply, Problem
from tests.unit.server.peer_server import Exchange, PeerServer, until

REAL = socket.getaddrinfo
Resolver = Callable[[str], list[str]]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, Resolver | list[str]]:
    """Names of the test's own: their addresses, or a function that gives them and may hang or
    raise."""
    names: dict[str, Resolver | list[str]] = {}

    def getaddrinfo(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        answer = names.get(host)
        if answer is None:
            return REAL(host, port, *rest, **options)
        addresses = answer(host) if callable(answer) else answer
        return [found for address in addresses for found in REAL(address, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


def silent_resolver(gate: threading.Event) -> Resolver:
    """As glibc while no name server answers: it hangs, then gives up."""

    def hang(host: str) -> list[str]:
        gate.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    return hang


@contextmanager
def black_hole() -> Iterator[int]:
    """A port on 127.0.0.9 that answers no connect, as an address nobody routes to."""
    with ExitStack() as held:
        dead = held.enter_context(socket.socket())
        dead.bind(("127.0.0.9", 0))
        dead.listen(0)
        port = dead.getsockname()[1]
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.9", port))
        yield port


async def probed(url: str, timeout_ms: int = 2000) -> object:
    """What a probe of ``url`` comes to."""
    async with asyncio.TaskGroup() as tasks:
        peers = Peers(tasks, timeout_ms)
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        peers.send(2, url, Probe(2, "x"), answered.set_result)
        outcome = await answered
        peers.close()
    return outcome


def reason(outcome: object) -> object:
    assert isinstance(outcome, MinilogError), outcome
    assert outcome.definite, "nothing was sent"
    return outcome.info["reason"]


async def answer_probe(exchange: Exchange) -> None:
    exchange.reply(ProbeReply(2, "x"))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(8):
            await main()

    asyncio.run(limited())


def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def test_refused_by_every_address_is_refused(resolver: dict[str, Any]) -> None:
    resolver["two.test"] = ["127.0.0.1", "127.0.0.2"]

    async def main() -> None:
        assert reason(await probed(f"http://two.test:{unused_port()}")) == "refused"

    run(main)


def test_refused_by_one_address_while_another_is_silent_proves_nothing(resolver: dict[str, Any]) -> None:
    resolver["half.test"] = ["127.0.0.1", "127.0.0.9"]

    async def main() -> None:
        with black_hole() as port:
            outcome = await probed(f"http://half.test:{port}")
        assert isinstance(outcome, TimedOut)
        assert reason(outcome) == "connect"

    run(main)


def test_the_second_address_is_tried_while_the_first_is_silent(resolver: dict[str, Any]) -> None:
    resolver["second.test"] = ["127.0.0.9", "127.0.0.1"]

    async def main() -> None:
        with black_hole() as port:
            async with PeerServer(answer_probe, port=port):
                assert await probed(f"http://second.test:{port}") == ProbeReply(2, "x")

    run(main)


def test_many_silent_addresses_before_the_right_one_fit_into_the_time(resolver: dict[str, Any]) -> None:
    resolver["tenth.test"] = [*["127.0.0.9"], *(f"127.0.0.{n}" for n in range(10, 18)), "127.0.0.1"]

    async def main() -> None:
        with black_hole() as port:
            async with PeerServer(answer_probe, port=port):
                assert await probed(f"http://tenth.test:{port}") == ProbeReply(2, "x")

    run(main)


@pytest.mark.parametrize(
    ("errors", "refused"),
    [
        ([("192.0.2.1", errno.ECONNREFUSED)], True),
        ([("192.0.2.1", errno.ECONNREFUSED), ("2001:db8::1", errno.ECONNREFUSED)], True),
        ([("192.0.2.1", errno.ECONNREFUSED), ("2001:db8::1", errno.ENETUNREACH)], False),
        ([("192.0.2.1", errno.ECONNREFUSED), ("2001:db8::1", errno.EADDRNOTAVAIL)], False),
        ([("192.0.2.1", errno.ECONNREFUSED), ("192.0.2.2", None)], False),
        ([("127.0.0.1", errno.ECONNREFUSED), ("::1", errno.EADDRNOTAVAIL)], True),
        ([("127.0.0.1", errno.ECONNREFUSED), ("::1", errno.EAFNOSUPPORT)], True),
        ([("127.0.0.1", errno.ECONNREFUSED), ("::1", errno.ENETUNREACH)], False),
        ([("::1", errno.EADDRNOTAVAIL)], False),
        ([], False),
    ],
)
def test_what_counts_as_refused(errors: list[tuple[str, int | None]], refused: bool) -> None:
    failures = [
        (Target(socket.AF_INET, (host, 1)), OSError("odd") if number is None else OSError(number, "x"))
        for host, number in errors
    ]
    assert Unreached(failures).refused is refused


@pytest.mark.parametrize(
    "error",
    [
        UnicodeEncodeError("idna", "x", 0, 1, "label too long"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        OSError("without a number"),
        ValueError("embedded null byte"),
        MemoryError(),
    ],
)
def test_whatever_goes_wrong_with_a_name_is_an_answer(resolver: dict[str, Any], error: Exception) -> None:
    def broken(host: str) -> list[str]:
        raise error

    resolver["broken.test"] = broken

    async def main() -> None:
        outcome = await probed("http://broken.test:80")
        assert isinstance(outcome, BrokerUnavailable)
        assert reason(outcome) == "unreachable"

    run(main)


@pytest.mark.parametrize(
    "url",
    ["http://a..b:80", f"http://{'x' * 64}.test:80", "http://-:80", "http://h h:80", "http://[::1:80", "http://h:0"],
)
def test_a_url_that_names_no_host_is_told_and_not_tried(url: str) -> None:
    async def main() -> None:
        assert reason(await probed(url)) == "unknown"

    run(main)


def test_a_host_beyond_ascii_is_asked_for_and_named_as_idna(resolver: dict[str, Any]) -> None:
    resolver["xn--bcher-kva.test"] = ["127.0.0.1"]
    heads = []

    async def note(exchange: Exchange) -> None:
        heads.append(exchange.head)
        exchange.reply(ProbeReply(2, "x"))

    async def main() -> None:
        async with PeerServer(note) as peer:
            port = Address.of(peer.url).port
            assert await probed(f"http://bücher.test:{port}") == ProbeReply(2, "x")
            assert f"\r\nHost: xn--bcher-kva.test:{port}\r\n" in heads[0] + "\r\n"

    run(main)


# --- names ----------------------------------------------------------------------------------------


def test_a_name_is_looked_up_once_at_a_time_however_many_ask(resolver: dict[str, Any]) -> None:
    asked, gate = [], threading.Event()

    def slow(host: str) -> list[str]:
        asked.append(host)
        gate.wait(10)
        return ["127.0.0.1"]

    resolver["slow.test"] = slow

    async def main() -> None:
        names = Names()
        questions = [asyncio.create_task(names.find("slow.test", port)) for port in range(1, 51)]
        await until(lambda: asked)
        gate.set()
        answers = await asyncio.gather(*questions)
        assert [targets[0].address[1] for targets in answers] == list(range(1, 51))
        assert asked == ["slow.test"]

    run(main)


def test_while_dns_is_silent_or_fails_the_last_known_address_is_used(resolver: dict[str, Any]) -> None:
    gate = threading.Event()

    async def main() -> None:
        names = Names()
        resolver["known.test"] = ["127.0.0.1"]
        known = await names.find("known.test", 1)
        resolver["known.test"] = silent_resolver(gate)
        assert await names.find("known.test", 1) == known
        began_s = asyncio.get_running_loop().time()
        for _ in range(100):
            assert await names.find("known.test", 1) == known
        assert asyncio.get_running_loop().time() - began_s < 1, "nobody waits for a look-up that is known to hang"
        gate.set()  # from now on it fails at once
        for _ in range(3):
            assert await names.find("known.test", 1) == known
        resolver["known.test"] = ["127.0.0.2"]
        while await names.find("known.test", 1) == known:  # noqa: ASYNC110 - the failing look-up may still be under way
            await asyncio.sleep(0)
        assert (await names.find("known.test", 1))[0].address == ("127.0.0.2", 1), "the name has moved"

    run(main)


def test_a_name_expected_beforehand_is_known_when_dns_falls_silent(resolver: dict[str, Any]) -> None:
    gate = threading.Event()

    async def main() -> None:
        async with PeerServer(answer_probe) as peer, asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 1000)
            asked = asyncio.Event()
            loop = asyncio.get_running_loop()

            def first(host: str) -> list[str]:
                loop.call_soon_threadsafe(asked.set)
                return ["127.0.0.1"]

            resolver["later.test"] = first
            url = f"http://later.test:{Address.of(peer.url).port}"
            peers.expect([url, "no url"])
            await asked.wait()
            resolver["later.test"] = silent_resolver(gate)
            answered = loop.create_future()
            peers.send(2, url, Probe(2, "x"), answered.set_result)
            assert await answered == ProbeReply(2, "x")
            peers.close()
            gate.set()

    run(main)


def test_without_a_thread_to_spare_a_name_is_unreachable_for_now(
    resolver: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver["spare.test"] = ["127.0.0.1"]

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        async with PeerServer(answer_probe) as peer:
            url = f"http://spare.test:{Address.of(peer.url).port}"
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", no_thread)
                Names().expect("spare.test")
                assert reason(await probed(url)) == "unreachable"
            assert await probed(url) == ProbeReply(2, "x")

    run(main)


def test_more_silent_names_than_there_may_be_threads(resolver: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.server.outbound.host_names.LOOKUPS_MAX", 2)
    gate = threading.Event()
    resolver.update(dict.fromkeys(["hang-1.test", "hang-2.test", "hang-3.test"], silent_resolver(gate)))

    async def main() -> None:
        names = Names()
        for host in ("hang-1.test", "hang-2.test"):
            names.expect(host)
        with pytest.raises(OSError, match="2 other names wait"):
            await names.find("hang-3.test", 1)

    try:
        run(main)
    finally:
        gate.set()


def test_hanging_names_keep_nobody_elses_threads_and_no_exit(resolver: dict[str, Any]) -> None:
    gate = threading.Event()
    hosts = [f"hang-{n}.test" for n in range(30)]
    resolver.update(dict.fromkeys(hosts, silent_resolver(gate)))

    async def main() -> None:
        async with PeerServer(answer_probe) as peer, asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 300)
            calls = [asyncio.create_task(peers.call(f"http://{host}:1", Ok(), 300)) for host in hosts]
            await until(lambda: sum(thread.name.startswith("look up hang") for thread in threading.enumerate()) == 30)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 1) == 7
            assert await peers.call(peer.url, Ok(), 1000) == ProbeReply(2, "x")
            assert len(await asyncio.gather(*calls)) == 30
            peers.close()

    try:
        run(main)
        hanging = [thread for thread in threading.enumerate() if thread.name.startswith("look up hang")]
        assert all(thread.daemon for thread in hanging)
    finally:
        gate.set()


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=300),
        st.builds("http://{}".format, st.text(max_size=300)),
        st.builds("http://{}:{}".format, st.text("ab.-_:[]%\u2100ß。é", max_size=80), st.integers(-1, 70_000)),
    )
)
def test_no_address_whatsoever_ends_anybody(url: str) -> None:
    """What is no address is told as one that nobody knows, and what passes for one can be asked
    for (R44)."""

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 50)
            peers.expect([url])
            assert not peers.has_met(url)
            answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            peers.send(2, url, Probe(2, "x"), answered.set_result)
            assert isinstance(await answered, MinilogError)
            assert isinstance(await peers.call(url, Probe(2, "x"), 50), Problem)
            peers.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", nobody_knows)
        asyncio.run(main())
    assert url_fault(url) is not None or Address.of(url).host


def nobody_knows(host: str, port: int, **how: Any) -> list[Any]:
    """As the real one takes the host: it must be able to be written."""
    host.encode("idna")
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
