"""Ports of a dev cluster: which are free, and which its processes get."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

from minilog.cli.output import CliError, ExitCode

HOST = "127.0.0.1"
PORT_MAX = 65535
FREE_PORTS = range(20_000, 32_000)
"""Below the kernel's ephemeral range, so that no outgoing connection takes a killed broker's
port."""

_random = random.SystemRandom()
"""Not the one that tests seed alike in several processes: they would all choose the same ports."""


def port_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Neighbouring ports nobody listens on now."""
    for _ in range(200):
        first = _random.choice(FREE_PORTS[: -count - 1])
        ports = list(range(first, first + count))
        if all(map(port_free, ports)):
            return ports
    raise CliError(f"no {count} free ports found on {HOST}; name some with --port and --controller-port")


def broker_ports(old: Sequence[int], brokers: int, port: int | None) -> list[int]:
    """``old``: those the cluster has. ``port``: the first one that is asked for, 0 for any."""
    if port == 0:
        return free_ports(brokers)
    if port is None and old:
        return [*old, *_ports_from(old[-1] + 1, brokers - len(old))]
    return _ports_from(port or 8082, brokers)


def _ports_from(first: int, brokers: int) -> list[int]:
    """Raises CliError beyond the last port there is."""
    if first + brokers - 1 > PORT_MAX:
        raise CliError(f"{brokers} brokers from port {first} on would pass port {PORT_MAX}; choose a lower --port", 2)
    return list(range(first, first + brokers))


def port_of_controller(old: int | None, port: int | None) -> int:
    if port == 0:
        return free_ports(1)[0]
    if port is None:
        return 9093 if old is None else old
    return port


def choose_ports(
    old_ports: Sequence[int],
    old_controller_port: int | None,
    brokers: int,
    port: int | None,
    controller_port: int | None,
) -> tuple[list[int], int]:
    """Of the brokers, and of the controller. Raises CliError where two would share one."""
    if port == controller_port == 0:
        chosen = free_ports(brokers + 1)
        return chosen[1:], chosen[0]
    ports = broker_ports(old_ports, brokers, port)
    of_controller = port_of_controller(old_controller_port, controller_port)
    if of_controller in ports:
        raise CliError(
            f"port {of_controller} would be the controller's and broker {ports.index(of_controller) + 1}'s; "
            "choose another --controller-port or --port",
            ExitCode.USAGE,
        )
    return ports, of_controller


def more_ports(after: int, count: int, taken: Sequence[int]) -> list[int]:
    """``count`` ports behind ``after`` that are free and nobody else's."""
    found: list[int] = []
    for port in range(after + 1, PORT_MAX + 1):
        if len(found) == count:
            break
        if port not in taken and port_free(port):
            found.append(port)
    return found
