"""Lost replays: writes lost records again, a few batches a request, and resumes where it stood.

Owns: which tails are being written by this process. All else is durable: the claim in the
controller's journal (core/controller/told/lost_claims.py), the note beside the tail
(storage/aside/lost_tails.py).

The order of steps: claim, note which batch goes next, send it, note the batch after it. An answer
that says nothing for certain ends the request and changes nothing: the noted batch is sent again
next time, with the same sequence, and written once. Behind the last one the controller is told, and
only then it is finished: another copy may take over what is not, if this directory is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from crc32c import crc32c
from msgspec.structs import replace

from minilog.core.image import ClusterImage, TopicImage
from minilog.core.lost_replay import Step, next_step, runs_of, without
from minilog.core.topic_names import check_not_internal
from minilog.errors import DuplicateSequence, InternalError, InvalidRequest, Overloaded, StorageFailed, UnknownPartition
from minilog.storage.aside.lost_tails import LostTail, LostTails, Replay, left_open
from minilog.storage.log.quarantine import ACKS_NAMES
from minilog.wire.batch import Batch
from minilog.wire.bounded import FEW_MAX
from minilog.wire.json.json_answers import LostReplay, LostTailInfo
from minilog.wire.messages import ClaimLost, ClaimLostReply, LostRun, ProduceResult
from minilog.wire.records import SealedBatch
from minilog.wire.topic_partition import TopicPartition

T = TypeVar("T")
REQUEST_S = 1.0
"""After so long a request answers how far it has come."""
UNSURE = "the note of how far it was written again is damaged"


class Cluster(Protocol):
    """What writing needs of the cluster around. Each raises the error it met."""

    def topic(self, name: str, topic_id: str = "") -> TopicImage: ...

    @property
    def image(self) -> ClusterImage: ...

    async def new_producer_id(self) -> int: ...

    async def claim(self, claim: ClaimLost) -> ClaimLostReply: ...

    async def write(self, topic: TopicImage, partition: int, batch: bytes) -> ProduceResult:
        """With acks=all. The result may hold a problem."""
        ...


class LostReplays:
    def __init__(
        self,
        broker_id: int,
        tails: LostTails,
        cluster: Cluster,
        wall_ms: Callable[[], int],
        on_disk_failed: Callable[[StorageFailed], None],
    ) -> None:
        self._broker_id = broker_id
        self._tails = tails
        self._cluster = cluster
        self._wall_ms = wall_ms
        self._on_disk_failed = on_disk_failed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lost")
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=False)

    # --- looking ----------------------------------------------------------------------------------

    async def all(self) -> list[LostTailInfo]:
        return [self._info(tail) for tail in await self.in_thread(self._tails.all)]

    async def get(self, name: str) -> LostTailInfo:
        """Raises UnknownRoute."""
        return self._info(await self._get(name))

    def batches_from(self, name: str, offset: int) -> Iterator[Batch]:
        """For ``in_thread``: whole batches that end behind ``offset``. Raises UnknownRoute."""
        return self._tails.batches_from(name, offset)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Reading and noting. A disk that fails stops the process."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except StorageFailed as error:
            self._on_disk_failed(error)
            raise InternalError(f"the disk failed: {error}") from error

    async def _get(self, name: str) -> LostTail:
        return await self.in_thread(lambda: self._tails.get(name))

    # --- changing ---------------------------------------------------------------------------------

    async def go_on(self, name: str, topic: str, partition: int | None, *, overwrites: bool) -> LostTailInfo:
        """Write more of it, for about REQUEST_S; how it stands then. ``topic`` "" and ``partition``
        None: where it was.

        Raises UnknownRoute, Overloaded, InvalidRequest, or what the write met."""
        tail = await self._get(name)
        own_topic, own_partition = tail.partition
        into = TopicPartition(topic or own_topic, own_partition if partition is None else partition)
        is_named = bool(topic) or partition is not None
        with self._alone(name):
            return self._info(await self._go_on(name, into, is_named=is_named, overwrites=overwrites))

    async def discard(self, name: str) -> int:
        """How many records went. Raises UnknownRoute or Overloaded."""
        with self._alone(name):
            cut = await self.in_thread(lambda: self._tails.remove(name))
        return cut.records

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Raises Overloaded."""
        if not self._tails.take_in_hand(name):
            raise Overloaded(f"{name} is in the hands of another request; ask again once that has ended")
        try:
            yield
        finally:
            self._tails.let_go(name)

    async def _go_on(self, name: str, into: TopicPartition, *, is_named: bool, overwrites: bool) -> LostTail:
        tail = await self._get(name)
        if not tail.is_sure:
            raise InvalidRequest(
                f"{UNSURE}, so {name} cannot go on safely: look what is there, and write the rest by hand "
                "(`minilog lost export`)"
            )
        replay = tail.replay or await self._begun(tail, into, overwrites=overwrites)
        if replay.finished_at_ms >= 0 and self._is_given_up(tail):
            into = into if is_named else TopicPartition(replay.into, replay.into_partition)
            replay = await self._begun(tail, into, overwrites=overwrites)
        if is_named and into != (replay.into, replay.into_partition):
            raise InvalidRequest(
                f"{name} is being written into {replay.into}-{replay.into_partition}; the rest goes there, too"
            )
        loop = asyncio.get_running_loop()
        ends = loop.time() + REQUEST_S
        while replay.finished_at_ms < 0 and loop.time() < ends and not self._closed:
            replay = await self._step(tail, replay)
        return tail._replace(replay=replay)

    async def _begun(self, tail: LostTail, into: TopicPartition, *, overwrites: bool) -> Replay:
        """``tail`` was not claimed yet, or more of it can be by now."""
        before = tail.replay
        if before is None:
            runs = await self.in_thread(lambda: runs_of(batch for _, batch in self._tails.batches(tail.name)))
        else:
            runs = [LostRun(*run) for run in before.left]
        claims = 0 if before is None else before.claims + 1
        claim = await self._claim(tail, runs, claims, into, overwrites=overwrites)
        return Replay(
            tail.cut.cut_at_ms,
            _tuples(claim.runs),
            claim.into,
            claim.into_topic_id,
            claim.into_partition,
            claim.producer_id,
            tail.cut.base_offset,
            left=_tuples(without(runs, claim.runs)),
            claims=claims,
            records_before=0 if before is None else before.records_before + before.records,
        )

    def _is_given_up(self, tail: LostTail) -> bool:
        """Some of what was left to another copy was lost with it, and can be claimed."""
        image = self._cluster.image
        return left_open(tail, filter(image.is_given_up, image.open_claims())) > 0

    async def _claim(
        self, tail: LostTail, runs: Sequence[LostRun], claims: int, into: TopicPartition, *, overwrites: bool
    ) -> ClaimLostReply:
        target = self._target(tail, into, overwrites=overwrites)
        if not runs:
            raise InvalidRequest(f"nothing of {tail.name} can be read; its bytes are in the quarantine of this broker")
        if len(runs) > FEW_MAX:
            raise InvalidRequest(
                f"{tail.name} lies in {len(runs)} pieces, by leader epoch and by damage; allowed are {FEW_MAX}; "
                "`minilog lost export` prints what can be read"
            )
        topic, partition = tail.partition
        return await self._cluster.claim(
            ClaimLost(
                self._broker_id,
                _claim_name(tail, claims),
                topic,
                tail.cut.topic_id,
                partition,
                list(runs),
                into.topic,
                target.topic_id,
                into.partition,
                await self._cluster.new_producer_id(),
                self._tails.directory_id,
            )
        )

    async def _tell_end(self, tail: LostTail, replay: Replay) -> None:
        topic, partition = tail.partition
        runs = [LostRun(*run) for run in replay.runs]
        if not runs:
            return
        target = replay.into, replay.into_topic_id, replay.into_partition
        await self._cluster.claim(
            ClaimLost(
                self._broker_id,
                _claim_name(tail, replay.claims),
                topic,
                tail.cut.topic_id,
                partition,
                runs,
                *target,
                replay.producer_id,
                self._tails.directory_id,
                finished=True,
            )
        )

    def _target(self, tail: LostTail, into: TopicPartition, *, overwrites: bool) -> TopicImage:
        check_not_internal(into.topic, "written into")
        target = self._cluster.topic(into.topic)
        if into.partition not in target.partitions:
            raise UnknownPartition(
                f"topic {into.topic} has partitions 0 to {len(target.partitions) - 1}, not {into.partition}"
            )
        if not overwrites:
            _check_overwrites(tail, target)
        return target

    # --- writing ----------------------------------------------------------------------------------

    async def _step(self, tail: LostTail, replay: Replay) -> Replay:
        """One batch. ``replay`` is what is noted."""
        topic = self._cluster.topic(replay.into, replay.into_topic_id)
        is_noted = replay.pending_end >= 0
        noted = replay if is_noted else replace(replay, batch_bytes_max=topic.settings.max_message_bytes)
        step = await self.in_thread(lambda: self._next(tail, noted))
        if is_noted:
            _check_pending(tail, noted, step)
        after = replace(
            replay,
            next_offset=step.next_offset,
            position=step.position,
            base_offset=step.base_offset,
            pending_end=-1,
            pending_crc=-1,
            skipped=replay.skipped + step.skipped,
        )
        if step.batch is not None:
            crc = _crc(step.batch)
            if not is_noted:
                noted = replace(noted, pending_end=step.next_offset, pending_crc=crc)
                await self._note(tail, noted)
            result = await self._send(topic, step.batch, noted)
            count = step.batch.record_count
            after = replace(after, sequence=replay.sequence + count, records=replay.records + count)
            if result.base_offset is not None and result.end_offset is not None:
                first = result.base_offset if replay.first_written < 0 else replay.first_written
                after = replace(after, first_written=first, end_written=result.end_offset)
        if step.is_last:
            await self._note(tail, after)
            await self._tell_end(tail, after)
            after = replace(after, finished_at_ms=self._wall_ms())
        await self._note(tail, after)
        return after

    def _next(self, tail: LostTail, noted: Replay) -> Step:
        batches = self._tails.batches(tail.name, noted.position, noted.base_offset)
        runs = [LostRun(*run) for run in noted.runs]
        return next_step(batches, tail.cut.partition, runs, noted.next_offset, noted.batch_bytes_max, noted.pending_end)

    async def _send(self, topic: TopicImage, batch: SealedBatch, noted: Replay) -> ProduceResult:
        data = batch.head(noted.producer_id, 0, noted.sequence) + batch.payload
        result = await self._cluster.write(topic, noted.into_partition, data)
        if result.problem is None:
            return result
        if result.problem.code == DuplicateSequence.code:
            return ProduceResult(topic.topic, noted.into_partition)
        raise result.problem.error()

    async def _note(self, tail: LostTail, replay: Replay) -> None:
        await self.in_thread(lambda: self._tails.note_replay(tail.name, replay))

    # --- telling ----------------------------------------------------------------------------------

    def _info(self, tail: LostTail) -> LostTailInfo:
        cut, (topic, partition) = tail.cut, tail.partition
        by_acks = dict(zip((name.removeprefix("acks_") for name in ACKS_NAMES), cut.records_by_acks, strict=True))
        return LostTailInfo(
            tail.name,
            self._broker_id,
            topic,
            cut.topic_id,
            partition,
            cut.reason,
            cut.cut_at_ms,
            cut.base_offset,
            cut.end_offset,
            cut.first_epoch,
            cut.last_epoch,
            cut.bytes,
            cut.records,
            by_acks,
            cut.unreadable_bytes,
            _known(cut.first_timestamp),
            _known(cut.last_timestamp),
            None if tail.replay is None else _told(tail.replay),
            "" if tail.is_sure else UNSURE,
            left_open(tail, self._cluster.image.open_claims()),
        )


def _told(replay: Replay) -> LostReplay:
    return LostReplay(
        replay.into,
        replay.into_partition,
        replay.into_topic_id,
        sum(end - base for _, base, end in replay.runs) + replay.records_before,
        replay.records + replay.records_before,
        replay.skipped,
        _known(replay.first_written),
        _known(replay.end_written),
        replay.finished_at_ms >= 0,
    )


def _claim_name(tail: LostTail, claims: int) -> str:
    name = f"{tail.name}@{tail.cut.cut_at_ms}"
    return f"{name}+{claims}" if claims else name


def _tuples(runs: Sequence[LostRun]) -> list[tuple[int, int, int]]:
    return [(run.leader_epoch, run.base_offset, run.end_offset) for run in runs]


def _check_pending(tail: LostTail, noted: Replay, step: Step) -> None:
    """Raises InvalidRequest. Another batch with the same sequence would count as written."""
    if step.batch is None or _crc(step.batch) != noted.pending_crc:
        raise InvalidRequest(
            f"{tail.name} was damaged after records {noted.next_offset} to {noted.pending_end - 1} were on their way, which "
            "may have been written: it cannot go on safely; look what is there, and write the rest by hand "
            "(`minilog lost export`)"
        )


def _crc(batch: SealedBatch) -> int:
    return crc32c(batch.payload, crc32c(batch.head()))


def _known(number: int) -> int | None:
    return None if number < 0 else number


def _check_overwrites(tail: LostTail, target: TopicImage) -> None:
    """Raises InvalidRequest."""
    if target.topic == tail.partition[0] and tail.cut.topic_id not in ("", target.topic_id):
        raise InvalidRequest(
            f"{target.topic} was deleted and made anew since these records were lost (topic id {tail.cut.topic_id}, now "
            f'{target.topic_id}); with "overwrites": true they are written into the new one'
        )
    if target.settings.is_compacted:
        raise InvalidRequest(
            f"{target.topic} is compacted: lost records would count as newer than what was written since under the same "
            'keys; with "overwrites": true they are written all the same'
        )
