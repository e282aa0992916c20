"""A network of its own for one cluster: every process in a network namespace, all of them around
one router.

    broker 1 --.          .-- controller
    broker 2 --- router ---
    broker 3 --'          '-- client (this process, in the namespace it is in)

What goes from one node to another passes the router, so the router decides for each pair and each
direction: let it through, drop it without a word (as a real partition does: no refusal, no reset),
or send it through a slow link.

Why this way: cutting is one routing rule (``blackhole``), so neither iptables nor nft nor netem is
needed, only root and iproute2; and nothing is in the way of what is not cut. Addresses are of
198.18.0.0/15, which is reserved for tests. Whatever was made is named after this process; leftovers
of dead ones are removed on the way.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.process.rig.slow_link import Link, SlowLinks

CLIENT = "client"
_ROUTER_HOST = 254
_CLIENT_HOST = 253
_CUT_PRIORITY = 100
_SLOW_PRIORITY = 200
_SLOW_TABLE = 100
_OURS = re.compile(r"minilog-(\d+)-\S+")
_numbers = itertools.count()


def unavailable() -> str | None:
    """Why there can be no such network here; None when there can."""
    if os.name != "posix" or not Path("/proc/sys/net").exists():
        return "network namespaces exist on Linux only"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip is missing (Debian: apt-get install iproute2)"
    name = f"minilog-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not allowed here: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return None


class Network:
    """``nodes`` are names. The client is a node of itself. ``close`` removes everything."""

    def __init__(self, nodes: Sequence[str]) -> None:
        sweep()
        number = next(_numbers)
        self._prefix = f"minilog-{os.getpid()}-{number}"
        self._subnet = _free_subnet()
        self._hosts = {CLIENT: _CLIENT_HOST, **{node: host for host, node in enumerate(nodes, 1)}}
        self._cuts: set[tuple[str, str]] = set()
        self._slow: SlowLinks | None = None
        try:
            self._make_router()
            for node in nodes:
                self._join(node)
            self._join_client()
        except BaseException:
            self.close()
            raise

    @property
    def nodes(self) -> list[str]:
        """All but the client."""
        return [node for node in self._hosts if node != CLIENT]

    def address(self, node: str) -> str:
        return f"{self._subnet}.{self._hosts[node]}"

    def command(self, node: str) -> list[str]:
        """What to put before a command so that it runs at ``node``. The pid stays that of the
        command."""
        return ["ip", "netns", "exec", self._namespace(node)]

    def namespace_file(self, node: str) -> Path:
        """What a process enters that is to run at ``node``."""
        return Path("/run/netns") / self._namespace(node)

    # --- faults -----------------------------------------------------------------------------------

    def cut(self, source: str, destination: str) -> None:
        """Drop what goes from one to the other. The way back stays open."""
        if (source, destination) not in self._cuts:
            self._rule("add", source, destination, _CUT_PRIORITY, "blackhole")
            self._cuts.add((source, destination))

    def mend(self, source: str, destination: str) -> None:
        if (source, destination) in self._cuts:
            self._rule("del", source, destination, _CUT_PRIORITY, "blackhole")
            self._cuts.remove((source, destination))

    def separate(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Nothing passes between the two groups, either way."""
        for a, b in itertools.product(list(some), list(others)):
            self.cut(a, b)
            self.cut(b, a)

    def isolate(self, node: str) -> None:
        """From everybody, the client too."""
        self.separate([node], [other for other in self._hosts if other != node])

    def slow(self, source: str, destination: str, link: Link) -> None:
        """What goes from one to the other takes its time, and may get lost, doubled or overtaken on
        the way."""
        if self._slow is None:
            self._slow = SlowLinks(["ip", "netns", "exec", self._router])
            self._in_router(f"route add default dev {self._slow.device} table {_SLOW_TABLE}")
        if self._slow.set(self.address(source), self.address(destination), link):
            inbound = self._router_end(source)
            self._rule("add", source, destination, _SLOW_PRIORITY, f"iif {inbound} lookup {_SLOW_TABLE}")

    def heal(self) -> None:
        """Everything passes, at once."""
        for source, destination in list(self._cuts):
            self.mend(source, destination)
        if self._slow is not None:
            self._slow.close()
            self._slow = None
            while not self._in_router(f"rule del priority {_SLOW_PRIORITY}", check=False):
                pass
            self._in_router(f"route flush table {_SLOW_TABLE}", check=False)

    def close(self) -> None:
        if self._slow is not None:
            self._slow.close()
            self._slow = None
        for name in _namespaces():
            if name.startswith(self._prefix):
                _ip("netns", "del", name, check=False)

    # --- making -----------------------------------------------------------------------------------

    @property
    def _router(self) -> str:
        return f"{self._prefix}-router"

    def _namespace(self, node: str) -> str:
        return f"{self._prefix}-{node.replace(' ', '-')}"

    def _router_end(self, node: str) -> str:
        return f"to{self._hosts[node]}"

    def _make_router(self) -> None:
        _ip("netns", "add", self._router)
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        subprocess.run(["ip", "netns", "exec", self._router, "sh", "-c", forward], check=True)
        self._in_router("link set lo up", f"addr add {self._subnet}.{_ROUTER_HOST}/32 dev lo")

    def _join(self, node: str) -> None:
        namespace = self._namespace(node)
        _ip("netns", "add", namespace)
        near = self._connect("eth0", node, ["netns", namespace])
        _batch(["-n", namespace], [*near, f"route add default via {self._subnet}.{_ROUTER_HOST}", "link set lo up"])

    def _join_client(self) -> None:
        device = f"ml{os.getpid()}-{next(_numbers)}"[:15]
        near = self._connect(device, CLIENT, [])
        _batch([], [*near, f"route add {self._subnet}.0/24 via {self._subnet}.{_ROUTER_HOST}"])

    def _connect(self, device: str, node: str, place: list[str]) -> list[str]:
        """A cable from ``node`` to the router; returns the commands for the node's end."""
        far = self._router_end(node)
        _ip("link", "add", device, *place, "type", "veth", "peer", "name", far, "netns", self._router)
        self._in_router(f"link set {far} up", f"route add {self.address(node)} dev {far}")
        return [
            f"addr add {self.address(node)}/32 dev {device}",
            f"link set {device} up",
            f"route add {self._subnet}.{_ROUTER_HOST} dev {device}",
        ]

    def _rule(self, verb: str, source: str, destination: str, priority: int, action: str) -> None:
        pair = f"from {self.address(source)} to {self.address(destination)}"
        self._in_router(f"rule {verb} {pair} priority {priority} {action}")

    def _in_router(self, *commands: str, check: bool = True) -> int:
        return _batch(["-n", self._router], commands, check=check)


def sweep() -> None:
    """Remove what dead test processes left behind."""
    for name in _namespaces():
        match = _OURS.fullmatch(name)
        if match is not None and not Path(f"/proc/{match[1]}").exists():
            _ip("netns", "del", name, check=False)


def _namespaces() -> list[str]:
    try:
        return sorted(path.name for path in Path("/run/netns").iterdir())
    except FileNotFoundError:
        return []


def _free_subnet() -> str:
    first = os.getpid() % 512
    for step in range(512):
        number = (first + step) % 512
        subnet = f"198.{18 + number // 256}.{number % 256}"
        if not _ip("route", "show", f"{subnet}.0/24").stdout.strip():
            return subnet
    raise AssertionError("all of 198.18.0.0/15 is in use on this machine; see `ip route`")


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
    return done


def _batch(options: Sequence[str], commands: Sequence[str], *, check: bool = True) -> int:
    done = subprocess.run(
        ["ip", *options, "-batch", "-"], input="\n".join(commands) + "\n", capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, f"ip {' '.join(options)}: {'; '.join(commands)}: {done.stderr.strip()}"
    return done.returncode
