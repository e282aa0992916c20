"""What a process does around its core: refusals in a sentence, exit codes, signals, the whole of
``serve``."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from minilog.broker import main
from minilog.broker.main import Broker
from minilog.config import BrokerSettings, ControllerSettings
from minilog.controller.journal import FileJournal
from minilog.controller.main import make_controller
from minilog.errors import DiskFull, RefusesToStart, StorageFailed
from minilog.server import process
from minilog.server.event_loop import loop_factory
from minilog.standalone import serve_both
from minilog.storage.disk import OsDisk
from minilog.storage.store import Store
from tests.unit.server.peer_server import until


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_in_use_is_a_sentence_that_names_it() -> None:
    with taken_port() as port, pytest.raises(RefusesToStart) as refusal:
        process.bind("127.0.0.1", port, "the broker")
    assert f"port {port} on '127.0.0.1' is in use" in str(refusal.value)


def test_a_bound_socket_refuses_until_it_listens() -> None:
    with process.bind("127.0.0.1", 0, "the broker") as bound:
        address = bound.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        process.listen(bound, "the broker")
        socket.create_connection(address).close()
        assert process.url_of(bound, "127.0.0.1") == f"http://127.0.0.1:{address[1]}"


def test_a_host_that_cannot_be_listened_on_is_refused() -> None:
    with pytest.raises(RefusesToStart, match=r"cannot listen on '192\.0\.2\.1' port 0"):
        process.bind("192.0.2.1", 0, "the broker")
    with pytest.raises(RefusesToStart, match="cannot resolve host 'no such host'"):
        process.bind("no such host", 0, "the broker")


def test_a_kind_of_address_that_this_machine_does_not_have_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", none)
    with pytest.raises(RefusesToStart, match=r"cannot listen on '::' port 0: .*not supported"):
        process.bind("::", 0, "the broker")


async def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RefusesToStart("wrong disk"), "x refuses to start: wrong disk"),
        (StorageFailed("EIO"), "x stopped: the disk failed: EIO"),
        (DiskFull("the disk is full; make room"), "x stopped: the disk is full; make room"),
        (process.FailStop(disk_failed=True), "x stopped without a clean marker; the next start will check its data"),
        (ValueError("a bug"), "x stopped, this is a bug"),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_every_end_is_one_line_and_exit_code_1(
    error: Exception, line: str, grouped: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_tune_gc", lambda: None)
    monkeypatch.setattr(process, "start_logging", lambda: None)
    wrapped = BaseExceptionGroup("tasks", [BaseExceptionGroup("inner", [error])]) if grouped else error
    with caplog.at_level(logging.INFO):
        assert process.run(raising(wrapped), "x") == 1
    assert [record.getMessage() for record in caplog.records] == [line]


def fail_in_loop(callback: Callable[[asyncio.AbstractEventLoop], object]) -> process.Failure:
    """Let something raise inside the event loop of a process that watches it."""
    failures = []

    async def main() -> None:
        failure = process.Failure()
        failures.append(failure)
        failure.watch_loop()
        callback(asyncio.get_running_loop())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    return failures[0]


def raise_error(error: Exception) -> None:
    raise error


def test_a_callback_that_breaks_stops_the_process() -> None:
    failure = fail_in_loop(lambda loop: loop.call_soon(raise_error, ValueError("bug")))
    assert failure.tripped
    with pytest.raises(process.FailStop):
        failure.check()


def test_what_a_client_can_cause_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    protocol = asyncio.Protocol()
    seen = {"message": "data_received failed", "exception": ValueError("bad bytes"), "protocol": protocol}
    failure = fail_in_loop(lambda loop: loop.call_exception_handler(seen))
    assert not failure.tripped
    failure.check()
    assert "bad bytes" in caplog.text
    assert not fail_in_loop(lambda loop: loop.call_soon(raise_error, ConnectionResetError())).tripped


def test_disk_failures_are_found_wherever_they_hide() -> None:
    assert process.is_disk_failure(StorageFailed("x"))
    assert process.is_disk_failure(ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [StorageFailed("x")])]))
    assert process.is_disk_failure(process.FailStop(disk_failed=True))
    assert not process.is_disk_failure(process.FailStop(disk_failed=False))
    assert not process.is_disk_failure(OSError(errno.EIO, "x"))


def test_a_wildcard_host_needs_an_advertised_url(tmp_path: Path) -> None:
    async def main() -> None:
        await Broker(BrokerSettings(broker_id=1, data_dir=str(tmp_path), host="0.0.0.0")).run(asyncio.Event())

    with pytest.raises(RefusesToStart, match="set advertised_url"):
        asyncio.run(main())


def test_a_used_data_directory_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            first = Broker(BrokerSettings(broker_id=1, data_dir=str(tmp_path), port=0, shutdown_timeout_ms=1))
            running = tasks.create_task(first.run(stop))
            await first.listening.wait()
            with pytest.raises(RefusesToStart, match="in use by process"):
                await Broker(BrokerSettings(broker_id=1, data_dir=str(tmp_path), port=0)).run(stop)
            stop.set()
            await running

    asyncio.run(main())
    names = {path.name for path in tmp_path.iterdir()}
    assert "meta.json" in names
    assert "clean-shutdown" not in names, "it never registered, so it vouches for nothing"


def both(tmp_path: Path) -> tuple[BrokerSettings, ControllerSettings]:
    return (
        BrokerSettings(broker_id=1, data_dir=str(tmp_path / "b"), port=0),
        ControllerSettings(data_dir=str(tmp_path / "c"), port=0),
    )


def test_serve_registers_and_stops_cleanly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The real cores, stores and sockets of a broker and a controller in one loop."""

    async def main() -> None:
        stop = asyncio.Event()
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as session:
            tasks.create_task(serve_both(*both(tmp_path), stop))
            await until(lambda: "broker 1 registered, epoch" in caplog.text)
            (broker_url,) = re.findall(r"broker 1 listening on (\S+),", caplog.text)
            async with session.get(f"{broker_url}/healthz") as response:
                assert response.status == 200
            stop.set()

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert "stopped cleanly" in caplog.text
    assert (tmp_path / "b" / "clean-shutdown").exists()


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_serve_finds_a_controller_that_listens_on_every_address(
    host: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        broker, controller = both(tmp_path)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(serve_both(broker, replace(controller, host=host, insecure=True), stop))
            await until(lambda: "broker 1 registered, epoch" in caplog.text)
            stop.set()

    with caplog.at_level(logging.INFO):
        asyncio.run(main())


def test_a_broker_of_another_cluster_refuses_to_start(tmp_path: Path) -> None:
    async def serve_once(controller_dir: str) -> None:
        settings = both(tmp_path)[0]
        stop, stop_controller = asyncio.Event(), asyncio.Event()
        controller = make_controller(ControllerSettings(data_dir=str(tmp_path / controller_dir), port=0))
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(controller.run(stop_controller))
            await controller.listening.wait()
            broker = Broker(
                BrokerSettings(broker_id=1, data_dir=settings.data_dir, port=0, controller_url=controller.url)
            )
            running = tasks.create_task(broker.run(stop))
            await until(lambda: running.done() or broker.registered.is_set())
            stop.set()
            await asyncio.wait([running])
            stop_controller.set()

    asyncio.run(serve_once("c1"))
    with pytest.raises(BaseExceptionGroup) as refusal:
        asyncio.run(serve_once("c2"))
    (leaf,) = process.leaves(refusal.value)
    assert isinstance(leaf, RefusesToStart)
    assert "cluster" in str(leaf)


def test_a_broker_whose_disk_is_full_when_it_registers_serves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note that the controller knows of an unclean start comes when there is room for it."""
    monkeypatch.setattr(main, "NOTE_RETRY_S", 0.01)
    attempts: list[int] = []

    def registered(store: Store) -> None:
        attempts.append(store.controller_epoch)
        if len(attempts) < 3:
            raise DiskFull("no room")

    monkeypatch.setattr(Store, "registered", registered)

    async def serve() -> None:
        broker_settings, controller_settings = both(tmp_path)
        stop = asyncio.Event()
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(serve_both(broker_settings, controller_settings, stop))
            await until(lambda: running.done() or len(attempts) >= 3)
            stop.set()

    asyncio.run(serve())
    assert attempts == [1, 1, 1]


RUN = (
    "import sys; from minilog.standalone import run_both; from minilog.config import *; "
    "sys.exit(run_both(BrokerSettings(broker_id=1, data_dir=sys.argv[1] + '/b', port=0), "
    "ControllerSettings(data_dir=sys.argv[1] + '/c', port=0)))"
)


def test_a_real_process_stops_on_sigterm_with_exit_code_0(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        lines = []
        for line in child.stderr:
            lines.append(line)
            if "broker 1 registered, epoch" in line:
                child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    assert (tmp_path / "b" / "clean-shutdown").exists()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ minilog", line) for line in lines), lines


def test_a_loop_that_is_wanted_and_not_installed_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # the import system's word for: not there
    monkeypatch.setattr(process, "_tune_gc", lambda: None)
    assert loop_factory("asyncio") is None
    assert loop_factory("auto") is None
    with pytest.raises(RefusesToStart, match=r'event_loop is "uvloop", .*pip install "minilog-broker\[fast\]"'):
        loop_factory("uvloop")
    assert process.run(raising(RefusesToStart("never asked")), "broker 1", "uvloop") == 1
    assert "broker 1 refuses to start: event_loop" in caplog.text


def test_auto_takes_the_loop_that_is_installed() -> None:
    uvloop = pytest.importorskip("uvloop")
    assert loop_factory("auto") is uvloop.new_event_loop
    assert loop_factory("uvloop") is uvloop.new_event_loop


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=10, check=False)


def test_an_optimized_interpreter_is_refused() -> None:
    script = "import asyncio; from minilog.server.process import run; print(run(asyncio.sleep(0), 'minilog'))"
    done = run_python("-O", "-B", "-c", script)
    assert done.stdout == "1\n"
    assert "minilog refuses to start: Python runs with -O" in done.stderr


TWICE = """
import asyncio, os, signal
from minilog.broker import main
from minilog.server import process
from minilog.server.event_loop import loop_factory

async def main():
    stop = asyncio.Event()
    with process.stop_on_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
    return 7

process.ECHO_S = %s
os._exit(process.run(main(), "minilog"))
"""


def test_a_second_signal_exits_at_once() -> None:
    done = run_python("-c", TWICE % 0)
    assert done.returncode == 1
    assert "second signal (SIGINT): exiting at once" in done.stderr


def test_the_echo_of_a_signal_is_no_second_one() -> None:
    done = run_python("-c", TWICE % 5)
    assert done.returncode == 7
    assert "second signal" not in done.stderr


def test_a_failed_disk_leaves_no_promise_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the clean marker nor the note that lets a restart trust the page cache."""

    async def main() -> None:
        broker = Broker(BrokerSettings(broker_id=1, data_dir=str(tmp_path), port=0, checkpoint_interval_ms=1))

        def fail() -> None:
            raise StorageFailed("EIO")

        broker._store.checkpoint = fail  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            await broker.run(asyncio.Event())

    with pytest.raises(ExceptionGroup) as stopped:
        asyncio.run(main())
    assert process.is_disk_failure(stopped.value)
    assert not {path.name for path in tmp_path.iterdir()} & {"clean-shutdown", "running"}


class Held:
    """What is put in the place of a method waits in the thread that calls it, until ``go_on`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: type, name: str) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        real = getattr(where, name)

        def held(*arguments: Any) -> Any:
            self.begun.set()
            assert self.go_on.wait(10)
            return real(*arguments)

        monkeypatch.setattr(where, name, held)


def test_a_broker_that_is_cancelled_while_it_closes_waits_for_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an application does whose patience is over. Its directory is not free before all is closed."""
    closing = Held(monkeypatch, Store, "close_cleanly")

    async def main() -> None:
        broker, stop = Broker(both(tmp_path)[0]), asyncio.Event()
        running = asyncio.create_task(broker.run(stop))
        await broker.listening.wait()
        broker._store.registered()
        stop.set()
        await until(closing.begun.is_set)
        running.cancel()
        await asyncio.wait([running], timeout=0.1)
        with pytest.raises(RefusesToStart):
            Store(OsDisk(), str(tmp_path / "b"), 1, lambda: 0).start("boot")
        closing.go_on.set()
        await asyncio.wait([running])
        assert running.cancelled()

    asyncio.run(main())
    assert (tmp_path / "b" / "clean-shutdown").exists()


def test_a_controller_that_is_cancelled_while_it_reads_its_journal_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Held(monkeypatch, FileJournal, "_replay")

    async def main() -> None:
        running = asyncio.create_task(make_controller(both(tmp_path)[1]).run(asyncio.Event()))
        await until(reading.begun.is_set)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())
    with pytest.raises(RefusesToStart):
        FileJournal(str(tmp_path / "c")).open()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "replay"]
    reading.go_on.set()
    thread.join(10)
    FileJournal(str(tmp_path / "c")).open()
