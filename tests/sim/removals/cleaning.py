"""What keeps retention and compaction honest, taken away one guard at a time: the schedules, or a
story, must notice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import msgspec

from minilog.core.ports import ReplicaLog
from minilog.core.replication import follower, log_start
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.leader_isr import LeaderIsr
from minilog.core.replication.log_start import LogStart
from minilog.errors import OffsetOutOfRange
from minilog.storage.log.log_state import LogState
from minilog.storage.segment.segment import Segment
from minilog.wire.messages import ReplicaFetchPartition
from tests.sim.removals import stand_ins
from tests.sim.removals.ablation import Ablation, Tune
from tests.sim.schedules.options import Options
from tests.sim.stories.storage import test_retention


def _delete_at_once(self: LogStart, followers: Collection[int]) -> None:
    log_start.follow_start(self._log, self.published)


def _start_anywhere(log: ReplicaLog, start_offset: int) -> None:
    start_offset = min(start_offset, log.end_offset)
    if start_offset > log.start_offset:
        log.advance_start(start_offset)


def _plan_unsure(self: LogStart, now_ms: int, high_watermark: int) -> bool:
    """By the log's own settings, but as if its active segment and what is not committed were no
    different."""
    self.published = self._log.end_offset
    return True


def _inside_is_enough(self: LeaderState, fetch: ReplicaFetchPartition) -> None:
    log = self.log
    if not log.start_offset <= fetch.fetch_offset <= log.end_offset:
        raise OffsetOutOfRange("", log_start_offset=log.start_offset, log_end_offset=log.end_offset)


def _is_in_sync(self: LeaderState, broker_id: int) -> bool:
    return broker_id in self.maximal_isr


def _stays_open(self: Segment) -> int:
    """As noted when it was first looked at."""
    if self._max_timestamp is None:
        self._max_timestamp = self.index.max_timestamp
    return self._max_timestamp


def retaining(**changes: Any) -> Tune:
    """Small logs that lose their beginnings all the time, and no faults that are about something
    else."""
    usual: dict[str, Any] = {"replicas": 3, "brokers": 3, "faults_ms": 4000, "retention_bytes": -1, "retention_ms": 300}
    usual |= {"cleaning_check_ms": 20, "segment_ms": 200, "produce_interval_ms": 10}
    usual |= {"recreations": 0.0, "stragglers": 0.0, "power_cuts": 0.0, "history_age_ms": 0, "trial": ""}

    def tune(options: Options) -> Options:
        return replace(options, **(usual | changes))

    return tune


_next_fetch = FollowerState.next_fetch


def _without_start(self: FollowerState) -> ReplicaFetchPartition:
    """An empty log says nothing of what was there before."""
    return msgspec.structs.replace(_next_fetch(self), last_epoch=self.log.last_epoch, start_offset=0)


CLEANING_ABLATIONS: tuple[Ablation, ...] = (
    Ablation(
        "retention",
        "a leader deletes when its ISR has come back for more",
        ((LogStart, "advance", _delete_at_once),),
        retaining(isolations=1.0),
        test_retention.test_a_deposed_leader_deletes_nothing,
    ),
    Ablation(
        "retention",
        "the first fetch of a session proves no answer",
        ((LogStart, "on_session", stand_ins.nothing),),
        retaining(one_way_cuts=1.0, late=0.05, late_ms=1000),
        test_retention.test_a_fetch_that_was_sent_before_a_start_was_published_does_not_count_for_it,
    ),
    Ablation(
        "retention",
        "only what the settings let go is published",
        ((LogStart, "plan", _plan_unsure),),
        retaining(),
        test_retention.test_old_records_go_everywhere_and_a_reader_goes_on_where_the_log_begins,
    ),
    Ablation(
        "retention",
        "a follower deletes only what is committed and durable",
        ((follower, "follow_start", _start_anywhere),),
        retaining(kills=0.5),
    ),
    Ablation(
        "retention",
        "nobody asks where a follower's log begins",
        ((LeaderIsr, "_check_start", stand_ins.nothing), (FollowerState, "next_fetch", _without_start)),
        story=test_retention.test_a_log_that_begins_later_than_its_leaders_does_not_join_before_it_holds_the_rest,
    ),
    Ablation(
        "retention",
        "no eligible replica gives its log up",
        ((LeaderIsr, "_was_complete", _is_in_sync),),
        retaining(power_cuts=1.0),
        test_retention.test_who_was_last_known_to_be_complete_gives_nothing_up_and_is_not_waited_for,
    ),
    Ablation(
        "retention",
        "what diverges below the start is found out",
        ((LeaderIsr, "check_position", _inside_is_enough),),
        retaining(isolations=1.0),
        test_retention.test_a_tail_that_diverges_below_the_log_start_is_not_taken_for_what_has_gone,
    ),
    Ablation(
        "retention",
        "a segment is as old as its last record",
        ((Segment, "max_timestamp", property(_stays_open)),),
        retaining(produce_interval_ms=40),
    ),
    Ablation(
        "retention",
        "the new start is durable before anything goes",
        ((LogState, "save", stand_ins.nothing),),
        retaining(crashes=1.0, kills=1.0, flush_policy="commit"),
    ),
)
