"""How a consumer hands out many records at once, to a task or to an application's thread."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Generic, cast

from minilog_client.consumer.columns import Columns
from minilog_client.consumer.partition_fetch import PartitionFetch
from minilog_client.consumer.positions import Positions
from minilog_client.consumer.read_ahead import ReadAhead
from minilog_client.consumer.records import AnyRecord, Record
from minilog_client.consumer.start import StartLike, parse_start
from minilog_client.serializers.type_variables import K, V
from minilog_client.values import PartitionKey, check_count


class Batches(Positions, Generic[V, K]):
    """The part of ``Consumer`` that hands out more than one record, and takes back what has not
    reached the application."""

    async def batch(self, max_records: int = 1000, max_wait_ms: int = 1000) -> list[Record[V, K]]:
        """Up to ``max_records`` records as soon as there are any; empty when none came within
        ``max_wait_ms``, and after ``stop``. With a group, asking again says that these are finished
        with."""
        return cast("list[Record[V, K]]", await self._read(max_records, max_wait_ms))

    async def batch_columns(self, max_records: int = 10_000, max_wait_ms: int = 1000) -> Columns[V, K]:
        """What ``batch`` hands out, as columns: for programs that work on many records at a
        time."""
        return cast("Columns[V, K]", await self._read(max_records, max_wait_ms, as_columns=True))

    @abstractmethod
    async def _read(self, max_records: int, max_wait_ms: int, as_columns: bool = False) -> Sequence[AnyRecord]: ...

    @abstractmethod
    def _check_open(self) -> None: ...

    # --- for the synchronous face, which reads ahead ----------------------------------------------

    async def read_ahead(self, ahead: ReadAhead, max_records: int, max_wait_ms: int, as_columns: bool = False) -> None:
        """``batch`` or ``batch_columns``, into ``ahead``. What is unread there comes again."""
        check_count(max_records)
        self.check_may_read()
        self._hand_back(ahead)
        records = await self._read(max_records, max_wait_ms, as_columns)
        ahead.fill(records, self._plan.taken if records else ())

    def check_may_read(self) -> None:
        """Raises ClientClosed; and InvalidRequest where reading would wait for itself."""
        self._check_open()

    def _hand_back(self, ahead: ReadAhead) -> None:
        self.return_unread(ahead.unread)
        ahead.clear()

    def pause_ahead(self, ahead: ReadAhead, topic: str, partition: int) -> None:
        """``pause``. What was read ahead of the partition comes after ``resume``."""
        self._plan.state(topic, partition)
        self.return_unread(ahead.drop_unread((topic, partition)))
        self.pause(topic, partition)

    def seek_ahead(self, ahead: ReadAhead, partitions: Iterable[PartitionKey], to: StartLike) -> None:
        """``seek``. What was read ahead is dropped only when it is sure that reading goes on
        elsewhere."""
        parse_start(to)
        for topic, partition in partitions:
            self._plan.state(topic, partition)
            self.seek(topic, partition, to)
            ahead.leave((topic, partition))

    def return_unread(self, unread: Iterable[AnyRecord]) -> None:
        """These were handed out last, and have not reached the application."""
        for state in self._plan.put_back(unread):
            self._on_put_back(state)
        self._pump.wake(0)

    def _on_put_back(self, state: PartitionFetch) -> None:
        if self._current is state:
            self._current = None
