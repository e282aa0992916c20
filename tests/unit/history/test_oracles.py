"""The checker against definitions written down a second time, naively and in the plainest words.

The histories are generated and damaged at random, so most are wrong in several ways. Where the
checker decided to go by offset and not by index (order of polls), the two are compared on logs
without conflicts, where both mean the same.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.process.checker.history import Event, check
from tests.process.checker.history_draft import Draft
from tests.process.checker.history_format import MalformedHistory
from tests.process.checker.history_generator import Shape, generate
from tests.process.checker.history_mutations import CORRUPTIONS
from tests.process.checker.history_selftest import OPTIONS

Pair = tuple[str, str]


class Naive:
    """Plain sets by (key, value), straight from the events. Single sends only: no batch, no
    transaction."""

    def __init__(self, events: list[Event]) -> None:
        self.log: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.ok_read: set[Pair] = set()
        self.acked: set[Pair] = set()
        self.failed: set[Pair] = set()
        self.polls: list[tuple[Event, str, list[Any]]] = []
        weak = {event.i for event in events if event.acks == 1}
        asked = {event.i: event.value for event in events if event.type == "invoke"}
        for event in events:
            if event.f == "send" and event.type != "invoke":
                self._on_sent(event, asked[event.op or 0], event.op in weak)
            elif event.f == "poll" and event.type != "invoke" and event.value is not None:
                for key, records in event.value[0][1].items():
                    self.polls.append((event, key, records))
                    self._on_polled(event, key, records)

    def _on_sent(self, event: Event, asked: list[Any], weak: bool) -> None:
        for n, (_, key, value, *_) in enumerate(asked):
            offset = event.value[n][2][0] if event.value is not None else None
            if event.type == "fail":
                self.failed.add((key, value))
            elif not weak and offset is not None:  # acknowledged, alone or with the rest
                self.acked.add((key, value))
                self.log[key][offset].add(value)

    def _on_polled(self, event: Event, key: str, records: list[Any]) -> None:
        for offset, value, *_ in records:
            self.log[key][offset].add(value)
            if event.type == "ok":
                self.ok_read.add((key, value))

    def indexes(self, key: str, value: str) -> list[int]:
        offsets = sorted(self.log[key])
        return [index for index, offset in enumerate(offsets) if value in self.log[key][offset]]

    def inconsistent_offsets(self) -> int:
        return sum(len(values) > 1 for log in self.log.values() for values in log.values())

    def duplicates(self) -> int:
        values = {(key, value) for key, log in self.log.items() for at in log.values() for value in at}
        return sum(len(self.indexes(key, value)) > 1 for key, value in values)

    def lost_writes(self) -> int:
        lost = 0
        for key in self.log:
            firsts = [
                min(self.indexes(key, value)) for k, value in self.ok_read if k == key and self.indexes(key, value)
            ]
            bound = max(firsts, default=-1)
            for k, value in self.acked - self.ok_read:
                lost += k == key and bool(self.indexes(key, value)) and max(self.indexes(key, value)) <= bound
        return lost

    def unseen(self) -> int:
        return len(self.acked - self.ok_read)

    def aborted_reads(self) -> int:
        return len(self.failed & self.ok_read)

    def inside_polls(self) -> tuple[int, int]:
        """(skips, steps back) between neighbours of one poll, by index."""
        skips = back = 0
        for event, key, records in self.polls:
            if key in (event.rebalanced or ()):
                continue
            for a, b in pairwise(records):
                delta = self.indexes(key, b[1])[0] - self.indexes(key, a[1])[0]
                skips += delta > 1
                back += delta < 1
        return skips, back


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), damages=st.integers(0, 3))
def test_counts_agree_with_the_definitions(seed: int, damages: int) -> None:
    random = Random(seed)
    clean = generate(seed, Shape(steps=150, sends_max=1))
    draft = Draft(clean)
    for _ in range(damages):
        name, _, corrupt = random.choice(CORRUPTIONS)
        if name != "precommitted-read" and not name.startswith("G"):
            corrupt(draft, random)
    try:
        verdict = check(draft.events, OPTIONS)
    except MalformedHistory:
        return
    naive, found = Naive(draft.events), verdict.classes
    assert found["inconsistent-offsets"].violations == naive.inconsistent_offsets()
    assert found["duplicate"].violations == naive.duplicates()
    assert found["lost-write"].violations == naive.lost_writes()
    assert found["unseen"].violations == naive.unseen()
    assert found["aborted-read"].violations == naive.aborted_reads()
    if not naive.inconsistent_offsets() and not naive.duplicates():
        counted = found["int-poll-skip"].violations, found["int-nonmonotonic-poll"].violations
        assert counted == naive.inside_polls()


# --- cycles ---------------------------------------------------------------------------------------


def naive_g0(logs: dict[str, list[str]], writer: dict[Pair, int]) -> int:
    """How many groups of operations reach each other over "wrote directly before"."""
    edges = {(writer[k, a], writer[k, b]) for k, log in logs.items() for a, b in pairwise(log)}
    nodes = set(writer.values())
    reach = {node: {node} for node in nodes}
    for _ in nodes:
        for a, b in edges:
            reach[a] |= reach[b]
    groups = {frozenset(b for b in nodes if b in reach[a] and a in reach[b]) for a in nodes}
    return sum(len(group) > 1 for group in groups)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cycles_of_writes_agree_with_reachability(data: st.DataObject) -> None:
    """Concurrent operations, each sending a few records to three keys, laid down in any order."""
    keys = ["x", "y", "z"]
    sends = data.draw(st.lists(st.lists(st.sampled_from(keys), min_size=1, max_size=3), min_size=1, max_size=8))
    writer = {(key, f"{n}.{m}"): n for n, op in enumerate(sends) for m, key in enumerate(op)}
    logs = {key: data.draw(st.permutations([v for k, v in writer if k == key])) for key in keys}
    events = [Event(n, n, f"p{n}", "invoke", "send", [["send", k, f"{n}.{m}"] for m, k in enumerate(op)]) for n, op in enumerate(sends)]  # fmt: skip
    for n, op in enumerate(sends):
        value = [["send", k, [logs[k].index(f"{n}.{m}"), f"{n}.{m}"]] for m, k in enumerate(op)]
        events.append(Event(len(events), 99, f"p{n}", "ok", "send", value, op=n))
    assert check(events, OPTIONS).classes["G0"].tolerated == naive_g0(logs, writer)
