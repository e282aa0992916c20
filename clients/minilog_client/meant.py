"""Which option was probably meant by one that does not exist: other clients of the field have other
names for the same things."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

_ELSEWHERE: Final = {
    "group_id": "group",
    "consumer_group": "group",
    "auto_offset_reset": "start",
    "offset_reset": "start",
    "starting_offset": "start",
    "compression_type": "compression",
    "compression_codec": "compression",
    "enable_auto_commit": "auto_commit",
    "auto_commit_enable": "auto_commit",
    "group_instance_id": "instance_id",
    "partition_assignment_strategy": "assignor",
    "max_poll_records": "max_records of batch()",
    "max_records": "max_records of batch()",
    "fetch_max_wait_ms": "max_wait_ms",
    "fetch_wait_max_ms": "max_wait_ms",
    "fetch_max_bytes": "prefetch_bytes",
    "max_partition_fetch_bytes": "partition_fetch_bytes",
    "enable_idempotence": "idempotent",
    "batch_size": "batch_bytes",
    "buffer_memory": "buffer_bytes",
    "linger": "linger_ms",
    "max_block_ms": "block_timeout_ms",
    "request_required_acks": "acks",
    "required_acks": "acks",
    "message_timeout_ms": "delivery_timeout_ms",
    "client_rack": "rack",
    "metadata_max_age": "metadata_max_age_ms",
    "bootstrap_servers": "bootstrap, the first argument of the client",
    "topic": "topics",
    "isolation_level": "",
}


def meant(name: str, allowed: Collection[str]) -> str:
    """`` (did you mean ...?)``, or nothing."""
    plain = name.lower().replace(".", "_").replace("-", "_")
    known = _ELSEWHERE.get(plain, "")
    if known and (known in allowed or not known.isidentifier()):
        return f" (did you mean {known}?)"
    close = get_close_matches(plain, allowed, 1, 0.75)
    return f" (did you mean {close[0]}?)" if close else ""
