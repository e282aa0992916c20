"""What the commands ask a cluster over HTTP: metadata and admin, in JSON, with nothing but the standard library.

Records travel through ``minilog_client``; this stays small so that ``minilog topic list`` starts quickly.
Every error is the typed one the server reported, or BrokerUnavailable naming every URL that was tried.
"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import typer

from minilog.cli.output import CliError, ExitCode
from minilog.errors import BrokerUnavailable, MinilogError, TimedOut
from minilog.wire.http import JSON, error_from_response
from minilog.wire.messages import FailoverInfo, MetadataReply, TopicInfo
from minilog.wire.routes import BY_NAME, path_of

DEFAULT_URL = "http://127.0.0.1:8082"
TIMEOUT_S = 10.0
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
    for one in url.split(","):
        parts = urlsplit(one.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CliError(f"--url {one!r} is not a URL; write http://host:port", ExitCode.USAGE)
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
    """One cluster, named by the URLs of one or more of its brokers; the first that answers is asked."""

    def __init__(self, url: str | None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = resolve_url(url)
        self.timeout_s = timeout_s

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
        """The body of a success. Raises the server's MinilogError, BrokerUnavailable or TimedOut."""
        data = msgspec.json.encode(body) if body is not None else None
        path = path_of(route, query, **values)
        refusals = []
        for base in self.url.split(","):
            request = urllib.request.Request(base.strip().rstrip("/") + path, data, method=BY_NAME[route].method)
            request.add_header("Accept", JSON)
            if data is not None:
                request.add_header("Content-Type", JSON)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                raise error_from_response(error.code, dict(error.headers.items()), error.read()) from None
            except TimeoutError:
                refusals.append(f"{base}: no answer in {self.timeout_s:.0f} s")
                if data is not None:
                    raise TimedOut(f"{base} did not answer in {self.timeout_s:.0f} s; it may still happen") from None
            except (OSError, http.client.HTTPException) as error:
                refusals.append(f"{base}: {_reason(error)}")
        raise BrokerUnavailable(
            f"cannot reach {'; '.join(refusals)}. Is a cluster running? `minilog dev up` starts one, "
            "--url or MINILOG_URL names another",
            definite=True,
        )


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__
