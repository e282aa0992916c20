"""What must hold for consumer groups, seen from their members: nobody else can tell who really
works on what.

OneOwnerPerPartition     no partition is held by two members whose sessions are valid by their own clocks
CommittedOffsetsSurvive  a read of a committed offset gives the last acknowledged commit, or one whose end is not known,
                         or one that overlaps: it is a register, and no failover makes it forget
ZombiesDoNotCommit       no commit is acknowledged that was begun when somebody else had held the partition already
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.nodes.world import Violation, World

if TYPE_CHECKING:
    from tests.sim.nodes.members import Member

Part = tuple[str, int]


@dataclass
class Commit:
    """``offset`` is unique. ``outcome``: None while open, ok, failed (definitely), unknown."""

    member: str
    group: str
    part: Part
    offset: int
    begun_ms: int
    outcome: str | None = None
    ended_ms: int = 0


class GroupWatch:
    def __init__(self, world: World) -> None:
        self.world = world
        self.members: list[Member] = []
        self.commits: dict[tuple[str, Part], list[Commit]] = {}
        self.figures: Counter[str] = Counter()
        self._made = 0
        self._since: dict[tuple[str, Part], int] = {}

    # --- owners -----------------------------------------------------------------------------------

    def holders(self, group: str, part: Part) -> list[Member]:
        """Members that work on it and may believe that they may."""
        now_ms = self.world.now_ms
        return [
            m for m in self.members if m.group == group and m.running and part in m.held and now_ms < m.session_end_ms
        ]

    def on_taken(self, member: Member, part: Part) -> None:
        self.figures["partitions given"] += 1
        self.figures["checks"] += 1
        self._since[member.name, part] = self.world.now_ms
        others = [m for m in self.holders(member.group, part) if m is not member]
        if others:
            names = ", ".join(f"{m.name} as {m.member_id} at epoch {m.epoch}" for m in others)
            raise Violation("OneOwnerPerPartition", f"{member.name} is given {part} at {member.epoch}, held by {names}")

    def since(self, member: Member, part: Part) -> int:
        return self._since.get((member.name, part), -1)

    # --- commits ----------------------------------------------------------------------------------

    def begin_commit(self, member: Member, part: Part) -> Commit:
        self._made += 1
        commit = Commit(member.name, member.group, part, self._made, self.world.now_ms)
        self.commits.setdefault((member.group, part), []).append(commit)
        return commit

    def end_commit(self, commit: Commit, outcome: str) -> None:
        commit.outcome, commit.ended_ms = outcome, self.world.now_ms
        self.figures[f"commits {outcome}"] += 1
        self.figures["checks"] += 1
        if outcome != "ok":
            return
        for member in self.holders(commit.group, commit.part):
            if member.name != commit.member and self.since(member, commit.part) < commit.begun_ms:
                raise Violation(
                    "ZombiesDoNotCommit", f"{commit} was acknowledged, while {member.name} has the partition"
                )

    def on_read(self, group: str, part: Part, offset: int | None, begun_ms: int) -> None:
        """A committed offset was shown to somebody who asked for it at ``begun_ms``."""
        self.figures["checks"] += 1
        commits = self.commits.get((group, part), [])
        acknowledged = [c for c in commits if c.outcome == "ok" and c.ended_ms < begun_ms]
        if offset is None:
            if acknowledged and part[0] in self.lasting:
                raise Violation("CommittedOffsetsSurvive", f"{group} {part}: nothing, after {acknowledged[-1]}")
            return
        found = [c for c in commits if c.offset == offset]
        if not found or found[0].outcome == "failed":
            raise Violation("CommittedOffsetsSurvive", f"{group} {part}: {offset}, which nobody committed: {found}")
        later = [c for c in acknowledged if found[0].outcome == "ok" and c.begun_ms > found[0].ended_ms]
        if later:
            raise Violation("CommittedOffsetsSurvive", f"{group} {part}: {found[0]} is shown, after {later[-1]}")

    lasting: tuple[str, ...] = ()
    """Topics that are never deleted: their offsets never vanish."""
