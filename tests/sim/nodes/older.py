"""What older brokers did: batches were taken by their headers and checksums."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import patch

from minilog.core.broker.requests import produce
from minilog.core.broker.requests.allowance import Inspected, Share
from minilog.errors import MinilogError
from minilog.wire.batch import split
from minilog.wire.messages import Produce, ProducePartition


def headers_alone(request: Produce) -> Inspected:
    """In the place of ``inspect``."""
    return Inspected(request, [_share(entry) for entry in request.partitions])


def _share(entry: ProducePartition) -> Share | MinilogError:
    try:
        return Share(split(entry.batches, 2**31), None)
    except MinilogError as error:
        return error


def older_brokers() -> AbstractContextManager[object]:
    """As long as it is entered, no broker looks inside."""
    return patch.object(produce, "inspect", headers_alone)
