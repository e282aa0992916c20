"""What the commands ask a cluster over HTTP: metadata and admin, in JSON, with nothing but the
standard library.

Records travel through ``minilog_client``. This stays small so that ``minilog topic list`` starts
quickly. Every error is the typed one the server reported, or BrokerUnavailable naming every URL
that was tried.

Only what changes nothing is asked of the next broker when an answer does not come. A change is sent
once, to a broker that has shown that it answers, one that is ready if there is one. When its answer
does not come it may have happened, and the error says so (``definite``). A broker that says that it
is not the one to ask now, and that nothing was done, is answered by asking the next.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import typer

from minilog.cli import access
from minilog.cli.output import CliError, ExitCode
from minilog.cli.request import Unanswered, send
from minilog.config import ascii_url
from minilog.errors import BrokerUnavailable, LeaderNotAvailable, MinilogError, Overloaded, TimedOut
from minilog.wire.http import JSON, without_secrets
from minilog.wire.json.json_answers import ElectionInfo, FailoverList, OffsetFound
from minilog.wire.json.lever_answers import LeadersBalanced, MovesBegun, MovesPlanned, MovesUnderWay, TopicAltered
from minilog.wire.messages import FailoverInfo, MetadataReply, TopicInfo
from minilog.wire.routes import BY_NAME, path_of

if TYPE_CHECKING:
    from minilog_client.credential import Credential

DEFAULT_URL = "http://127.0.0.1:8082"
TIMEOUT_S = 10.0
SHORT_TIMEOUT_S = 3.0
"""For a broker that may be frozen while there are others to ask."""
SAFE = ("GET", "HEAD")
ASK_ANOTHER = (LeaderNotAvailable, Overloaded)
"""What one broker refuses for reasons of its own, as that it recovers: another may well do it."""
CLOCK_SLACK_MS = 50

UrlOption = Annotated[
    str | None,
    typer.Option("--url", "-u", envvar="MINILOG_URL", help="Brokers, separated by commas.", show_envvar=True),
]
T = TypeVar("T")


def resolve_url(url: str | None) -> str:
    """What was given, or the brokers of the default dev cluster, with its keys unless others are
    named, or the default port. Raises CliError (usage)."""
    if url is None:
        return _dev_url() or DEFAULT_URL
    return ",".join(_checked(one) for one in url.split(","))


def _checked(url: str) -> str:
    seen = without_secrets(url)
    try:
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise CliError(f"--url {seen!r} is not a URL; write http://host:port", ExitCode.USAGE)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise CliError(
                f"--url {seen!r} has more in it than an address; write http://host:port. --token-file names your token",
                ExitCode.USAGE,
            )
        ascii_url(url.strip())
    except ValueError as error:
        raise CliError(f"--url {seen!r} is not a URL: {error}; write http://host:port", ExitCode.USAGE) from None
    return url


def _dev_url() -> str | None:
    from minilog.cli.local.cluster import DEV_FILE, DevCluster, default_folder

    if "MINILOG_URL" in os.environ or not (default_folder() / DEV_FILE).exists():
        return None
    cluster = DevCluster.open(default_folder())
    if not cluster.alive():
        return None
    access.use_by_default(cluster.keyring.environment if cluster.keyring is not None else {})
    return cluster.url


class _Done(msgspec.Struct):
    """What a change is answered with is an object; which members it has is of no interest here."""


class Api:
    """One cluster, named by the URLs of one or more of its brokers."""

    def __init__(self, url: str | None, timeout_s: float = TIMEOUT_S, credential: Credential | None = None) -> None:
        """``credential`` None: what options and the environment name."""
        self.url = resolve_url(url)
        self._credential = credential
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
        return self._understood(self.call("create_topic", body=body), TopicInfo, definite=False)

    def add_partitions(self, name: str, partitions: int) -> None:
        self.change("alter_topic", body={"partitions": partitions}, topic=name)

    def configure_topic(self, name: str, config: dict[str, str | None], *, dry_run: bool) -> TopicAltered:
        """None: as by default."""
        body = {"config": config, "dry_run": dry_run}
        return self._understood(self.call("alter_topic", body=body, topic=name), TopicAltered, definite=dry_run)

    def balance_leaders(self, topics: list[str], *, dry_run: bool) -> LeadersBalanced:
        body = {"topics": topics, "dry_run": dry_run}
        return self._understood(self.call("balance_leaders", body=body), LeadersBalanced, definite=dry_run)

    def move_replicas(self, moves: list[dict[str, Any]], *, dry_run: bool) -> MovesBegun:
        """All of them, or none."""
        body = {"moves": moves, "dry_run": dry_run}
        return self._understood(self.call("move_replicas", body=body), MovesBegun, definite=dry_run)

    def plan_moves(self, wanted: dict[str, Any]) -> MovesPlanned:
        """What would have to move. Nothing does."""
        return self._understood(self.call("plan_moves", body=wanted), MovesPlanned, definite=True)

    def list_moves(self) -> MovesUnderWay:
        return self.get("list_moves", MovesUnderWay)

    def election(self, topic: str, partition: int) -> ElectionInfo:
        return self.get("describe_election", ElectionInfo, topic=topic, partition=partition)

    def elect_leader(self, topic: str, partition: int, leader: int | None, longest: int) -> ElectionInfo:
        """Uncleanly: what the new leader lacks is given up. ``longest``: whom a person was shown,
        who named none."""
        body = {"unclean": True, **({"expected": longest} if leader is None else {"leader": leader})}
        answer = self.call("elect_leader", body=body, topic=topic, partition=partition)
        return self._understood(answer, ElectionInfo, definite=False)

    def delete_topic(self, name: str) -> None:
        self.change("delete_topic", topic=name)

    def start_offset(self, topic: str, partition: int) -> int:
        """The oldest offset that can still be read."""
        return self.get("offsets", OffsetFound, {"at": "earliest"}, topic=topic, partition=partition).offset

    def end_offset(self, topic: str, partition: int) -> int:
        """The high watermark: where what can be read ends."""
        return self.get("offsets", OffsetFound, {"at": "latest"}, topic=topic, partition=partition).offset

    def failovers(self) -> list[FailoverInfo]:
        """The losses of brokers the controller remembers, oldest first."""
        return self.get("failovers", FailoverList).failovers

    def failover_of(self, broker: int, killed_ms: float) -> FailoverInfo | None:
        """The controller's account of a broker's death at ``killed_ms`` (wall clock), once it is
        complete."""
        try:
            told = self.failovers()
        except MinilogError:
            return None
        for info in reversed(told):
            if info.broker_id == broker and info.detected_ms >= killed_ms - CLOCK_SLACK_MS:
                return info if info.published_ms is not None else None
        return None

    def get(self, route: str, cls: type[T], query: dict[str, str] | None = None, **values: str | int) -> T:
        return self._understood(self.call(route, query, **values), cls, definite=True)

    def ask(self, route: str, cls: type[T], body: Any, **values: str | int) -> T:
        """A change whose answer says more than that it is done."""
        return self._understood(self.call(route, None, body, **values), cls, definite=False)

    def change(self, route: str, body: Any = None, query: dict[str, str] | None = None, **values: str | int) -> None:
        """As ``call``, for what says nothing but that it is done."""
        self._understood(self.call(route, query, body, **values), _Done, definite=False)

    def call(self, route: str, query: dict[str, str] | None = None, body: Any = None, **values: str | int) -> bytes:
        """The body of a success. Raises the server's MinilogError; BrokerUnavailable or TimedOut:
        not ``definite`` if it may have happened."""
        data = msgspec.json.encode(body) if body is not None else None
        method, path = BY_NAME[route].method, path_of(route, query, **values)
        headers = {"Accept": JSON} if data is None else {"Accept": JSON, "Content-Type": JSON}
        is_change = method not in SAFE
        if is_change and not self._answered and len(self._urls) > 1:
            self._find_one_that_answers()
        failures: list[str] = []
        refusal: MinilogError | None = None
        known, urls = self._answered, self._in_order()
        for base in urls:
            if is_change and refusal is not None and not self._answers(base, failures):
                continue
            is_patient = is_change or base in (known, urls[-1])
            timeout_s = self.timeout_s if is_patient else min(self.timeout_s, SHORT_TIMEOUT_S)
            try:
                return self._ask(base, path, method, timeout_s, data, headers)
            except ASK_ANOTHER as error:
                if is_change and not error.definite:
                    raise
                refusal = error
            except Unanswered as failure:
                if failure.was_sent and is_change:
                    raise _may_have_happened(base, failure) from None
                failures.append(f"{base}: {failure.reason}")
        raise refusal or _unreachable(failures)

    def _in_order(self) -> list[str]:
        first = [self._answered] if self._answered else []
        return first + [base for base in self._urls if base != self._answered]

    def _ask(
        self, base: str, path: str, method: str, timeout_s: float, data: bytes | None, headers: dict[str, str]
    ) -> bytes:
        """As ``send``. A refusal is an answer, too, but for one that sends to another."""
        try:
            answer = send(base + path, method, timeout_s, data, headers, JSON, self._credential)
        except ASK_ANOTHER:
            if self._answered == base:
                self._answered = ""
            raise
        except MinilogError:
            self._answered = base
            raise
        self._answered = base
        return answer

    def _find_one_that_answers(self) -> None:
        """So that a change is not entrusted to a frozen broker, nor to one that is not ready while
        another is.

        Raises BrokerUnavailable: then nothing was sent."""
        failures: list[str] = []
        alive = ""
        for base in self._urls:
            if not self._answers(base, failures):
                continue
            if self._answered == base:
                return
            alive = alive or base
        if not alive:
            raise _unreachable(failures)
        self._answered = alive

    def _answers(self, base: str, failures: list[str]) -> bool:
        """Whether somebody is there. One that is ready becomes the one that answered last."""
        try:
            timeout_s = min(self.timeout_s, SHORT_TIMEOUT_S)
            send(base + path_of("readyz"), "GET", timeout_s, media=JSON, credential=self._credential)
        except Unanswered as failure:
            failures.append(f"{base}: {failure.reason}")
            return False
        except MinilogError:
            return True
        self._answered = base
        return True

    def _understood(self, body: bytes, cls: type[T], *, definite: bool) -> T:
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            what = "" if definite else "; the request was sent, so it may have happened: look before you repeat it"
            raise BrokerUnavailable(
                f"{self._answered} answered what is not understood: is it a minilog broker, and of this version?{what}",
                definite=definite,
            ) from None


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
