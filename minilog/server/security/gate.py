"""The gate of a process: the one place between routing and handlers. It asks ``core/access`` and
does what only a process can: it watches the security file and the certificates, ends what is
withdrawn, counts, and writes the audit log.

A file that is broken when it changes keeps the last good one in force. That is counted and logged:
an editor's half-written file must not lock everybody out, nor let anybody in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web

from minilog.config import BrokerSettings, ControllerSettings, cors_origins
from minilog.core.access.failed_logins import FailedLogins
from minilog.core.access.own_names import OwnNames
from minilog.core.access.partitions import Refused
from minilog.core.access.policy import OPEN_POLICY, OPEN_TO_ALL, Known, Policy, Shown, digest_of
from minilog.core.access.principal import NOBODY, OPEN, Principal, Role
from minilog.core.access.rates import Rates
from minilog.core.access.reason import OF_LOGINS, Reason
from minilog.errors import Forbidden, InvalidRequest, MinilogError, RefusesToStart, Throttled, Unauthenticated
from minilog.security_file import read_private, read_security
from minilog.server import process
from minilog.server.inbound.accepted_connection import Connection
from minilog.server.outbound.peer_credential import PeerCredential
from minilog.server.security.answer_headers import rate_headers
from minilog.server.security.audit import Audit
from minilog.server.security.credential import certificate_names, refuse_token_in, shown_token
from minilog.server.security.exposure import is_loopback, own_names
from minilog.server.security.own_credentials import Lasting, conditions, held_by
from minilog.server.security.tls import Tls, TlsFiles
from minilog.server.security.watched_files import Signs, signs_of
from minilog.wire.message_base import Message
from minilog.wire.needs import Need, Operation
from minilog.wire.peer_messages import Condition

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
        self._failed_logins = FailedLogins(settings.failed_logins_per_minute_max)
        self.refusals = Counter[str](dict.fromkeys(Reason, 0))
        self.file_errors = 0
        self.is_file_broken = False
        """What was read last could not be used, and the one before it is in force."""
        self.held: dict[str, Lasting] = {}
        """What this process shows of itself, by kind."""
        self._told_conditions: set[str] = set()
        self.on_conditions: Callable[[list[Condition]], None] = lambda found: None
        """Is told every second what is wrong with them."""
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

    def check_target(self, request: web.BaseRequest) -> None:
        """Before it is looked up, or written anywhere. Raises InvalidRequest."""
        try:
            refuse_token_in(request.raw_path)
        except InvalidRequest as error:
            self._refused(error, request, path="(left out)")
            raise

    def admit(self, request: web.BaseRequest, need: Need, values: Mapping[str, Any]) -> Known:
        """Who asks. Raises Unauthenticated, Forbidden or Throttled. Call ``leave`` when the request
        is over."""
        try:
            if need.operation is Operation.PUBLIC:
                return Known(NOBODY)
            self._check_names(request)
            if self.is_open:
                return OPEN_TO_ALL
            known = self._known_by(request, need, values)
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

    def asker(self, request: web.BaseRequest, sender: Principal, message: Message) -> Principal:
        """Whose rights count. Raises Forbidden."""
        try:
            return self.policy.asker(sender, message)
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

    def _known_by(self, request: web.BaseRequest, need: Need, values: Mapping[str, Any]) -> Known:
        try:
            shown = self._shown(request)
            self._check_line(request, shown)
            return self.policy.admit(shown, need, values, _now_ms())
        except Unauthenticated as error:
            if error.info.get("reason") in OF_LOGINS:
                self._note_failed_login(request)
            raise

    def _shown(self, request: web.BaseRequest) -> Shown:
        transport = request.transport
        certificate = None if transport is None else transport.get_extra_info("peercert")
        return Shown(shown_token(request.headers.get("Authorization")), certificate_names(certificate))

    def _check_line(self, request: web.BaseRequest, shown: Shown) -> None:
        """A token that came in plain text was read by whoever sees the network."""
        allowed = self._settings.tokens_without_tls
        if not shown.token or allowed == "always":
            return
        transport = request.transport
        if transport is not None and transport.get_extra_info("sslcontext") is not None:
            return
        if allowed == "never" or not is_loopback(request.remote or ""):
            raise Forbidden(
                "a token came over a connection without TLS, where others can read it: withdraw that token, and use "
                f"https:// (tokens_without_tls = {allowed})",
                reason=Reason.WITHOUT_TLS,
            )

    def _note_failed_login(self, request: web.BaseRequest) -> None:
        """Raises Throttled where there were too many."""
        wait_ms = self._failed_logins.fail(request.remote or "", _steady_ms())
        if wait_ms:
            raise Throttled(
                f"too many credentials that are nobody's came from {_from(request)}; wait {-(-wait_ms // 1000)} s; one "
                "that is somebody's is taken at any time",
                retry_after_ms=wait_ms,
                reason=Reason.FAILED_LOGINS,
            )

    def _check_peer(self, known: Known) -> None:
        if self._settings.peer_tls != "required" or known.digest is None:
            return
        if known.principal.roles & {Role.PEER, Role.CONTROLLER}:
            raise Unauthenticated(
                f"{known.principal.name} is a process of the cluster and shows a token; this process takes certificates "
                "of such only (peer_tls = required)",
                reason=Reason.NEEDS_CERTIFICATE,
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
                reason=Reason.QUOTA,
            )

    def note_refusals(self, request: web.BaseRequest, message: Message, refused: Refused) -> None:
        """Of a message's partitions, each of which is answered for itself."""
        first = next((one.problem for one in refused.values() if one.problem is not None), None)
        if first is not None:
            self.refusals[Reason.NOT_ALLOWED] += len(refused) - 1
            self._refused(first.error(), request, type(message).__name__)

    def _refused(self, error: MinilogError, request: web.BaseRequest, message: str = "", path: str = "") -> None:
        reason = str(error.info.get("reason", Reason.NOT_ALLOWED))
        self.refusals[reason] += 1
        facts = {"at": _from(request), "code": error.code, "reason": reason, "why": error.detail}
        if message:
            facts["message"] = message
        self._audit.note("refused", method=request.method, path=path or request.path, **facts)

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
                    self.is_file_broken = True
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
        self._tell_conditions(now_ms)
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
            self.is_file_broken = True
            log.error("what was read before stays in force: %s", error)
            return
        self._beats_left = 0
        self.is_file_broken = False
        log.info("credentials and certificates are read again")

    def _tell_conditions(self, now_ms: int) -> None:
        found = conditions(self.held, now_ms)
        for condition in found:
            if condition.kind not in self._told_conditions:
                level = logging.WARNING if condition.is_warning else logging.ERROR
                log.log(level, "%s; %s", condition.sentence, condition.next_step)
        self._told_conditions = {condition.kind for condition in found}
        self.on_conditions(found)

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
        policy = self.policy if read is None else read.policy
        self.held = held_by(self.tls.files, settings.token_file, policy.credentials.get(digest_of(token)))
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


def _now_ms() -> int:
    return int(time.time() * 1000)


def _steady_ms() -> int:
    return int(time.monotonic() * 1000)


def _from(request: web.BaseRequest) -> str:
    return request.remote or "an unknown address"
