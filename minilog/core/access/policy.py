"""Policy: what the security file says, as decisions. Pure.

``admit`` is asked once for each request, between routing and the handler. ``permit`` is asked for
each native message, wherever one is decoded. Both raise what is answered. The order is fixed: the
names by which the process is asked, then the origin of a page, then who asks, then what they may.

Invariants: a credential is one principal's. A process's own messages are taken in its own name
only: without that, one broker's token would be every broker's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from minilog.core.access.principal import NOBODY, OF_PROCESSES, OPEN, Principal, Role
from minilog.core.access.reason import Reason
from minilog.errors import Forbidden, Unauthenticated
from minilog.wire.group_messages import GROUPS_TOPIC
from minilog.wire.messages import CreateTopic, Message
from minilog.wire.needs import RESOURCES, Need, Operation, need_of


class Credential(NamedTuple):
    """One token of a principal. ``not_after_ms`` None: it does not expire."""

    principal: str
    not_after_ms: int | None


class Shown(NamedTuple):
    """What a request shows of who sends it. ``certificate``: the names in a client certificate
    that the TLS layer has checked."""

    token: str = ""
    certificate: tuple[str, ...] = ()


class Known(NamedTuple):
    """Who asks, and until when that holds. ``digest``: of the token, None where a certificate
    says it."""

    principal: Principal
    not_after_ms: int | None = None
    digest: bytes | None = None


OPEN_TO_ALL: Final = Known(OPEN)


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Policy(NamedTuple):
    """``credentials`` by the SHA-256 of their tokens."""

    principals: Mapping[str, Principal]
    credentials: Mapping[bytes, Credential]

    def known_by(self, shown: Shown, now_ms: int) -> Known | None:
        """None: nothing was shown. Raises Unauthenticated when what was shown is nobody's."""
        if shown.token:
            return self._by_token(shown.token, now_ms)
        names = [name for name in shown.certificate if name in self.principals]
        if len(names) == 1:
            return Known(self.principals[names[0]])
        if shown.certificate:
            raise Unauthenticated(
                "the client certificate names nobody of the security file; its alternative name must be "
                "one URI, minilog://NAME, with the name of one principal",
                reason=Reason.UNKNOWN_CREDENTIAL,
            )
        return None

    def _by_token(self, token: str, now_ms: int) -> Known:
        digest = digest_of(token)
        found = self.credentials.get(digest)
        if found is None:
            raise Unauthenticated(
                "the token is nobody's: it is mistyped, or it was withdrawn; ask for a new one",
                reason=Reason.UNKNOWN_CREDENTIAL,
            )
        if found.not_after_ms is not None and now_ms >= found.not_after_ms:
            raise Unauthenticated(
                f"the token of {found.principal} has expired; ask for a new one", reason=Reason.EXPIRED
            )
        return Known(self.principals[found.principal], found.not_after_ms, digest)

    def holds(self, known: Known, now_ms: int) -> bool:
        """Whether who was known so is still known, with the same rights."""
        if known.digest is None:
            return self.principals.get(known.principal.name) == known.principal
        found = self.credentials.get(known.digest)
        if found is None or self.principals.get(found.principal) != known.principal:
            return False
        return found.not_after_ms is None or now_ms < found.not_after_ms

    def admit(self, shown: Shown, need: Need, values: Mapping[str, Any], now_ms: int) -> Known:
        """Who asks. Raises Unauthenticated or Forbidden."""
        if need.operation is Operation.PUBLIC:
            return Known(NOBODY)
        known = self.known_by(shown, now_ms)
        if known is None:
            raise Unauthenticated(
                "this needs a token: send it as 'Authorization: Bearer TOKEN', or as the password of basic "
                "authentication; `minilog token create` makes one",
                reason=Reason.NO_CREDENTIAL,
            )
        _check(known.principal, need.operation, str(values[need.of]) if need.of else "")
        return known

    def permit(self, principal: Principal, message: Message) -> None:
        """Raises Forbidden. Messages about several partitions are divided (partitions.py)."""
        if principal.is_open:
            return
        need = need_of(message)
        if need is None:
            raise Forbidden(f"a {type(message).__name__} is an answer, and nobody may ask one")
        asker = self.asker(principal, message)
        if asker is not principal:
            principal = principal if need.operation in OF_PROCESSES else asker
        elif need.operation is Operation.ALTER and Role.PEER in principal.roles and _is_own_topic(message):
            return
        if need.own and principal.broker_id != getattr(message, "broker_id", None):
            raise Forbidden(
                f"{_who(principal)} sends a {type(message).__name__} in the name of broker "
                f"{getattr(message, 'broker_id', None)}; a broker speaks for itself only, by its role peer:N"
            )
        if not need.partitions:
            _check(principal, need.operation, str(getattr(message, need.of)) if need.of else "")

    def asker(self, sender: Principal, message: Message) -> Principal:
        """Whose rights count for it: who has sent it, or for whom a broker passes it on (R127).
        Raises Forbidden."""
        name = getattr(message, "principal", "")
        return self._spoken_for(sender, name) if name and not sender.is_open else sender

    def _spoken_for(self, peer: Principal, name: str) -> Principal:
        """A broker says on whose behalf it asks. That one's rights count."""
        if Role.PEER not in peer.roles:
            raise Forbidden(f"{_who(peer)} speaks for {name}; only brokers pass on what others ask for")
        found = self.principals.get(name)
        if found is None:
            raise Forbidden(f"{name} is not in this process's security file; give every process the same one")
        return found


OPEN_POLICY: Final = Policy({}, {})
"""Where there is no security file. Nobody is looked up in it."""


def _is_own_topic(message: Message) -> bool:
    """Brokers make the topic of the groups when it is first needed."""
    return isinstance(message, CreateTopic) and message.topic == GROUPS_TOPIC


def _check(principal: Principal, operation: Operation, name: str) -> None:
    if not principal.may(operation, name):
        raise refusal(principal, operation, name)


def refusal(principal: Principal, operation: Operation, name: str) -> Forbidden:
    if operation in RESOURCES:
        rule = f'allow = ["{operation} {name or "*"}"]'
        what = f"{operation} {RESOURCES[operation]} {name!r}" if name else f"{operation} any {RESOURCES[operation]}"
    elif operation in (Operation.PEER, Operation.CLUSTER, Operation.CONTROLLER):
        rule, what = 'roles = ["peer:N"] or ["controller"]', "speak as a process of the cluster"
    elif operation is Operation.MESSAGE:
        rule, what = "rules in allow", "send messages"
    else:
        rule = 'allow = ["describe"]' if operation is Operation.DESCRIBE else f'roles = ["{operation}"]'
        what = {Operation.ADMIN: "administer", Operation.METRICS: "read the metrics of"}.get(operation, "describe")
        what = f"{what} the cluster"
    return Forbidden(f"{_who(principal)} may not {what}; an operator can allow it in the security file: {rule}")


def _who(principal: Principal) -> str:
    return principal.name or "nobody"
