"""A random walk of members agrees with a naive model of their group."""

from __future__ import annotations

import contextlib
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import (
    MinilogError,
    NotAssigned,
    Overloaded,
    StaleMemberEpoch,
    UnknownMember,
)
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffsets,
    LeaveGroup,
    OffsetCommit,
)
from tests.unit.core.groups.group_bench import Bench, Owned, parts


class Naive:
    """Who may believe to own what, from nothing but what members were told and said. ``held``: by
    member, what it works on. ``lost``: whether its next answer is lost on the way."""

    def __init__(self) -> None:
        self.held: dict[str, Owned] = {}
        self.epoch: dict[str, int] = {}
        self.end_ms: dict[str, int] = {}
        self.given_at: dict[tuple[str, tuple[str, int]], int] = {}
        self.offsets: dict[int, int | None] = {}

    def owners(self, part: tuple[str, int], now_ms: int) -> list[str]:
        return [m for m, held in self.held.items() if part in held and now_ms < self.end_ms[m]]


class Walk:
    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.bench = Bench(t=self.rng.randint(1, 6))
        self.naive = Naive()
        self.count = 0

    def run(self, steps: int) -> None:
        acts = [self.join, self.beat, self.beat, self.beat, self.beat, self.commit, self.commit, self.leave, self.wait]
        acts += [self.grow, self.fail_over, self.late_copy]
        for _ in range(steps):
            self.rng.choice(acts)()
            self.check()
        self.end()

    def member(self) -> str | None:
        return self.rng.choice(sorted(self.naive.held)) if self.naive.held else None

    def join(self) -> None:
        if len(self.naive.held) < 4:
            self.count += 1
            name = f"m{self.count}"
            self.naive.held[name], self.naive.epoch[name], self.naive.end_ms[name] = set(), 0, 0
            self.beat(name)

    def beat(self, member: str | None = None) -> None:
        member = member or self.member()
        if member is None:
            return
        naive, bench = self.naive, self.bench
        if naive.epoch[member] and bench.now_ms >= naive.end_ms[member]:
            naive.held[member], naive.epoch[member] = set(), 0
        try:
            reply = bench.beat(member, naive.epoch[member], naive.held[member])
        except UnknownMember:
            naive.held[member], naive.epoch[member], naive.end_ms[member] = set(), 0, 0
            return
        except Overloaded:
            return
        naive.end_ms[member] = bench.now_ms + 10_000
        if self.rng.random() < 0.2:
            naive.end_ms[member] -= 10_000 if not naive.held[member] else 0
            return  # the answer is lost
        naive.epoch[member] = reply.member_epoch
        for part in parts(reply) - naive.held[member]:
            assert not [m for m in naive.owners(part, bench.now_ms) if m != member]
            naive.given_at[member, part] = reply.member_epoch
        kept = {part for part in naive.held[member] - parts(reply) if self.rng.random() < 0.3}
        naive.held[member] = parts(reply) | kept

    def commit(self) -> None:
        member = self.member()
        if member is None or not self.naive.held[member]:
            return
        part = self.rng.choice(sorted(self.naive.held[member]))
        self.count += 1
        try:
            entry = OffsetCommit("t", part[1], self.count)
            self.bench.do(CommitOffsets("g", [entry], member, self.naive.epoch[member], self.count))
        except (UnknownMember, StaleMemberEpoch, NotAssigned):
            assert self.bench.now_ms >= self.naive.end_ms[member], "a live owner may commit"
        else:
            self.naive.offsets[part[1]] = self.count
            assert not [m for m in self.naive.owners(part, self.bench.now_ms) if m != member]

    def leave(self) -> None:
        member = self.member()
        if member is not None and self.rng.random() < 0.5:
            del self.naive.held[member]
            if self.rng.random() < 0.5:  # or it just dies
                self.bench.do(LeaveGroup("g", member))

    def wait(self) -> None:
        self.bench.tick(self.rng.choice((10, 1000, 4000, 11_000)))

    def late_copy(self) -> None:
        """Of anything that was ever asked. It changes nothing that a member has, nor what is
        committed."""
        with contextlib.suppress(MinilogError):
            self.bench.do(self.rng.choice(self.bench.said or [CommittedOffsets("g")]))

    def grow(self) -> None:
        if self.rng.random() < 0.3 and self.bench.shapes["t"].partitions < 9:
            self.bench.topics(t=self.bench.shapes["t"].partitions + 1)

    def fail_over(self) -> None:
        if self.rng.random() < 0.4:
            self.bench.fail_over(compacted=self.rng.random() < 0.5)

    def check(self) -> None:
        """What is committed is what was acknowledged last, whatever happened since."""
        assert self.bench.committed() == dict(sorted(self.naive.offsets.items()))

    def end(self) -> None:
        """Left alone, the members that live share everything out evenly."""
        self.bench.tick(13_000)
        self.join()
        self.bench.tick()
        for _ in range(40):  # a fifth of the answers is lost, and what is to be given back is kept now and then
            for member in self.naive.held:
                self.beat(member)
        held = self.naive.held.values()
        everything = {("t", p) for p in range(self.bench.shapes["t"].partitions)}
        assert sorted(p for parts_held in held for p in parts_held) == sorted(everything)
        assert max(map(len, held)) - min(map(len, held)) <= 1
        assert self.bench.describe().group.state == "stable"


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_random_walk_agrees_with_the_naive_model(seed: int) -> None:
    Walk(seed).run(60)
