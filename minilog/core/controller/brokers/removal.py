"""A broker leaves the cluster for good: it is forgotten. Pure.

Only one that holds nothing and does not run can go, so nothing that is known of its disk is needed
any more. A process that comes with its id later is a new broker.
"""

from __future__ import annotations

from collections.abc import Container

from minilog.core.controller.told.names import named
from minilog.core.image import ClusterImage
from minilog.errors import InvalidRequest
from minilog.wire.admin_messages import RemoveBroker
from minilog.wire.journal.metadata_records import BrokerRemoved, MetadataRecord


def remove_broker(request: RemoveBroker, image: ClusterImage, heard: Container[int]) -> list[MetadataRecord]:
    """``heard``: brokers with a session. One that has registered is fenced until it is heard, and
    runs. Raises InvalidRequest."""
    broker_id = request.broker_id
    broker = image.brokers.get(broker_id)
    if broker is None:
        known = ", ".join(map(str, sorted(image.brokers)))
        raise InvalidRequest(f"there is no broker {broker_id}; known are {known}")
    holds = [f"{s.topic}-{s.partition}" for _, s in image.partitions() if broker_id in s.replicas]
    if holds:
        raise InvalidRequest(
            f"broker {broker_id} has replicas of {named(holds)}; move them first: `minilog broker drain {broker_id}`"
        )
    if not broker.fenced:
        raise InvalidRequest(f"broker {broker_id} runs at {broker.url}; stop it first")
    if broker_id in heard:
        raise InvalidRequest(
            f"broker {broker_id} has registered and is starting; stop it, and ask again when its session is over"
        )
    return [BrokerRemoved(broker_id, broker.epoch)]
