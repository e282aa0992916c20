"""Principal: somebody who is known by a credential, and what the security file allows them.

No rule, no access. A rule is an operation and a name, or the beginning of names with a ``*`` behind
it. ``*`` names no internal topic (``__...``) unless the rule says the underscores.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from minilog.wire.needs import RESOURCES, Operation

INTERNAL: Final = "__"


class Role(StrEnum):
    ADMIN = "admin"
    """People who look after the cluster: everything but to speak as one of its processes."""
    METRICS = "metrics"
    PEER = "peer"
    """A broker, in its own name. What it passes on is done with the rights of who has asked."""
    CONTROLLER = "controller"


class Rule(NamedTuple):
    """``name`` "" for operations that are done to the cluster."""

    operation: Operation
    name: str = ""

    def covers(self, name: str) -> bool:
        """That very resource."""
        if not self.name.endswith("*"):
            return name == self.name
        beginning = self.name[:-1]
        return name.startswith(beginning) and (beginning.startswith(INTERNAL) or not name.startswith(INTERNAL))

    def __str__(self) -> str:
        return f"{self.operation} {self.name}".strip()


_OF_PEERS: Final = frozenset((Operation.PEER, Operation.CLUSTER, Operation.DESCRIBE))
_OF_CONTROLLERS: Final = frozenset((Operation.CONTROLLER, Operation.CLUSTER))
OF_PROCESSES: Final = frozenset((Operation.PEER, Operation.CONTROLLER, Operation.CLUSTER))


class Quota(NamedTuple):
    """0: as much as there is."""

    requests_per_second: int = 0
    bytes_per_second: int = 0


class Principal(NamedTuple):
    """``broker_id``: of a peer. ``is_open``: there is no security file, so whoever asks may do
    everything."""

    name: str
    roles: frozenset[Role] = frozenset()
    rules: tuple[Rule, ...] = ()
    broker_id: int | None = None
    quota: Quota = Quota()
    is_open: bool = False

    def may(self, operation: Operation, name: str = "") -> bool:
        """``name`` "" asks whether there is anything that it may be done to."""
        if self.is_open or operation is Operation.PUBLIC:
            return True
        return self._by_role(operation) or self._by_rule(operation, name)

    def _by_role(self, operation: Operation) -> bool:
        if Role.ADMIN in self.roles and operation not in OF_PROCESSES:
            return True
        if Role.PEER in self.roles and operation in _OF_PEERS:
            return True
        if Role.CONTROLLER in self.roles and operation in _OF_CONTROLLERS:
            return True
        return operation is Operation.METRICS and Role.METRICS in self.roles

    def _by_rule(self, operation: Operation, name: str) -> bool:
        if operation is Operation.MESSAGE:
            return bool(self.rules or self.roles - {Role.METRICS})
        if operation is Operation.DESCRIBE:
            return any(rule.operation in (*RESOURCES, Operation.DESCRIBE) for rule in self.rules)
        return any(rule.operation is operation and (not name or rule.covers(name)) for rule in self.rules)


OPEN: Final = Principal("", is_open=True)
"""Everybody, where nothing is secured."""
NOBODY: Final = Principal("")
"""Whoever asks for what is public, and is not known."""
