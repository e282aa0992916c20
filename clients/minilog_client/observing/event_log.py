"""Events as lines of the log ``minilog_client``.

A cause for which tries are repeated is told once, and again only after ``AGAIN_S``, with a
count."""

from __future__ import annotations

import time
from collections.abc import Iterable
from logging import DEBUG, INFO, Logger
from typing import Final

from minilog_client.observing.events import (
    Assigned,
    ClientEvent,
    Closed,
    CommitFailed,
    Committed,
    Connected,
    Joined,
    LeaderMoved,
    Retried,
    Revoked,
)
from minilog_client.values import PartitionKey

AGAIN_S: Final = 10.0
_NAMED_MAX: Final = 10
_CAUSES_MAX: Final = 1000


class EventLog:
    def __init__(self, log: Logger) -> None:
        self._log = log
        self._causes: dict[tuple[str, str, str], tuple[float, int]] = {}
        """By what was tried, the topic and the error's code: when it was told, and how often it
        came since."""

    def on_event(self, event: ClientEvent) -> None:
        match event:
            case Connected(cluster_id, brokers):
                self._log.info("connected to cluster %s: %s", cluster_id, ", ".join(brokers))
            case LeaderMoved(topic, partition, None, epoch):
                self._log.info("%s-%d has no leader (epoch %d)", topic, partition, epoch)
            case LeaderMoved(topic, partition, broker_id, epoch):
                self._log.info("%s-%d is led by broker %d (epoch %d)", topic, partition, broker_id, epoch)
            case Joined(group, member_id, epoch):
                self._log.info("group %s: %s is a member in epoch %d", group, member_id, epoch)
            case Assigned(group, partitions):
                self._log.info("group %s: assigned %s", group, _names(partitions))
            case Revoked(group, partitions, is_lost):
                self._log.info("group %s: %s %s", group, "lost" if is_lost else "revoked", _names(partitions))
            case Retried():
                self._on_retried(event)
            case Closed(what):
                self._log.info("closed %s", what)
            case Committed() | CommitFailed() if self._log.isEnabledFor(DEBUG):
                self._log.debug("group %s: %s", event.group, _outcome(event))
            case _:
                pass

    def _on_retried(self, event: Retried) -> None:
        if not self._log.isEnabledFor(INFO):
            return
        cause = event.what, event.topic, event.error.code
        now_s = time.monotonic()
        told_s, since = self._causes.get(cause, (-AGAIN_S, 0))
        if now_s - told_s < AGAIN_S:
            self._causes[cause] = told_s, since + 1
            return
        if len(self._causes) >= _CAUSES_MAX:
            self._causes.clear()
        self._causes[cause] = now_s, 0
        counted = f" ({since} times more since this was told)" if since else ""
        self._log.info(
            "%s-%d: %s failed and is tried again: %s: %s%s",
            event.topic, event.partition, event.what, event.error.code, event.error.detail, counted,
        )  # fmt: skip


def _outcome(event: Committed | CommitFailed) -> str:
    if isinstance(event, CommitFailed):
        return f"commit failed: {event.error.detail}"
    return "committed " + ", ".join(
        f"{topic}-{partition} at {offset}" for (topic, partition), offset in event.offsets.items()
    )


def _names(partitions: Iterable[PartitionKey]) -> str:
    names = [f"{topic}-{partition}" for topic, partition in partitions]
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
