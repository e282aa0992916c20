"""SharedController: one of several controllers around one journal in etcd.

As ``minilog/controller`` around ``core/controller/shared``: it stands by, takes the term, reads,
decides, and every write is asked again until its answer is known. One that is deposed ends, and
whoever supervises starts it again.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from minilog.core.controller.controller import ControllerCore
from minilog.core.controller.decision import Decision
from minilog.core.controller.shared.fence import Active, Fence, Part, Term, parts, taken, taking
from minilog.core.controller.shared.places import Places
from minilog.core.controller.shared.reading import look_of, looking, read
from minilog.core.controller.shared.snapshots import Snapshotting
from minilog.core.controller.shared.standby import Standby
from minilog.core.controller.shared.sureness import Sureness
from minilog.core.controller.shared.transaction import Answer, Entry, Transaction
from minilog.errors import BrokerUnavailable, Deposed, NotController
from minilog.wire.journal.metadata_records import AnyMetadataRecord, MetadataRecord
from minilog.wire.messages import Message, Problem, StandBy, StandByReply
from tests.sim.nodes.controller_node import ControllerNode
from tests.sim.nodes.etcd import SimEtcd, encode
from tests.sim.nodes.network import Inbound, Network, Response
from tests.sim.nodes.world import Violation, World

LOOK_MS = 100
TEND_MS = 250
HOLD_MS = 200
AGAIN_MS = 20
RESTART_MS = (50, 500)
FRAME_RECORDS = 3
"""More than these make several frames, so that decisions of several are usual here."""
PIECE_BYTES = 400

_decode = msgspec.msgpack.Decoder(list[AnyMetadataRecord]).decode
Landed = Callable[[Answer], None]


class SharedController(ControllerNode):
    def __init__(self, world: World, network: Network, number: int, etcd: SimEtcd) -> None:
        super().__init__(world, network)
        self.settings = msgspec.structs.replace(self.settings, journal="etcd")
        self.node_id, self.name = -number, f"ctl{number}"
        self.rng = world.rng(self.name)
        self.url = f"http://{self.name}:80"
        self.etcd = etcd
        self.places: Places = etcd.places
        self.peers: dict[str, int] = {}
        """Node ids of all controllers, by url."""
        self.is_active = False
        self.fence: Fence | None = None
        self.figures |= {"terms": 0, "deposed": 0, "split decisions": 0, "snapshots": 0}
        self._term: Term | None = None
        self._snap: Entry | None = None
        self._snapshot_index = 0

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.running:
            return
        self.begin_life()
        self.refused = ""
        self.requests, self._busy, self._tick_queued = {}, False, False
        self._queue.clear()
        self.core, self.fence, self.is_active = None, None, False
        self.standby, self.sureness = Standby(self.url, self.now_ms), Sureness()
        self._look()
        self._stand_by()

    def _end(self) -> None:
        super()._end()
        self.is_active, self.fence = False, None

    def _deposed(self, why: Deposed) -> None:
        self.figures["deposed"] += 1
        self.world.note(f"{self.name} is deposed: {why}")
        self._end()
        self.world.after(self.rng.randint(*RESTART_MS), f"{self.name} is started again", self.start)

    # --- standing by ------------------------------------------------------------------------------

    def _look(self) -> None:
        def on_answer(answer: Answer | None) -> None:
            if self.fence is not None:
                return
            if answer is not None:
                self.standby.on_look(look_of(self.places, 0, answer), self.now_ms)
            if answer is not None and self.standby.takes(self.now_ms):
                self._take()
            else:
                self.later(LOOK_MS, "poll", self._look)

        self.etcd.ask(self, looking(self.places, 0), on_answer)

    def _stand_by(self) -> None:
        if self.fence is not None:
            return
        target = self.peers.get(self.standby.holder_url)
        if target is None:
            self.later(LOOK_MS, "poll", self._stand_by)
            return
        nonce = self.standby.holder_nonce

        def on_response(response: Response) -> None:
            match response:
                case StandByReply():
                    self.standby.on_answer(response.nonce, self.now_ms)
                case BrokerUnavailable() if response.info.get("reason") == "refused":
                    self.standby.on_refused(nonce)
                case Problem() if response.code == NotController.code:
                    self.standby.on_replaced(nonce)
            self.later(AGAIN_MS, "poll", self._stand_by)

        asked = StandBy(self.url, nonce, 0, HOLD_MS, self.standby.looked_ms_ago(self.now_ms))
        self.network.send(self, target, asked, on_response, 4 * HOLD_MS)

    def _take(self) -> None:
        seen = self.standby.term
        former = None if seen is None else Term.decode(seen.value)
        number = 1 if former is None else former.number + 1
        term = Term(number, self.name, self.url, f"{self.rng.getrandbits(64):016x}")
        asked_ms = self.now_ms

        def on_answer(answer: Answer) -> None:
            mod = taken(answer, term)
            if mod is None:
                self.later(LOOK_MS, "poll", self._look)
                return
            self._term, self.fence = term, Fence(self.places, mod, None)
            self.sureness.on_held(asked_ms)
            self.figures["terms"] += 1
            self._begin()

        self._write(taking(self.places, seen, term), on_answer)

    def _begin(self) -> None:
        assert self.fence is not None
        stored = read(self.places, self.etcd.read)
        try:
            self.fence.check_term(stored.term)
        except Deposed as why:
            self._deposed(why)
            return
        fence = self.fence = Fence(self.places, self.fence.term_mod, stored.end)
        self._snap, self._snapshot_index = stored.snap, stored.snapshot_index
        core = ControllerCore(self.settings, self.rng)
        if stored.snapshot:
            core.load(stored.snapshot_index, _decode(stored.snapshot))
        for _, data in stored.frames:
            for record in _decode(data):
                core.replay(core.metadata_offset + 1, record)
        if core.metadata_offset != stored.end_index:
            raise Violation("Prefix", f"{self.name} has {core.metadata_offset} records of {stored.end_index}")

        def on_cleared(answer: Answer) -> None:
            fence.on_cleared(answer)
            self._decide_first(core)

        self._write(fence.clearing(stored.end_index), on_cleared)

    def _decide_first(self, core: ControllerCore) -> None:
        if self.invariants is not None:
            self.invariants.ballots.on_controller_started()
        self.core = core
        core.wall_ahead_ms = self.wall_ahead_ms
        self._busy = True
        self.later(self.rng.randint(0, self.tick_ms), "tick", self._tick)
        self._tend()
        self._carry_out(core.start(self.now_ms))

    # --- deciding ---------------------------------------------------------------------------------

    def receive(self, inbound: Inbound) -> None:
        request: Message = inbound.request
        if not self.is_active:
            url, epoch = self.standby.holder_url, 0
            self.network.reply(inbound, Problem.of(NotController("it stands by", standby=True, url=url, epoch=epoch)))
        elif isinstance(request, StandBy):
            assert self._term is not None
            reply = StandByReply(self._term.nonce, 0, 0)
            if request.nonce == self._term.nonce:
                self.sureness.on_standby(request.looked_ms_ago, self.now_ms)
            self.later(request.wait_ms, "poll", lambda: self.network.reply(inbound, reply))
        elif not self.sureness.is_sure(self.now_ms):
            self.network.reply(inbound, Problem.of(NotController("it hears nothing of etcd", standby=True)))
        else:
            super().receive(inbound)

    def disconnected(self, inbound: Inbound) -> None:
        if self.core is not None:
            super().disconnected(inbound)

    def _carry_out(self, decision: Decision) -> None:
        if not decision.records:
            self._perform(decision)
            self._rest()
            return
        self._busy = True
        assert self.core is not None
        assert self.fence is not None
        records = list(decision.records)
        frames = [records[at : at + FRAME_RECORDS] for at in range(0, len(records), FRAME_RECORDS)]
        self.figures["split decisions"] += len(frames) > 1
        todo = parts(self.core.metadata_offset + 1, [(len(one), encode(one)) for one in frames])
        if self._dies():
            return
        self._append(todo, decision)

    def _append(self, todo: list[Part], decision: Decision) -> None:
        fence, part, asked_ms = self.fence, todo[0], self.now_ms
        assert fence is not None

        def on_answer(answer: Answer) -> None:
            fence.on_appended(part, answer)
            self.sureness.on_held(asked_ms)
            if len(todo) > 1:
                self._append(todo[1:], decision)
            elif not self._dies():
                self._check_prefix(decision.records)
                self.is_active = True
                self._apply(decision)

        self._write(fence.appending(part), on_answer)

    def _dies(self) -> bool:
        dies = self.dies_in_commit > 0 and self.rng.random() < self.dies_in_commit / 2
        if dies:
            self._die_in_commit()
        return dies

    def _check_prefix(self, records: list[MetadataRecord]) -> None:
        """What this one replays is what counts."""
        assert self.core is not None
        first = self.core.metadata_offset
        if self.etcd.records[first : first + len(records)] != [encode(record) for record in records]:
            raise Violation("Prefix", f"{self.name} replays from {first + 1} on what the journal does not hold there")

    def _perform(self, decision: Decision) -> None:
        assert self.core is not None
        if decision.effects and self.core.metadata_offset > len(self.etcd.records):
            raise Violation("Prefix", f"{self.name} tells of {self.core.metadata_offset}, which does not count yet")
        super()._perform(decision)

    def _rest(self) -> None:
        assert self.core is not None
        if self.core.metadata_offset - self._snapshot_index <= self.settings.snapshot_records:
            self._busy = False
            return
        assert self.fence is not None
        index = self._snapshot_index = self.core.metadata_offset
        making = Snapshotting(self.fence, index, encode(self.core.snapshot()), self._snap, PIECE_BYTES)
        self.figures["snapshots"] += 1
        self._snap_on(making, making.steps())

    def _snap_on(self, making: Snapshotting, steps: list[Transaction]) -> None:
        def on_answer(answer: Answer) -> None:
            self._snap = making.on_done(steps[0], answer) or self._snap
            if len(steps) > 1:
                self._snap_on(making, steps[1:])
            else:
                self._busy = False
                self._work()

        self._write(steps[0], on_answer)

    def _commit(self, decision: Decision) -> None:
        raise AssertionError("it is etcd that makes a decision durable")

    # --- writing ----------------------------------------------------------------------------------

    def _write(self, transaction: Transaction, on_landed: Landed) -> None:
        """R123: the same again until its answer is known."""

        def on_answer(answer: Answer | None) -> None:
            if answer is None:
                self.later(AGAIN_MS, "poll", lambda: self._write(transaction, on_landed))
                return
            try:
                on_landed(answer)
            except Deposed as why:
                self._deposed(why)

        self.etcd.ask(self, transaction, on_answer)

    def _tend(self) -> None:
        fence, term, asked_ms = self.fence, self._term, self.now_ms
        assert fence is not None
        assert term is not None

        def on_answer(answer: Answer | None) -> None:
            if answer is not None and not answer.succeeded:
                try:
                    fence.check_term(answer.only(0))
                except Deposed as why:
                    self._deposed(why)
                    return
            if answer is not None:
                self.sureness.on_held(asked_ms)
            self.later(TEND_MS, "poll", self._tend)

        self.etcd.ask(self, fence.saying_active(Active(self.url, 0, term.nonce)), on_answer)
