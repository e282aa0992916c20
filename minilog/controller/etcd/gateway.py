"""etcd's JSON gateway: five calls, one request at a time on one connection, nothing repeated.

Whoever calls knows three things apart. The request was not sent, or was refused before anything
happened: ``NotSent``. It was sent and its outcome is not known: ``Unsure``. It was refused, and
will be again: ``Refused``. The exact moment is the first byte that is handed to the connection.

The standard library's client, because everything here runs in threads and etcd answers in chunks.
It connects only when told to, and repeats nothing.

One etcd, found out on each new connection: its version, and that it belongs to the cluster that was
asked first. Another one may hold the same keys at other revisions, and would be compared with them.
"""

from __future__ import annotations

import base64
import http.client
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import msgspec

from minilog.controller.etcd.access import Access, Endpoint
from minilog.core.controller.shared.transaction import (
    Answer,
    Delete,
    Entry,
    Get,
    NotSent,
    Operation,
    Put,
    Refused,
    Transaction,
    Unsure,
)

log = logging.getLogger("minilog.etcd")

CONNECT_TIMEOUT_S: Final = 1.0
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
OLDEST: Final = (3, 4)
UNSURE_CODES: Final = (1, 2, 4, 10, 13, 14)
"""gRPC: cancelled, unknown, deadline exceeded, aborted, internal, unavailable."""
NOT_NOW: Final = ("too many requests", "no leader", "not ready")
NO_ROOM: Final = "database space exceeded"
STALE_TOKEN: Final = ("invalid auth token", "revision of auth store is old")


class Pin:
    """The etcd cluster that all connections of one process must belong to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cluster_id = ""

    def check(self, cluster_id: str) -> bool:
        with self._lock:
            self._cluster_id = self._cluster_id or cluster_id
            return self._cluster_id == cluster_id


class Gateway:
    """Used by one thread at a time."""

    def __init__(self, access: Access, pin: Pin, known_key: str, timeout_ms: int) -> None:
        """``known_key`` is one that this controller may read."""
        self._access, self._pin, self._known_key = access, pin, known_key
        self._timeout_s = timeout_ms / 1000
        self._at = 0
        self._connection: http.client.HTTPConnection | None = None
        self._token = ""

    @property
    def endpoint(self) -> Endpoint:
        return self._access.endpoints[self._at % len(self._access.endpoints)]

    def run(self, transaction: Transaction, lease: int = 0) -> Answer:
        assert transaction.is_within_limits, "whoever makes a transaction keeps it within etcd's limits"
        body = {
            "compare": [
                {"key": _text(compare.key.encode()), "target": "MOD", "mod_revision": str(compare.mod)}
                for compare in transaction.compares
            ],
            "success": [_operation(one, lease) for one in transaction.then],
            "failure": [_operation(one, lease) for one in transaction.otherwise],
        }
        with self._understanding():
            return self._read(transaction, self.call("/v3/kv/txn", body))

    def grant(self, ttl_s: int) -> int:
        with self._understanding():
            return int(self.call("/v3/lease/grant", {"TTL": ttl_s})["ID"])

    def keep_alive(self, lease: int) -> bool:
        """False when the lease is over."""
        with self._understanding():
            answer = self.call("/v3/lease/keepalive", {"ID": lease})
            return int(answer.get("result", {}).get("TTL", 0)) > 0

    def compact(self, revision: int) -> None:
        with self._understanding():
            self.call("/v3/kv/compaction", {"revision": revision})

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        """What stands between here and etcd may answer anything. Raises Unsure."""
        endpoint = self.endpoint
        try:
            yield
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            self._give_up()
            raise Unsure(f"{endpoint} answers what etcd never does: {error!r}") from error

    # --- one call ---------------------------------------------------------------------------------

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Raises NotSent, Unsure or Refused."""
        if self._connection is None or self._connection.sock is None:
            self._connect()
        return self._exchange("POST", path, body)

    def _connect(self) -> None:
        endpoint = self.endpoint
        connection = self._connection = self._made(endpoint)
        try:
            connection.connect()
        except OSError as error:
            self._give_up()
            _check_certificates(endpoint, error)
            raise NotSent(f"{endpoint} cannot be reached: {_why(error)}") from error
        assert connection.sock is not None
        connection.sock.settimeout(self._timeout_s)
        try:
            self._check_version(self._exchange("GET", "/version", None))
            self._authenticate()
            asked = {"key": _text(self._known_key.encode()), "serializable": True, "keys_only": True}
            self._check_cluster(self._exchange("POST", "/v3/kv/range", asked).get("header", {}))
        except Unsure as error:  # nothing of what the caller wants was sent
            raise NotSent(str(error)) from error
        except Refused:
            self._give_up()
            raise

    def _made(self, endpoint: Endpoint) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=CONNECT_TIMEOUT_S)
        if endpoint.is_tls:
            tls = self._access.tls
            made = http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=CONNECT_TIMEOUT_S, context=tls)
        made.auto_open = False
        return made

    def _check_version(self, told: dict[str, Any]) -> None:
        version = str(told.get("etcdserver", ""))
        numbers = version.split(".")
        if len(numbers) < 2 or not (numbers[0].isdigit() and numbers[1].isdigit()):
            raise Refused(f"{self.endpoint} is no etcd: it does not tell its version")
        if (int(numbers[0]), int(numbers[1])) < OLDEST:
            raise Refused(f"{self.endpoint} is etcd {version}; controllers need 3.4 or newer")

    def _authenticate(self) -> None:
        self._token = ""
        if self._access.user:
            asked = {"name": self._access.user, "password": self._access.password}
            try:
                self._token = str(self._exchange("POST", "/v3/auth/authenticate", asked).get("token", ""))
            except Refused as error:
                if "authentication is not enabled" in str(error):
                    return
                raise Refused(f"etcd does not take etcd_user = {self._access.user!r}: {error}") from error

    def _check_cluster(self, header: dict[str, Any]) -> None:
        cluster_id = str(header.get("cluster_id", ""))
        if not cluster_id or not self._pin.check(cluster_id):
            raise Refused(
                f"{self.endpoint} belongs to another etcd cluster than the one that this controller has begun with; "
                "etcd_urls must name members of one cluster"
            )

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        connection = self._connection
        assert connection is not None
        headers = {"Content-Type": "application/json"} | ({"Authorization": self._token} if self._token else {})
        try:
            connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
            response = connection.getresponse()
            content = response.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            endpoint = self.endpoint
            self._give_up()
            _check_certificates(endpoint, error)
            raise Unsure(f"{endpoint} did not answer: {_why(error)}") from error
        try:
            answer = msgspec.json.decode(content, type=dict)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            endpoint = self.endpoint
            self._give_up()
            raise Unsure(f"{endpoint} answers what is no JSON (status {response.status})") from error
        if response.status != 200 or "error" in answer:
            self._fail(response.status, answer)
        return answer

    def _fail(self, status: int, answer: dict[str, Any]) -> NoReturn:
        told = answer.get("error", answer)
        code = int(answer.get("code", 2)) if not isinstance(told, dict) else int(told.get("grpc_code", 2))
        message = str(told.get("message", told) if isinstance(told, dict) else told)
        endpoint = self.endpoint
        if any(words in message for words in STALE_TOKEN):
            self.close()  # the next connection shows who it is anew
            raise NotSent(f"{endpoint}: {message}")
        if NO_ROOM in message:
            raise Refused(
                f"etcd has no room: {message}. Compact and defragment it, or raise its --quota-backend-bytes, and then "
                "disarm its alarm (etcdctl alarm disarm)"
            )
        if any(words in message for words in NOT_NOW):
            self._give_up()
            raise NotSent(f"{endpoint}: {message}")
        if code in UNSURE_CODES:
            self._give_up()
            raise Unsure(f"{endpoint}: {message}")
        if "permission denied" in message:
            raise Refused(
                f"etcd_user = {self._access.user!r} may not do that: {message}. Its role must have readwrite on etcd_prefix"
            )
        raise Refused(f"{endpoint} refuses (status {status}): {message}")

    def _give_up(self) -> None:
        """The next call goes to the next endpoint."""
        self.close()
        self._at += 1

    def _read(self, transaction: Transaction, answer: dict[str, Any]) -> Answer:
        header = answer.get("header", {})
        self._check_cluster(header)
        succeeded = bool(answer.get("succeeded", False))
        asked = transaction.then if succeeded else transaction.otherwise
        told = answer.get("responses", [])
        found = [
            [_entry(kv) for kv in one.get("response_range", {}).get("kvs", [])]
            for operation, one in zip(asked, told, strict=True)
            if isinstance(operation, Get)
        ]
        return Answer(succeeded, int(header["revision"]), found)


def _operation(operation: Operation, lease: int) -> dict[str, Any]:
    match operation:
        case Put(key, value, is_leased):
            put: dict[str, Any] = {"key": _text(key.encode()), "value": _text(value)}
            return {"request_put": put | ({"lease": str(lease)} if is_leased else {})}
        case Delete(key, end):
            return {"request_delete_range": _range(key, end)}
        case Get(key, end, limit, keys_only):
            asked = _range(key, end) | {"limit": str(limit), "keys_only": keys_only}
            return {"request_range": asked | {"sort_order": "ASCEND", "sort_target": "KEY"}}


def _range(key: str, end: str) -> dict[str, Any]:
    asked = {"key": _text(key.encode())}
    return asked | {"range_end": _text(end.encode())} if end else asked


def _entry(kv: dict[str, Any]) -> Entry:
    key = base64.b64decode(kv["key"]).decode("utf-8", "replace")
    return Entry(key, base64.b64decode(kv.get("value", "")), int(kv["mod_revision"]))


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _check_certificates(endpoint: Endpoint, error: Exception) -> None:
    """One that is not believed now will not be later. Nothing was carried out."""
    if isinstance(error, ssl.SSLError) and "certificate" in str(error).lower():
        raise Refused(
            f"{endpoint} and this controller do not believe each other's certificates: {_why(error)}; look at "
            "etcd_ca_file, etcd_cert_file and the names in etcd's certificate"
        ) from error


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
