"""The whole output vocabulary of the decision cores.

A core never performs I/O that must be waited for: it returns effects, and the shell performs them
in order. What returns at once (appending to or reading from a log) is an injected call instead
(ports.py). Model: the ``Ready`` value of etcd-io/raft's rawnode.go.
"""

from __future__ import annotations

from typing import NamedTuple

from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.messages import Message
from minilog.wire.topic_partition import TopicPartition

CONTROLLER_ID = -1
"""The node id under which brokers address the controller."""


class Reply(NamedTuple):
    """Answer the request that came in under ``request_id``; exactly one per request."""

    request_id: int
    response: Message


class Send(NamedTuple):
    """Send ``request`` to a peer once, without retry. Its outcome comes back through
    ``on_response``."""

    node_id: int
    request: Message


class Flush(NamedTuple):
    """Make the log of ``partition`` durable at least up to ``end_offset``; reported through
    ``on_flushed``."""

    partition: TopicPartition
    end_offset: int


class SaveMetadata(NamedTuple):
    """Make ``copy`` durable in place of the one before; reported through ``on_metadata_saved``."""

    copy: MetadataCopy


class GoOn(NamedTuple):
    """There is more to do than one turn may take (R42): call ``go_on`` soon, behind whatever waits
    now."""


Effect = Reply | Send | Flush | SaveMetadata | GoOn
