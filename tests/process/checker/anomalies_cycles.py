"""Cycles of dependencies between operations: G0, G1c, and the same with process order or real time
added.

Edges
* ww: from the operation that sent the value at one known offset to the one that sent the value at
  the next.
* wr: from the operation that sent a value to every other operation that polled it.
* process: from each operation of a process, once ended, to all it invoked later.
* real time: from every ``ok`` operation to all that began after its end. An ``info`` may take
  effect later, so its end orders nothing.
(rw edges stay off, as in the workload this follows.)

Decisions
* Nodes are ``ok`` and ``info`` data operations. Where two values are at one offset, the first seen
  stands for it.
* A strongly connected component is one finding. It belongs to a class when the class's own edge
  kind connects two members (then that edge lies on a cycle), and is not told again under a wider
  class when it has the same members.
* Kafka's model gives no write isolation, so G0* and G1c* with ww edges are counted only; cycles of
  wr edges alone (G1c-wr*) are violations. What is never allowed of G0-realtime, one key's order, is
  the class realtime-send.
* Real time is a chain of points between events (end -> point -> point -> begin): linear in size,
  the same cycles.
* First everything that cannot lie on any cycle is peeled off. In a clean history nothing is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from tests.process.checker.history_format import Process
from tests.process.checker.history_index import Index, Op
from tests.process.checker.verdict import Findings

Edges = list[list[int]]
Graph = dict[str, Edges]  # kind -> node -> nodes

_CLASSES: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...], bool], ...]] = (
    # name, edge kinds of the graph, kinds that must connect members, tolerated
    ("G0", ("ww",), ("ww",), True),
    ("G1c-wr", ("wr",), ("wr",), False),
    ("G1c", ("ww", "wr"), ("ww", "wr"), True),
    ("G0-process", ("ww", "process"), ("ww", "process"), True),
    ("G1c-wr-process", ("wr", "process"), ("wr", "process"), False),
    ("G1c-process", ("ww", "wr", "process"), ("ww", "wr", "process"), True),
    ("G0-realtime", ("ww", "realtime"), ("ww", "realtime"), True),
    ("G1c-wr-realtime", ("wr", "realtime"), ("wr", "realtime"), False),
    ("G1c-realtime", ("ww", "wr", "realtime"), ("ww", "wr", "realtime"), True),
)


def judge(index: Index, findings: Findings) -> None:
    ops = [op for op in index.data_ops if op.type != "fail"]
    graph = _graph(index, ops)
    everything = list(graph.values())
    left = _peel(everything)
    if not left:
        return
    left = set().union(*_components(everything, left))
    told: dict[bool, set[frozenset[int]]] = {True: set(), False: set()}
    for name, kinds, needed, allowed in _CLASSES:
        for members in _components([graph[kind] for kind in kinds], left):
            inside = frozenset(node for node in members if node < len(ops))
            if inside in told[allowed] or not all(_connects(graph[kind], members) for kind in needed):
                continue
            told[allowed].add(inside)
            examples = findings.add(name, allowed=allowed)
            if examples is not None:
                listed = sorted(inside)
                more = f" and {len(listed) - 6} more" if len(listed) > 6 else ""
                examples.append(" <-> ".join(str(ops[node]) for node in listed[:6]) + more)


# --- edges ----------------------------------------------------------------------------------------


def _graph(index: Index, ops: Sequence[Op]) -> Graph:
    """Nodes are the operations, then the points of real time, then those of the processes."""
    nodes = {op.number: node for node, op in enumerate(ops)}
    realtime = _realtime(ops)
    process = _process(ops, len(realtime))
    realtime += [[] for _ in range(len(process) - len(realtime))]
    size = len(process)
    return {"ww": _ww(index, nodes, size), "wr": _wr(index, ops, nodes, size), "process": process, "realtime": realtime}


def _ww(index: Index, nodes: dict[int, int], size: int) -> Edges:
    edges: Edges = [[] for _ in range(size)]
    for log in index.keys.values():
        before = None
        for offset in log.order:
            writer = log.writer.get(log.log[offset])
            node = None if writer is None else nodes.get(writer.number)
            if node is None:
                continue
            if before is not None and before != node:
                edges[before].append(node)
            before = node
    return edges


def _wr(index: Index, ops: Sequence[Op], nodes: dict[int, int], size: int) -> Edges:
    edges: Edges = [[] for _ in range(size)]
    for reader, op in enumerate(ops):
        writers = set()
        for key, records in op.polls.items():
            writer_of = index.keys[key].writer
            for record in records:
                writer = writer_of.get(record[1])
                if writer is not None:
                    writers.add(nodes.get(writer.number, reader))
        writers.discard(reader)
        for node in writers:
            edges[node].append(reader)
    return edges


def _process(ops: Sequence[Op], points: int) -> Edges:
    """Like real time, but each process has points of its own, and an ``info`` ends its operation
    too."""
    edges: Edges = [[] for _ in range(points)]
    by_process: dict[Process, list[int]] = defaultdict(list)
    for node, op in enumerate(ops):
        by_process[op.process].append(node)
    for members in by_process.values():
        begins = [(ops[node].invoke_i, node, True) for node in members]
        _chain([*begins, *((ops[node].done_i, node, False) for node in members)], edges)
    return edges


def _realtime(ops: Sequence[Op]) -> Edges:
    edges: Edges = [[] for _ in ops]
    begins = [(op.invoke_i, node, True) for node, op in enumerate(ops)]
    _chain([*begins, *((op.done_i, node, False) for node, op in enumerate(ops) if op.type == "ok")], edges)
    return edges


def _chain(boundaries: list[tuple[int, int, bool]], edges: Edges) -> None:
    """Order begins after ends through points, appended to ``edges``. ``boundaries``: (when, node,
    is it a begin)."""
    boundaries.sort()
    point, ended = None, False
    for _, node, begin in boundaries:
        if begin:
            ended = False
            if point is not None:
                edges[point].append(node)
            continue
        if not ended:  # the first end after a begin opens a new point
            edges.append([])
            if point is not None:
                edges[point].append(len(edges) - 1)
            point, ended = len(edges) - 1, True
        assert point is not None
        edges[node].append(point)


# --- components -----------------------------------------------------------------------------------


def _peel(graphs: Sequence[Edges]) -> set[int]:
    """The nodes left when those without edges into them are taken away again and again (Kahn
    1962)."""
    size = len(graphs[0])
    incoming = [0] * size
    for edges in graphs:
        for targets in edges:
            for target in targets:
                incoming[target] += 1
    ready = [node for node in range(size) if not incoming[node]]
    for node in ready:  # grows while it is walked
        for edges in graphs:
            for target in edges[node]:
                incoming[target] -= 1
                if not incoming[target]:
                    ready.append(target)
    return set(range(size)) - set(ready) if len(ready) < size else set()


def _connects(edges: Edges, members: set[int]) -> bool:
    return any(target in members for node in members for target in edges[node])


def _components(graphs: Sequence[Edges], within: set[int]) -> list[set[int]]:
    """Strongly connected components with more than one member (Tarjan 1972, without recursion)."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[set[int]] = []

    def targets(node: int) -> list[int]:
        return [t for edges in graphs for t in edges[node] if t in within]

    def enter(node: int) -> tuple[int, list[int]]:
        number[node] = low[node] = len(number)
        stack.append(node)
        on_stack.add(node)
        return node, targets(node)

    for root in sorted(within - number.keys()):
        path = [] if root in number else [enter(root)]
        while path:
            node, remaining = path[-1]
            if remaining:
                target = remaining.pop()
                if target not in number:
                    path.append(enter(target))
                elif target in on_stack:
                    low[node] = min(low[node], number[target])
                continue
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[node])
            if low[node] == number[node]:
                members = _pop_component(node, stack, on_stack)
                if len(members) > 1:
                    found.append(members)
    return found


def _pop_component(node: int, stack: list[int], on_stack: set[int]) -> set[int]:
    members: set[int] = set()
    while node not in members:
        members.add(stack.pop())
    on_stack -= members
    return members
