"""How a consumer reads values and keys as what the application has asked for.

A record that cannot be read so is never handed out half, and never left out in silence. Pure, but
for the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from minilog.errors import CorruptBatch
from minilog_client.consumer.records import AnyRecord, Record
from minilog_client.serializers.serializer import Serializer, serializer_of
from minilog_client.settings import Undecodable
from minilog_client.values import counted, text_of

_log: Final = logging.getLogger("minilog_client")


class UndecodableRecord(CorruptBatch):
    """A value or a key is not what the consumer was told to read (``value=``, ``key=``).

    ``record`` is as it was read, in bytes. ``info`` has ``topic``, ``partition``, ``offset``, and
    ``end_offset`` to go on from."""

    code = "UNDECODABLE_RECORD"
    record: Record
    cause: Exception
    """What the serializer has raised."""


class Decoding:
    """``skipped`` counts the records that were left out."""

    __slots__ = ("_choice", "_key", "_value", "skipped")

    def __init__(self, value: Serializer[Any] | None, key: Serializer[Any] | None, choice: Undecodable) -> None:
        self._value = None if value is None else value.decode
        self._key = None if key is None else key.decode
        self._choice = choice
        self.skipped = 0

    def decode(self, records: Sequence[Record]) -> tuple[list[AnyRecord], UndecodableRecord | None]:
        """``records`` of one partition as the application wants them, up to the first that cannot
        be read, and why. Where such are skipped: all others."""
        found: list[AnyRecord] = []
        skipped: list[UndecodableRecord] = []
        for record in records:
            try:
                found.append(self._decoded(record))
            except Exception as error:  # whatever the application's serializer raises
                if self._choice == "raise":
                    return found, _undecodable(record, error, is_told=True)
                skipped.append(_undecodable(record, error, is_told=False))
        if skipped:
            self._tell(skipped)
        return found, None

    def _decoded(self, record: Record) -> AnyRecord:
        value: Any = record.value
        key: Any = record.key
        return Record(
            record.topic,
            record.partition,
            record.leader_epoch,
            record.offset,
            record.timestamp,
            key if key is None or self._key is None else self._key(key),
            value if value is None or self._value is None else self._value(value),
            record.headers,
        )

    def _tell(self, skipped: Sequence[UndecodableRecord]) -> None:
        self.skipped += len(skipped)
        _log.warning(
            "skipped %s, the first because of: %s", counted(len(skipped), "undecodable record"), skipped[0].detail
        )


def decoding_of(value: Any, key: Any, choice: Undecodable) -> Decoding | None:
    """None: bytes, as they are. Raises TypeError, InvalidRequest."""
    serializers = serializer_of("value", value), serializer_of("key", key)
    return None if serializers == (None, None) else Decoding(*serializers, choice)


def _undecodable(record: Record, cause: Exception, is_told: bool) -> UndecodableRecord:
    place = f"{record.topic}-{record.partition}"
    hint = f'; seek to {record.offset + 1} to go on behind it, or read with undecodable="skip"' if is_told else ""
    error = UndecodableRecord(
        f"{place}: the record at {record.offset} is not what this consumer reads "
        f"({type(cause).__name__}: {text_of(cause)})" + hint,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        end_offset=record.offset + 1,
    )
    error.record, error.cause, error.__cause__ = record, cause, cause
    return error
