"""A cluster of real processes for one test: three brokers and a controller on free ports, gone when the test ends."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minilog.cli import process
from minilog.cli.devcluster import DevCluster, Member

WAIT_S = 30.0


class ProcessCluster:
    def __init__(self, dev: DevCluster) -> None:
        self.dev = dev

    @property
    def url(self) -> str:
        return self.dev.url

    @property
    def broker_ids(self) -> list[int]:
        return [member.id for member in self.dev.brokers]

    def kill(self, name: int | str) -> None:
        self._signal(name, signal.SIGKILL)
        known = self.dev.member(str(name)).known()
        assert known is not None
        assert process.wait_dead(known, 5.0)
        self.dev.reap()

    def pause(self, name: int | str) -> None:
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: int | str) -> None:
        self._signal(name, signal.SIGCONT)

    def terminate(self, name: int | str) -> float:
        """SIGTERM and wait for a clean end; returns the seconds it took."""
        began = time.monotonic()
        self._signal(name, signal.SIGTERM)
        status = self.dev.children.pop(self.dev.member(str(name)).name).wait(20.0)
        assert status == 0, f"{name} ended with {status}: {self.log(name)[-2000:]}"
        return time.monotonic() - began

    def start(self, *names: int | str) -> None:
        members = [self.dev.member(str(name)) for name in names]
        for member in members:
            self.dev.start(member, exit_with_parent=True)
        self.dev.wait_ready(members)

    def log(self, name: int | str) -> str:
        return self.dev.member(str(name)).log_file.read_text()

    def _signal(self, name: int | str, number: signal.Signals) -> None:
        member: Member = self.dev.member(str(name))
        known = member.known()
        assert known is not None
        assert process.signal_to(known, number), f"{member.name} was not running: {self.log(name)[-2000:]}"

    # --- asking ----------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """JSON from the first broker that answers."""
        failure: Exception | None = None
        for member in self.dev.brokers:
            try:
                with urllib.request.urlopen(member.url + path, timeout=1.0) as answer:
                    return json.load(answer)
            except OSError as error:
                failure = error
        raise AssertionError(f"no broker answers {path}: {failure}")

    def partitions(self, topic: str) -> list[dict[str, Any]]:
        topics = self.get(f"/v1/metadata?topics={topic}")["topics"]
        return list(topics[0]["partitions"]) if topics else []

    def leader(self, topic: str, partition: int = 0) -> int:
        return int(self.partitions(topic)[partition]["leader"])

    def wait_in_sync(self, topic: str) -> None:
        """Every partition has a leader and all its replicas in the ISR."""
        self.wait(
            lambda: all(p["leader"] >= 0 and len(p["isr"]) == len(p["replicas"]) for p in self.partitions(topic)),
            f"all of {topic} in sync",
        )

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError, OSError):
                if condition():
                    return
            time.sleep(0.02)
        state = contextlib.suppress(AssertionError)
        with state:
            what += f"; metadata: {self.get('/v1/metadata')}"
        raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}")


@contextlib.contextmanager
def process_cluster(folder: Path, brokers: int = 3, overrides: tuple[str, ...] = ()) -> Iterator[ProcessCluster]:
    dev = DevCluster.create(folder, brokers, port=0, controller_port=0, overrides=overrides)
    try:
        dev.start_all(exit_with_parent=True)
        yield ProcessCluster(dev)
    finally:
        dev.kill_all()
