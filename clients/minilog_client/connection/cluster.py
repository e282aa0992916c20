"""The client's standing connection to a cluster: asks for metadata, sends requests to the brokers
it names.

One refresh runs at a time, whoever wants it, and a broker that is slow to answer gets competition:
a stopped broker costs ``metadata_hedge_ms``, not a timeout. A request to a leader that stays silent
is watched: when other brokers say that somebody else leads by now, waiting for the silent one is
pointless and the request is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from random import Random
from typing import Any, Final, TypeVar

from minilog.errors import (
    BrokerUnavailable,
    ClientClosed,
    InternalError,
    LeaderNotAvailable,
    MinilogError,
    TimedOut,
    UnknownTopic,
)
from minilog.wire.messages import MetadataReply
from minilog_client.connection.backoff import DELAY_MIN_MS, History, retry_delay_ms
from minilog_client.connection.http_messages import ACCEPT_EITHER, Envelope, Reply, envelope, metadata_path, reply_from
from minilog_client.connection.own_loop import check_loop, running_loop
from minilog_client.connection.routing import Routing, Topic
from minilog_client.connection.strangers import is_of_stranger, nobody
from minilog_client.connection.tasks import TaskScope
from minilog_client.connection.time_units import TimeUnits
from minilog_client.connection.transport import Border, Transport
from minilog_client.observing.teller import Teller
from minilog_client.settings import ClientSettings

T = TypeVar("T")
Listener = Callable[[], None]
_RECHECK_MS: Final = 250
_log: Final = logging.getLogger("minilog_client")


def now_ms() -> int:
    """The running loop's clock: monotonic, only differences mean anything."""
    return int(running_loop().time() * 1000)


class _Watch:
    """A request under way, and whether it still makes sense to wait for it."""

    __slots__ = ("given_up", "still_leads", "task", "timer")
    timer: asyncio.TimerHandle

    def __init__(self, task: asyncio.Task[Any], still_leads: Callable[[], bool]) -> None:
        self.task = task
        self.still_leads = still_leads
        self.given_up = False


class Cluster:
    """Shared by the producers, consumers and the admin of one client."""

    def __init__(self, urls: list[str], transport: Transport, settings: ClientSettings, random: Random) -> None:
        self.teller = Teller()
        self.routing = Routing(urls, self.teller.tell)
        self.settings, self.random = settings, random
        self.transport = Border(transport)
        self.last_error: MinilogError | None = None
        """Why the last question for the layout had no answer, if it had none."""
        self.time_units = TimeUnits()
        self.is_heard = False
        """Some broker has answered."""
        self._tasks = TaskScope("minilog_client cluster")
        self._interest: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        self._refreshing: asyncio.Task[MinilogError | None] | None = None
        self._late: set[_Watch] = set()
        self._not_before_ms = 0
        self._in_vain = 0
        """Refreshes in a row that brought nothing."""
        self._in_vain_since_ms = 0
        self._is_hurried = False
        """Somebody waited for the refresh that runs, or ran last, to be allowed."""
        self._postponed: asyncio.TimerHandle | None = None
        self._ageing: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where the first call came from. All others have to."""

    # --- metadata ---------------------------------------------------------------------------------

    def watch(self, topics: Iterable[str], listener: Listener) -> None:
        """Keep ``topics`` fresh and call ``listener`` after every answered refresh."""
        self._interest.update(topics)
        if listener not in self._listeners:
            self._listeners.append(listener)
        if self._ageing is None:
            self._age()

    def unwatch(self, topics: Iterable[str], listener: Listener | None = None) -> None:
        """Without a ``listener`` whoever watches these hears on of others."""
        self._lose_interest(topics)
        if listener in self._listeners:
            self._listeners.remove(listener)

    def _lose_interest(self, topics: Iterable[str]) -> None:
        """What nobody wants to know of is not known to be missing either: it may be there by the
        time when somebody does."""
        names = list(topics)
        self._interest.subtract(names)
        self._interest = +self._interest
        self.routing.forget_absences(name for name in names if not self._interest[name])

    def request_refresh(self) -> None:
        """See to a refresh, at a bounded pace; listeners hear of the outcome. To be called as often
        as one likes."""
        if self._closed or self._refreshing is not None:
            return
        wait_ms = self._not_before_ms - now_ms()
        if wait_ms <= 0:
            self._start_refresh()
        elif self._postponed is None:
            self._postponed = asyncio.get_running_loop().call_later(wait_ms / 1000, self._start_refresh)

    def _start_refresh(self) -> None:
        self._cancel_postponed()
        if not self._closed and self._refreshing is None:
            self._is_hurried = now_ms() - self._not_before_ms <= DELAY_MIN_MS
            self._refreshing = self._tasks.start(self._refresh())

    def _cancel_postponed(self) -> None:
        if self._postponed is not None:
            self._postponed.cancel()
            self._postponed = None

    async def refresh(self, topic: str | None = None, *, is_anew: bool = False) -> None:
        """Ask for the watched topics and ``topic``; raises BrokerUnavailable when nobody answers in
        time. ``is_anew``: what was asked before this call does not count."""
        self.check_open()
        is_asked = topic is None or bool(self._interest[topic])
        if self._refreshing is not None and (is_anew or not is_asked):
            await asyncio.wait([self._refreshing])
            self.check_open()
        extra = [topic] if topic is not None else []
        self._interest.update(extra)
        try:
            self._start_refresh()
            assert self._refreshing is not None, "just started"
            error = await asyncio.shield(self._refreshing)
        except asyncio.CancelledError:
            self.check_open()
            raise
        finally:
            self._lose_interest(extra)
        if error is not None:
            raise error

    async def topic(self, topic: str) -> Topic:
        """What is known of ``topic``, asking when it is unknown; raises UnknownTopic or
        BrokerUnavailable."""
        deadline_ms = now_ms() + self.settings.topic_wait_ms
        delay_ms = 20
        while (known := self.routing.topic(topic)) is None or known.partition_count == 0:
            await self.refresh(topic)
            if (known := self.routing.topic(topic)) is not None and known.partition_count:
                continue
            if now_ms() >= deadline_ms:
                raise UnknownTopic(f"there is no topic {topic!r} in this cluster; create it first", topic=topic)
            await asyncio.sleep(delay_ms / 1000)
            delay_ms = min(2 * delay_ms, 200)
        return known

    async def _refresh(self) -> MinilogError | None:
        error: MinilogError | None = None
        asked, known = sorted(self._interest), self.routing.version
        try:
            await self._ask_around(asked)
        except MinilogError as failed:
            error = failed
        except Exception as fault:
            _log.exception("asking for metadata failed unexpectedly")
            error = InternalError(f"asking for metadata failed: {fault!r}")
        finally:
            self._refreshing = None
        self.last_error = error
        self._pace(error, self.routing.version != known)
        self._age()
        for listener in (self._give_up_late, *self._listeners):
            try:
                listener()
            except Exception:  # a fault of one is not the others' trouble
                _log.exception("a listener to metadata failed unexpectedly")
        return error

    def _pace(self, error: MinilogError | None, has_news: bool) -> None:
        """When the next refresh may start: soon, but later and later while nobody answers, or while
        the answers say nothing new. A refresh that nobody was in a hurry for begins a new row."""
        now = now_ms()
        if has_news or not self._is_hurried:
            self._in_vain, self._in_vain_since_ms = 0, now
        if has_news and error is None:
            self._not_before_ms = now + DELAY_MIN_MS
            return
        self._in_vain += 1
        reason = error or LeaderNotAvailable("the layout is the same as before")
        self._not_before_ms = now + retry_delay_ms(reason, self._in_vain, now - self._in_vain_since_ms, self.random)

    async def _ask_around(self, asked: list[str]) -> None:
        """Learn from the first answer that makes sense; raises BrokerUnavailable."""
        path, asks_all = metadata_path(asked)
        failures: dict[str, MinilogError] = {}

        def take(answer: MetadataReply | MinilogError, url: str) -> bool:
            return self._learn(answer, url, asked, asks_all, failures)

        if not await self._race(lambda url: self._ask(url, path), take):
            raise nobody(failures, self.is_heard)

    async def ask_any(self, message: Envelope, kind: type[Reply]) -> Reply:
        """The first answer that any broker gives; several may come to carry ``message`` out.

        Raises what they all refuse with, or BrokerUnavailable when nobody answers. Neither is
        definite if one of them may have carried ``message`` out."""
        failures: dict[str, MinilogError] = {}
        history = History()
        replies: list[Reply] = []

        async def ask(url: str) -> Reply | MinilogError:
            try:
                return await self.call(url, message, kind, self.settings.request_timeout_ms)
            except MinilogError as error:
                return error

        def take(answer: Reply | MinilogError, url: str) -> bool:
            if isinstance(answer, MinilogError):
                failures[url] = answer
                history.on_failure(answer)
                return False
            replies.append(answer)
            return True

        if not await self._race(ask, take):
            refusals = [
                error
                for error in failures.values()
                if not isinstance(error, BrokerUnavailable | TimedOut) and not is_of_stranger(error)
            ]
            raise history.told(
                max(refusals, key=lambda error: error.retriable) if refusals else nobody(failures, self.is_heard)
            )
        return replies[0]

    async def _race(self, ask: Callable[[str], Coroutine[Any, Any, T]], take: Callable[[T, str], bool]) -> bool:
        """Ask one broker after another, the next one as soon as the last is late or failed, until
        ``take`` is content with an answer; False if it never is."""
        running: dict[asyncio.Task[T], str] = {}
        waiting = self.routing.candidates(now_ms())
        slower: list[str] = []
        try:
            while waiting or running:
                if waiting:
                    slower = list(running.values())
                    url = waiting.pop(0)
                    running[self._tasks.start(ask(url))] = url
                hedge_s = self.settings.metadata_hedge_ms / 1000 if waiting else None
                done, _ = await asyncio.wait(running, timeout=hedge_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    url = running.pop(task)
                    if take(task.result(), url):
                        return True
            return False
        finally:
            for task, url in running.items():
                if url in slower:
                    self.routing.on_failed(url, now_ms())
                task.cancel()

    async def _ask(self, url: str, path: str) -> MetadataReply | MinilogError:
        timeout_ms = self.settings.request_timeout_ms
        try:
            response = await self.transport.request("GET", url + path, {"Accept": ACCEPT_EITHER}, b"", timeout_ms)
            return reply_from(response, url, MetadataReply)
        except MinilogError as error:
            return error

    def _learn(
        self,
        answer: MetadataReply | MinilogError,
        url: str,
        asked: list[str],
        asks_all: bool,
        failures: dict[str, MinilogError],
    ) -> bool:
        try:
            if isinstance(answer, MinilogError):
                raise answer
            self.routing.on_metadata(answer, asked, now_ms(), is_all=asks_all)
            self.is_heard = True
        except MinilogError as error:
            self.routing.on_failed(url, now_ms())
            failures[url] = error
            return False
        self.routing.on_answered(url)
        return True

    def _age(self) -> None:
        """See to it that the layout is asked for again before it is too old, as long as anybody
        listens."""
        if self._ageing is not None:
            self._ageing.cancel()
            self._ageing = None
        if self._closed or not self._listeners:
            return
        delay_ms = self.settings.metadata_max_age_ms * self.random.uniform(0.8, 1.0)
        self._ageing = asyncio.get_running_loop().call_later(delay_ms / 1000, self.request_refresh)

    # --- requests ---------------------------------------------------------------------------------

    async def call(
        self,
        url: str,
        message: Envelope,
        kind: type[Reply],
        timeout_ms: int,
        held_ms: int = 0,
        still_leads: Callable[[], bool] | None = None,
    ) -> Reply:
        """Send ``message`` to the broker at ``url`` and wait for its answer.

        With ``still_leads``, a broker that is ``suspect_ms`` late (on top of ``held_ms``, which it
        may well take) is checked on, and given up (indefinitely: BrokerUnavailable) once fresh
        metadata make ``still_leads`` say no. It may give up a part of the request by itself."""
        self.check_open()
        path, headers, body = envelope(message)
        patience_ms = _RECHECK_MS if self.routing.is_suspect(url, now_ms()) else self.settings.suspect_ms
        watch = None if still_leads is None else self._watch_over(still_leads, held_ms + patience_ms)
        try:
            response = await self.transport.request("POST", url + path, headers, body, timeout_ms)
        except MinilogError:
            self.routing.on_failed(url, now_ms())
            raise
        except asyncio.CancelledError:
            if watch is None or not watch.given_up or watch.task.uncancel() > 0:
                raise
            self.routing.on_failed(url, now_ms())
            raise led_no_longer(url) from None
        finally:
            if watch is not None:
                watch.timer.cancel()
                self._late.discard(watch)
        self.routing.on_answered(url)
        reply = reply_from(response, url, kind)
        self.is_heard = True
        return reply

    def _watch_over(self, still_leads: Callable[[], bool], suspect_ms: int) -> _Watch:
        """Watch the request that the current task is about to make."""
        task = asyncio.current_task()
        assert task is not None, "requests are made in tasks"
        watch = _Watch(task, still_leads)
        watch.timer = task.get_loop().call_later(suspect_ms / 1000, self._suspect, watch)
        return watch

    def _suspect(self, watch: _Watch) -> None:
        """The request is late: see whether somebody else leads by now, and go on asking."""
        self._late.add(watch)
        self.request_refresh()
        watch.timer = watch.task.get_loop().call_later(_RECHECK_MS / 1000, self._suspect, watch)

    def _give_up_late(self) -> None:
        for watch in self._late:
            if not watch.given_up and not watch.still_leads():
                watch.given_up = True
                watch.task.cancel()

    # --- life -------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        self._closed = True
        self._age()
        self._cancel_postponed()
        await self._tasks.aclose()
        await self.transport.close()

    def check_open(self) -> None:
        """Raises ClientClosed; and InvalidRequest in another event loop than that of the first
        call."""
        if self._closed:
            raise ClientClosed("the client is closed; make a new one")
        if self._loop is None:
            self._loop = running_loop()
        check_loop(self._loop)


def led_no_longer(url: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"{url} has not answered and leads no longer", definite=False)
