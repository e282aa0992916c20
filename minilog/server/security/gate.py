"""The gate of a process: the one place between routing and handlers. It asks ``core/access`` and
does what only a process can: it watches the security file and the certificates, ends what is
withdrawn, counts, and writes the audit log.

A file that is broken when it changes keeps the last good one in force. That is counted and logged:
an editor's half-written file must not lock everybody out, nor let anybody in.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from minilog.config import BrokerSettings, ControllerSettings, cors_origins
from minilog.core.access.own_names import OwnNames
from minilog.core.access.policy import OPEN_POLICY, OPEN_TO_ALL, Known, Policy, Shown
from minilog.core.access.principal import NOBODY, OPEN, Principal, Role
from minilog.core.access.rates import Rates, Standing
from minilog.errors import MinilogError, RefusesToStart, Throttled, Unauthenticated
from minilog.security_file import read_private, read_security
from minilog.server import process
from minilog.server.inbound.accepted_connection import Connection
from minilog.server.outbound.peer_credential import PeerCredential
from minilog.server.security.audit import Audit
from minilog.server.security.credential import certificate_names, shown_token
from minilog.server.security.tls import Tls, TlsFiles
from minilog.server.security.watched_files import Signs, signs_of
from minilog.wire.message_base import Message
from minilog.wire.needs import Need, Operation

log = logging.getLogger("minilog.security")
Settings = BrokerSettings | ControllerSettings
BEAT_S: Final = 1.0
BEATS_TO_RETRY: Final = 10
"""Until files are read again of which one could not be read. It may be the same file as before."""
REMEMBERED_HOSTS_MAX: Final = 256
_ACTS: Final = (Operation.ALTER, Operation.ADMIN)
"""What the audit log tells also when it is allowed."""


class Gate:
    """Made before the process listens. Raises BadSettings, as the process then refuses to start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = OwnNames(own_names(settings), frozenset(cors_origins(getattr(settings, "cors_origins", ""))))
        self._own: set[tuple[str | None, str | None]] = set()
        """Hosts and origins that were found to be allowed."""
        self.policy: Policy = OPEN_POLICY
        self.token = ""
        """What this process shows its peers."""
        self.tls = Tls(TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file))
        self._rates = Rates()
        self._audit = Audit(time.monotonic)
        self._present: dict[int, tuple[web.BaseRequest, Known]] = {}
        """By the identity of the request, which has no hash."""
        self.refusals: Counter[str] = Counter({"UNAUTHENTICATED": 0, "FORBIDDEN": 0, "THROTTLED": 0})
        self.file_errors = 0
        self._hangup = asyncio.Event()
        self._signs = self._look()
        self._beats_left = 0
        """Until what could not be read is tried again; 0: all was read."""
        self._read()

    @property
    def is_open(self) -> bool:
        """There is no security file: whoever gets here may do everything."""
        return not self._settings.security_file

    # --- one request ------------------------------------------------------------------------------

    def admit(self, request: web.BaseRequest, need: Need, values: Mapping[str, Any]) -> Known:
        """Who asks. Raises Unauthenticated, Forbidden or Throttled. Call ``leave`` when the request
        is over."""
        try:
            if need.operation is Operation.PUBLIC:
                return Known(NOBODY)
            self._check_names(request)
            if self.is_open:
                return OPEN_TO_ALL
            known = self.policy.admit(self._shown(request), need, values, _now_ms())
            self._check_peer(known)
            self._check_rate(known.principal, request)
        except MinilogError as error:
            self._refused(error, request)
            raise
        self._present[id(request)] = request, known
        return known

    def leave(self, request: web.BaseRequest, answer: web.StreamResponse | None) -> None:
        present = self._present.pop(id(request), None)
        if present is None:
            return
        known = present[1]
        size = request.content_length or 0
        if answer is not None:
            size += max(answer.content_length or 0, request.writer.output_size)
        self._rates.spend(known.principal, size, _steady_ms())

    def principal_of(self, request: web.BaseRequest) -> Principal:
        """Whom ``admit`` has found."""
        known = self._known(request)
        return OPEN if known is None and self.is_open else NOBODY if known is None else known.principal

    def _known(self, request: web.BaseRequest) -> Known | None:
        present = self._present.get(id(request))
        return None if present is None else present[1]

    def as_peer(self) -> PeerCredential:
        """What this process shows its peers now."""
        return PeerCredential(self.token, self.tls.client)

    def permit(self, request: web.BaseRequest, principal: Principal, message: Message) -> None:
        """Raises Forbidden."""
        try:
            self.policy.permit(principal, message)
        except MinilogError as error:
            self._refused(error, request, type(message).__name__)
            raise

    def note_act(self, request: web.BaseRequest, principal: Principal, operation: Operation, what: str) -> None:
        """Something was asked for, and allowed. What changes the cluster is told."""
        if operation in _ACTS and request.method != "GET" and not principal.is_open:
            self._audit.note("allowed", principal=principal.name, at=_from(request), what=what, path=request.path)

    def headers(self, request: web.BaseRequest) -> dict[str, str]:
        """Of the quota of who has asked."""
        known = self._known(request)
        if known is None or not any(known.principal.quota):
            return {}
        standing = self._rates.look(known.principal, _steady_ms())
        return {} if standing is None else rate_headers(standing)

    def _check_names(self, request: web.BaseRequest) -> None:
        seen = request.headers.get("Host"), request.headers.get("Origin")
        if seen in self._own:
            return
        self._names.check(*seen)
        if len(self._own) >= REMEMBERED_HOSTS_MAX:
            self._own.clear()
        self._own.add(seen)

    def _shown(self, request: web.BaseRequest) -> Shown:
        transport = request.transport
        certificate = None if transport is None else transport.get_extra_info("peercert")
        return Shown(shown_token(request.headers.get("Authorization")), certificate_names(certificate))

    def _check_peer(self, known: Known) -> None:
        if self._settings.peer_tls != "required" or known.digest is None:
            return
        if known.principal.roles & {Role.PEER, Role.CONTROLLER}:
            raise Unauthenticated(
                f"{known.principal.name} is a process of the cluster and shows a token; this process takes certificates "
                "of such only (peer_tls = required)"
            )

    def _check_rate(self, principal: Principal, request: web.BaseRequest) -> None:
        if not any(principal.quota):
            return
        standing = self._rates.arrive(principal, _steady_ms())
        if standing is not None and standing.wait_ms:
            raise Throttled(
                f"{principal.name} has used up its {standing.limit} {standing.unit} a second; wait "
                f"{standing.wait_ms} ms, or ask an operator for a larger {standing.unit}_per_second",
                retry_after_ms=standing.wait_ms,
                limit=standing.limit,
                unit=standing.unit,
            )

    def _refused(self, error: MinilogError, request: web.BaseRequest, message: str = "") -> None:
        self.refusals[error.code] += 1
        facts = {"at": _from(request), "code": error.code, "why": error.detail}
        if message:
            facts["message"] = message
        self._audit.note("refused", method=request.method, path=request.path, **facts)

    # --- what changes meanwhile -------------------------------------------------------------------

    async def watch(self) -> None:
        """Until it is cancelled."""
        process.on_hangup.add(self._hangup.set)
        try:
            while True:
                is_asked = False
                try:
                    async with asyncio.timeout(BEAT_S):
                        is_asked = await self._hangup.wait()
                except TimeoutError:
                    pass
                self._hangup.clear()
                try:
                    self.beat(is_asked=is_asked)
                except Exception:  # a watcher that has ended withdraws nothing any more
                    self.file_errors += 1
                    log.exception("the look at credentials and certificates has failed; the next one is in a second")
        finally:
            process.on_hangup.discard(self._hangup.set)

    def beat(self, *, is_asked: bool = False) -> None:
        """Look at the files, and end what is withdrawn or expired."""
        signs = self._look()
        self._beats_left = max(0, self._beats_left - 1)
        if is_asked or signs != self._signs or self._beats_left == 1:
            self._signs = signs
            self._read_again()
        now_ms = _now_ms()
        for request, known in list(self._present.values()):
            if not self.policy.holds(known, now_ms):
                self._end(request, known)

    def _read_again(self) -> None:
        """What was withdrawn while it could not be read is withdrawn as soon as it can be."""
        self._beats_left = BEATS_TO_RETRY + 1
        try:
            self._read()
        except RefusesToStart as error:
            self.file_errors += 1
            log.error("what was read before stays in force: %s", error)
            return
        self._beats_left = 0
        log.info("credentials and certificates are read again")

    def _look(self) -> Signs:
        settings = self._settings
        paths = [path for path in (settings.security_file, settings.token_file, *self.tls.files.paths) if path]
        return signs_of(paths)

    def _read(self) -> None:
        """All or nothing. Raises BadSettings."""
        settings = self._settings
        read = read_security(settings.security_file) if settings.security_file else None
        token = read_token(settings.token_file) if settings.token_file else ""
        if settings.tls_key_file:
            read_private(settings.tls_key_file)
        self.tls.load_again()
        self.token = token
        if read is None:
            return
        for warning in read.warnings:
            log.warning("%s", warning)
        if self.policy is not OPEN_POLICY:
            for act, name, digest in changes(self.policy, read.policy):
                self._audit.note(act, principal=name, sha256=digest)
        self.policy = read.policy

    def _end(self, request: web.BaseRequest, known: Known) -> None:
        """Reads end at once. What may change something is answered, and its like is refused."""
        connection = request.protocol
        is_read = request.method in ("GET", "HEAD") or (isinstance(connection, Connection) and connection.ends_with_it)
        if is_read and request.transport is not None:
            self._audit.note("ended", principal=known.principal.name, at=_from(request), path=request.path)
            request.transport.close()


def read_token(path: str) -> str:
    """Raises BadSettings."""
    token = read_private(path).decode("ascii", "replace").strip()
    try:
        return shown_token(f"Bearer {token}")
    except Unauthenticated:
        raise RefusesToStart(f"{path} holds no token; it must hold one, on one line") from None


def own_names(settings: Settings) -> frozenset[str]:
    """By which this process may be asked."""
    named = [settings.host, socket.gethostname(), *(name.strip() for name in settings.host_names.split(","))]
    told = getattr(settings, "advertised_url", "")
    if told:
        named.append(urlsplit(told).hostname or "")
    return frozenset(name.lower().rstrip(".") for name in named if name)


def changes(old: Policy, new: Policy) -> list[tuple[str, str, str]]:
    """(what, whose, beginning of the digest) of credentials that have come and gone, and of
    principals whose rights are others. Pure."""
    come = [
        ("added", new.credentials[one].principal, one.hex()[:8]) for one in new.credentials.keys() - old.credentials
    ]
    gone = [
        ("withdrawn", old.credentials[one].principal, one.hex()[:8]) for one in old.credentials.keys() - new.credentials
    ]
    both = [name for name in old.principals if name in new.principals and old.principals[name] != new.principals[name]]
    return [*sorted(come), *sorted(gone), *(("changed", name, "") for name in sorted(both))]


def rate_headers(standing: Standing) -> dict[str, str]:
    """As the IETF's draft on RateLimit headers has them."""
    reset_s = -(-standing.wait_ms // 1000) or 1
    return {
        "RateLimit-Policy": f'"{standing.unit}";q={standing.limit};w=1',
        "RateLimit": f'"{standing.unit}";r={standing.left};t={reset_s}',
    }


def check_listener(settings: Settings, address: str, role: str) -> None:
    """Raises RefusesToStart where strangers could do everything and nobody has said that they
    may."""
    if settings.security_file or is_loopback(address):
        return
    if not settings.insecure:
        raise RefusesToStart(
            f"{role} would listen on {address}, which other machines reach, and there is no security file: whoever "
            "connects could read, change and delete everything. `minilog token create NAME --file security.toml "
            "--allow ...` begins one, and security_file names it. On a network where everybody may do everything "
            "say insecure = true"
        )
    log.warning(
        "%s listens on %s without a security file (insecure = true): whoever connects can read, change and delete everything",
        role,
        address,
    )


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _now_ms() -> int:
    return int(time.time() * 1000)


def _steady_ms() -> int:
    return int(time.monotonic() * 1000)


def _from(request: web.BaseRequest) -> str:
    return request.remote or "an unknown address"
