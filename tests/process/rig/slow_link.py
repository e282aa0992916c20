"""Slow links without netem: packets of chosen (source, destination) pairs pass through a process
that delays them.

    router --rule--> tun device --> python -m tests.process.rig.slow_link --(later, or never, or
    twice)--> tun device --> router

The process runs in the router's namespace, obeys one JSON line per pair on its stdin, and ends when
stdin closes.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

DEVICE = "slow0"
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_PACKET_BYTES_MAX = 65_536
_SOURCE, _DESTINATION = slice(12, 16), slice(16, 20)
_QUEUE_S_MAX = 1.0
"""A rate-limited link holds this much. What does not fit is dropped, as a router does."""


@dataclass(frozen=True)
class Link:
    """``jitter_ms`` is the standard deviation of the delay, so packets overtake each other; shares
    are of all packets."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    bytes_per_second: float = 0.0
    """0: no limit."""


class SlowLinks:
    """The process, as the test holds it."""

    device = DEVICE

    def __init__(self, prefix: Sequence[str], seed: int = 1) -> None:
        command = [*prefix, sys.executable, "-m", "tests.process.rig.slow_link", str(seed)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._known: set[tuple[str, str]] = set()
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == "ready\n", "the slow link did not start; its error is above"

    def set(self, source: str, destination: str, link: Link) -> bool:
        """True when nothing was known of this pair before."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps([source, destination, asdict(link)]) + "\n")
        self._child.stdin.flush()
        is_new = (source, destination) not in self._known
        self._known.add((source, destination))
        return is_new

    def close(self) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.wait(5.0)
        self._child.stdout.close()


class _Delayer:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._links: dict[bytes, Link] = {}
        self._free_s: dict[bytes, float] = {}
        self._order = 0
        self._waiting: list[tuple[float, int, bytes]] = []

    def obey(self, line: str) -> None:
        source, destination, link = json.loads(line)
        self._links[_packed(source) + _packed(destination)] = Link(**link)

    def take(self, packet: bytes, now_s: float) -> None:
        pair = packet[_SOURCE] + packet[_DESTINATION]
        link = self._links.get(pair, Link())
        if self._random.random() < link.loss:
            return
        for _ in range(1 + (self._random.random() < link.duplicate)):
            sent_s = now_s
            if link.bytes_per_second:
                sent_s = max(now_s, self._free_s.get(pair, 0.0)) + len(packet) / link.bytes_per_second
                if sent_s > now_s + _QUEUE_S_MAX:
                    return
                self._free_s[pair] = sent_s
            delay_ms = max(0.0, self._random.gauss(link.delay_ms, link.jitter_ms))
            self._order += 1
            heapq.heappush(self._waiting, (sent_s + delay_ms / 1000, self._order, packet))

    def wait_s(self, now_s: float) -> float | None:
        return max(0.0, self._waiting[0][0] - now_s) if self._waiting else None

    def due(self, now_s: float) -> list[bytes]:
        packets = []
        while self._waiting and self._waiting[0][0] <= now_s:
            packets.append(heapq.heappop(self._waiting)[2])
        return packets


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def _open_tun() -> int:
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _IFF_TUN_NO_PI))
    subprocess.run(["ip", "link", "set", DEVICE, "up"], check=True)
    return handle


def main() -> None:
    delayer, tun, orders = _Delayer(int(sys.argv[1])), _open_tun(), ""
    os.set_blocking(0, False)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([tun, 0], [], [], delayer.wait_s(time.monotonic()))
        if 0 in readable:
            heard = os.read(0, _PACKET_BYTES_MAX).decode()
            if not heard:
                return
            *lines, orders = (orders + heard).split("\n")
            for line in lines:
                delayer.obey(line)
        if tun in readable:
            delayer.take(os.read(tun, _PACKET_BYTES_MAX), time.monotonic())
        for packet in delayer.due(time.monotonic()):
            os.write(tun, packet)


if __name__ == "__main__":
    main()
