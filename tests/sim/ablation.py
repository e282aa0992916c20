"""Ablation: the simulator proves itself. Each entry takes one rule of the design away, by patching the one place that
keeps it, and the schedules must find an invariant violated. A rule whose removal nobody notices is either not needed
or not tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec

from minilog.core import alteration, controller, election, leader, partition_change, reads
from minilog.core.alter import Proposals
from minilog.core.controller import ControllerCore
from minilog.core.draft import Draft
from minilog.core.fetcher import Fetcher
from minilog.core.follower import FollowerState
from minilog.core.image import PartitionState
from minilog.core.leader import LeaderState
from minilog.core.sessions import FetchSession
from minilog.wire.messages import ReplicaFetchPartition
from tests.sim import test_isr
from tests.sim.controller_node import ControllerNode
from tests.sim.disk import File, SimDisk
from tests.sim.options import Options, draw
from tests.sim.schedule import Schedule

Tune = Callable[[Options], Options]


Patch = tuple[Any, str, Any]
"""(where, name, what to put there)"""


class Ablation(NamedTuple):
    rule: str
    what: str
    patches: tuple[Patch, ...]
    tune: Tune = lambda options: options
    """Which faults it takes; a schedule in which the rule never matters shows nothing."""
    story: Callable[[], None] | None = None
    """A scenario test that fails without the rule, for what chance rarely brings about."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for target, name, replacement in self.patches:
                stack.enter_context(patch.object(target, name, replacement))
            yield


class Detection(NamedTuple):
    """``schedules``: how many it took, or were tried in vain; ``violation``: what was found, "" for nothing."""

    schedules: int
    violation: str
    by_story: bool


def told(ablation: Ablation) -> str:
    """What the rule's own story says without the rule; "" if it has none or does not mind."""
    if ablation.story is not None:
        try:
            with ablation.applied():
                ablation.story()
        except AssertionError as error:
            return str(error) or "AssertionError"
    return ""


def detect(ablation: Ablation, schedules_max: int, first: int = 0) -> Detection:
    """Try schedules until one fails that succeeds with the rule in place; in the end ask the story."""
    for count in range(schedules_max):
        options = ablation.tune(draw(first + count))
        with ablation.applied():
            violation = Schedule(options).run().violation
        if violation and not Schedule(options).run().violation:
            return Detection(count + 1, violation, by_story=False)
    return Detection(schedules_max, told(ablation), by_story=True)


# --- what the rules are replaced by ---------------------------------------------------------------------------


_follow = FollowerState.__init__


def _cut_to_high_watermark(self: FollowerState, *arguments: Any) -> None:
    _follow(self, *arguments)
    self.log.truncate(self.log.high_watermark)


def _never_diverging(
    self: LeaderState, broker_id: int, broker_epoch: int, fetch: ReplicaFetchPartition, now_ms: int
) -> None:
    self.check_epoch(fetch.leader_epoch)
    self.followers[broker_id].on_fetch(fetch.fetch_offset, broker_epoch, self.log.end_offset, now_ms)


def _match_nothing(self: Fetcher, request: Any) -> bool:
    return self.inflight is not None


_apply = Fetcher._apply


def _apply_asleep(self: Fetcher, follower: FollowerState, result: Any, now_ms: int) -> None:
    self._asleep.pop(follower.partition, None)
    _apply(self, follower, result, now_ms)


def _give_up_on_any_failure(self: Proposals, request: Any, now_ms: int) -> None:
    for role in self._leaders():
        role.proposal = None
    self._inflight = None


def _ack_when_written(self: LeaderState, acks: int) -> int:
    return self.log.end_offset


def _anybody(state: PartitionState, is_eligible: Callable[[int], bool]) -> list[int]:
    return [r for r in state.replicas if is_eligible(r)]


def _lead_anyway(state: PartitionState, winner: int, min_isr: int) -> PartitionState:
    if winner not in {*state.isr, *state.elr, *state.last_known_elr}:
        state = msgspec.structs.replace(state, isr=[winner], elr=[])
    return partition_change.with_leader(state, winner, min_isr)


_check = alteration.check_proposal


def _without_cas(image: Any, draft: Draft, sender: int, proposal: Any) -> PartitionState:
    state = image.partition(proposal.topic, proposal.partition)
    epoch = proposal.partition_epoch if state is None else state.partition_epoch
    changed = msgspec.structs.replace(proposal, partition_epoch=epoch)
    return _check(image, draft, sender, changed)


def _effects_first(self: ControllerNode, decision: Any, now_ms: int) -> None:
    """Replay, tell everybody, and only then write the journal, unless the process dies before."""
    if not decision.records or self.core is None:
        _carry_out(self, decision, now_ms)
        return
    core, first = self.core, self.core.metadata_offset + 1
    for index, record in enumerate(decision.records, first):
        core.replay(index, record)
    self._perform(decision)
    self._perform(core.on_committed(now_ms))
    if self.rng.random() < self.dies_in_commit:
        self._die_in_commit()
        return
    self.journal.append(decision.records)
    if self.invariants is not None:
        self.invariants.on_journalled(first, decision.records)


_carry_out = ControllerNode._carry_out


class _Forgetful(dict[Any, int]):
    def get(self, key: Any, default: Any = None) -> Any:
        return default


_controller = ControllerCore.__init__


def _without_sequences(self: ControllerCore, *arguments: Any) -> None:
    _controller(self, *arguments)
    self._sequences = _Forgetful()


def _read_to_the_end(replica: Any, fetch: Any, max_bytes: int) -> memoryview:
    log = replica.log
    if not log.start_offset <= fetch.offset < log.end_offset:
        return memoryview(b"")
    return memoryview(log.read(fetch.offset, max_bytes, log.end_offset))


def _with(**changes: Any) -> Tune:
    return lambda options: replace(options, **changes)


LOSSY = _with(replicas=3, brokers=3, min_isr=2, wipes=0.4, kills=0.6, flush_policy="commit")
PROPOSING = _with(
    replicas=3, brokers=3, min_isr=2, replica_lag_max_ms=400, replica_fetch_wait_ms=50, kills=0.7, one_way_cuts=0.7
)
CRASHING = _with(
    replicas=3, brokers=3, min_isr=2, crashes=1.0, disk_delay_max_ms=40, flush_policy="commit", produce_interval_ms=10
)

ABLATIONS: tuple[Ablation, ...] = (
    Ablation("R1", "followers cut to their high watermark", ((FollowerState, "__init__", _cut_to_high_watermark),), PROPOSING),
    Ablation("R2", "leaders never point out a divergence", ((LeaderState, "on_fetch", _never_diverging),), PROPOSING),
    Ablation("R2", "data is sent to a position that diverges", ((FetchSession, "forget", lambda self, partition: None), (Fetcher, "_apply", _apply_asleep)),
             _with(replicas=3, brokers=3, full_disks=1.0, down_ms=3000, isolations=0.5),
             test_isr.test_a_follower_that_has_no_room_to_cut_its_tail_is_sent_nothing),
    Ablation("R4", "fetches of any leader epoch count", ((LeaderState, "check_epoch", lambda self, epoch: None),), PROPOSING),
    Ablation("R5", "an answer is taken for the request in flight", ((Fetcher, "_matches", _match_nothing),),
             _with(answer_twice=0.3, late=0.1, late_ms=1000, replicas=3, brokers=3, kills=1.0),
             test_isr.test_a_copied_diverging_answer_cuts_nothing),
    Ablation("R7", "a new leader shows a high watermark it is not sure of", ((LeaderState, "high_watermark_known", True),),
             _with(consumers=2, kills=1.0, replicas=3, brokers=3)),
    Ablation("R8", "followers acknowledge what is not durable", ((FollowerState, "must_flush", False),), CRASHING),
    Ablation("R8", "the high watermark moves below min.insync.replicas", ((LeaderState, "min_isr", 1),), LOSSY),
    Ablation("R9", "acks=all is answered when it is written", ((LeaderState, "_reached", _ack_when_written),)),
    Ablation("R12", "consumers are shown what is not committed", ((reads, "_read", _read_to_the_end),), _with(consumers=1)),
    Ablation("R13", "the proposed ISR is not counted",
             ((LeaderState, "maximal_isr", property(lambda self: set(self.state.isr))),), PROPOSING),
    Ablation("R14", "a proposal is given up on any failure", ((Proposals, "on_failed", _give_up_on_any_failure),),
             lambda o: replace(PROPOSING(o), lost=0.1, late=0.05, late_ms=1000)),
    Ablation("R15", "late copies of proposals are looked at", ((ControllerCore, "__init__", _without_sequences),),
             lambda o: replace(PROPOSING(o), request_twice=0.3, late=0.1, late_ms=1000),
             test_isr.test_a_late_copy_of_a_refused_proposal_is_never_applied),
    Ablation("R16", "proposals are applied to any partition epoch", ((controller, "check_proposal", _without_cas),),
             lambda o: replace(PROPOSING(o), late=0.05, late_ms=1000),
             test_isr.test_a_proposal_for_an_isr_of_yesterday_is_not_applied),
    Ablation("R17", "any registered process may join the ISR", ((alteration, "_check_eligible", lambda *_: None),),
             lambda o: replace(LOSSY(o), late=0.1, late_ms=2000, request_twice=0.2)),
    Ablation("R18", "a follower joins as soon as it is heard",
             ((leader, "may_join", lambda position, high_watermark, start: position is not None),), PROPOSING),
    Ablation("R20", "anybody alive is elected",
             ((election, "candidates", _anybody), (controller, "with_leader", _lead_anyway)), LOSSY),
    Ablation("R21", "an unclean broker stays eligible",
             ((controller, "without_unclean", lambda state, broker_id: state),), LOSSY),
    Ablation("R24", "the controller speaks before its journal is durable", ((ControllerNode, "_carry_out", _effects_first),),
             _with(dies_in_commit=0.2, journal_delay_max_ms=30)),
    Ablation("fsync", "the disk does not keep what was synced", ((File, "sync", lambda self: None),), CRASHING),
    Ablation("fsync", "directories are not synced", ((SimDisk, "fsync_dir", lambda self, path: None),), CRASHING),
)  # fmt: skip
