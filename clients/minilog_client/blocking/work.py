"""The loop of a worker without ``await``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from minilog_client.blocking.consumer import SyncConsumer
from minilog_client.blocking.producer import SyncProducer
from minilog_client.consumer.records import Record
from minilog_client.serializers.serializer import SerializerLike
from minilog_client.serializers.type_variables import K, V
from minilog_client.worker.retries import Retries
from minilog_client.worker.tries import Tries, decoding_for

_LOOK_S: Final = 0.1
"""How often a worker that waits before a further try looks whether it is to stop."""


def work_blocking(
    consumer: SyncConsumer,
    handle: Callable[[Record[V, K]], object],
    *,
    producer: SyncProducer,
    dead_letters: str,
    retries: Retries | None = None,
    value: SerializerLike[V] | None = None,
    key: SerializerLike[K] | None = None,
) -> None:
    """See ``work``."""
    read_as = consumer._consumer._plan.decoding
    decoding, rules = decoding_for(read_as, dead_letters, value, key), retries or Retries()
    for raw in consumer:
        tries = Tries(raw, decoding, rules)
        while tries.is_due and tries.record is not None:
            try:
                handle(tries.record)
                tries.on_handled()
            except Exception as error:  # whatever the application raises
                _wait(consumer, tries.on_failed(error))
                if tries.is_due and consumer._is_stopping:
                    consumer.close()
                    return
        if tries.failure is not None:
            producer.send(dead_letters, raw.value, raw.key, tries.headers).result()


def _wait(consumer: SyncConsumer, delay_s: float) -> None:
    until_s = time.monotonic() + delay_s
    while (left_s := until_s - time.monotonic()) > 0 and not consumer._is_stopping:
        time.sleep(min(left_s, _LOOK_S))
