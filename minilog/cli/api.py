"""What the commands ask a cluster over HTTP: metadata and admin, in JSON, with nothing but the standard library.

Records travel through ``minilog_client``; this stays small so that ``minilog topic list`` starts quickly.
Every error is the typed one the server reported, or BrokerUnavailable naming every URL that was tried.

Only what changes nothing is asked of the next broker when an answer does not come. A change is sent once, to a broker
that has shown that it answers; when its answer does not come it may have happened, and the error says so (``definite``).
"""

from __future__ import annotations

import os
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import typer

from minilog.cli.output import CliError, ExitCode
from minilog.cli.request import Unanswered, send
from minilog.config import ascii_url
from minilog.errors import BrokerUnavailable, MinilogError, TimedOut
from minilog.wire.http import JSON
from minilog.wire.messages import FailoverInfo, MetadataReply, TopicInfo
from minilog.wire.routes import BY_NAME, path_of

DEFAULT_URL = "http://127.0.0.1:8082"
TIMEOUT_S = 10.0
SHORT_TIMEOUT_S = 3.0
"""For a broker that may be frozen while there are others to ask."""
SAFE = ("GET", "HEAD")
CLOCK_SLACK_MS = 50

UrlOption = Annotated[
    str | None,
    typer.Option("--url", "-u", envvar="MINILOG_URL", help="Brokers, separated by commas.", show_envvar=True),
]
T = TypeVar("T")


def resolve_url(url: str | None) -> str:
    """What was given, or the brokers of the default dev cluster, or the default port. Raises CliError (usage)."""
    if url is None:
        return _dev_url() or DEFAULT_URL
    return ",".join(_checked(one) for one in url.split(","))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise CliError(f"--url {url!r} is not a URL; write http://host:port", ExitCode.USAGE)
        ascii_url(url.strip())
    except ValueError as error:
        raise CliError(f"--url {url!r} is not a URL: {error}; write http://host:port", ExitCode.USAGE) from None
    return url


def _dev_url() -> str | None:
    from minilog.cli.devcluster import DEV_FILE, DevCluster, default_folder

    if "MINILOG_URL" in os.environ or not (default_folder() / DEV_FILE).exists():
        return None
    cluster = DevCluster.open(default_folder())
    return cluster.url if cluster.alive() else None


class _Offset(msgspec.Struct):
    offset: int


class _Failovers(msgspec.Struct):
    failovers: list[FailoverInfo]


class Api:
    """One cluster, named by the URLs of one or more of its brokers."""

    def __init__(self, url: str | None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = resolve_url(url)
        self.timeout_s = timeout_s
        self._urls = [ascii_url(one.strip()).rstrip("/") for one in self.url.split(",")]
        self._answered = ""
        """The URL that answered last: it is asked first."""

    def metadata(self, topics: list[str] | None = None) -> MetadataReply:
        query = {"topics": ",".join(topics)} if topics else {}
        return self.get("metadata", MetadataReply, query)

    def create_topic(self, name: str, partitions: int, replicas: int, config: dict[str, str]) -> TopicInfo:
        """0 partitions or replicas: the cluster's default."""
        body: dict[str, Any] = {"topic": name, "config": config}
        if partitions:
            body["partitions"] = partitions
        if replicas:
            body["replication_factor"] = replicas
        return msgspec.json.decode(self.call("create_topic", body=body), type=TopicInfo)

    def add_partitions(self, name: str, partitions: int) -> None:
        self.call("alter_topic", body={"partitions": partitions}, topic=name)

    def delete_topic(self, name: str) -> None:
        self.call("delete_topic", topic=name)

    def start_offset(self, topic: str, partition: int) -> int:
        """The oldest offset that can still be read."""
        return self.get("offsets", _Offset, {"at": "earliest"}, topic=topic, partition=partition).offset

    def end_offset(self, topic: str, partition: int) -> int:
        """The high watermark: where what can be read ends."""
        return self.get("offsets", _Offset, {"at": "latest"}, topic=topic, partition=partition).offset

    def failovers(self) -> list[FailoverInfo]:
        """The losses of brokers the controller remembers, oldest first."""
        return self.get("failovers", _Failovers).failovers

    def failover_of(self, broker: int, killed_ms: float) -> FailoverInfo | None:
        """The controller's account of a broker's death at ``killed_ms`` (wall clock), once it is complete."""
        try:
            told = self.failovers()
        except MinilogError:
            return None
        for info in reversed(told):
            if info.broker_id == broker and info.detected_ms >= killed_ms - CLOCK_SLACK_MS:
                return info if info.published_ms is not None else None
        return None

    def get(self, route: str, cls: type[T], query: dict[str, str] | None = None, **values: str | int) -> T:
        return msgspec.json.decode(self.call(route, query, **values), type=cls)

    def call(self, route: str, query: dict[str, str] | None = None, body: Any = None, **values: str | int) -> bytes:
        """The body of a success. Raises the server's MinilogError; BrokerUnavailable or TimedOut: not ``definite``
        if it may have happened."""
        data = msgspec.json.encode(body) if body is not None else None
        method, path = BY_NAME[route].method, path_of(route, query, **values)
        headers = {"Accept": JSON} if data is None else {"Accept": JSON, "Content-Type": JSON}
        if method not in SAFE and not self._answered and len(self._urls) > 1:
            self._find_one_that_answers()
        failures = []
        known, urls = self._answered, self._in_order()
        for base in urls:
            is_patient = method not in SAFE or base in (known, urls[-1])
            timeout_s = self.timeout_s if is_patient else min(self.timeout_s, SHORT_TIMEOUT_S)
            try:
                return self._ask(base, path, method, timeout_s, data, headers)
            except Unanswered as failure:
                if failure.was_sent and method not in SAFE:
                    raise _may_have_happened(base, failure) from None
                failures.append(f"{base}: {failure.reason}")
        raise _unreachable(failures)

    def _in_order(self) -> list[str]:
        first = [self._answered] if self._answered else []
        return first + [base for base in self._urls if base != self._answered]

    def _ask(self, base: str, path: str, method: str, timeout_s: float, *request: Any) -> bytes:
        """As ``send``; a refusal is an answer, too."""
        try:
            answer = send(base + path, method, timeout_s, *request)
        except MinilogError:
            self._answered = base
            raise
        self._answered = base
        return answer

    def _find_one_that_answers(self) -> None:
        """So that a change is not entrusted to a frozen broker. Raises BrokerUnavailable: then nothing was sent."""
        failures = []
        for base in self._urls:
            try:
                self._ask(base, path_of("healthz"), "GET", min(self.timeout_s, SHORT_TIMEOUT_S))
            except Unanswered as failure:
                failures.append(f"{base}: {failure.reason}")
                continue
            except MinilogError:
                pass
            return
        raise _unreachable(failures)


def _may_have_happened(base: str, failure: Unanswered) -> MinilogError:
    cls = TimedOut if failure.is_late else BrokerUnavailable
    detail = f"{base}: {failure.reason}; the request was sent, so it may have happened: look before you repeat it"
    return cls(detail, definite=False)


def _unreachable(failures: list[str]) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"cannot reach {'; '.join(failures)}. Is a cluster running? `minilog dev up` starts one, "
        "--url or MINILOG_URL names another",
        definite=True,
    )
