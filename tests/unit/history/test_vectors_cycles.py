"""Cycles: each graft has exactly one kind. With one edge turned round it has none."""

from __future__ import annotations

from random import Random

import pytest

from tests.process.checker.history import Event, Options, check
from tests.process.checker.history_grafts import GRAFTS, Graft
from tests.process.checker.verdict import CLASSES

OPTIONS = Options(ok_share_min=0.0, final_phase=None)
CYCLES = [name for name in CLASSES if name.startswith("G")]


def cycles(events: list[Event], options: Options = OPTIONS) -> dict[str, tuple[int, int]]:
    classes = check(events, options).classes
    found = {name: (classes[name].violations, classes[name].tolerated) for name in CYCLES}
    return {name: counts for name, counts in found.items() if counts != (0, 0)}


@pytest.mark.parametrize("name", CYCLES)
def test_each_kind_is_found_once_as_what_it_is(name: str) -> None:
    expected = (1, 0) if name.startswith("G1c-wr") else (0, 1)
    assert cycles(GRAFTS[name](Random(1))) == {name: expected}


def test_cycles_can_be_left_out() -> None:
    options = Options(ok_share_min=0.0, final_phase=None, cycles=False)
    assert cycles(GRAFTS["G1c-wr"](Random(1)), options) == {}


def test_no_cycle_when_both_keys_agree() -> None:
    graft = Graft(Random(1))
    a, b = graft.op("a", [("x", "a1"), ("y", "a2")]), graft.op("b", [("x", "b1"), ("y", "b2")])
    graft.ok(a, [0, 0])
    graft.ok(b, [1, 1])
    assert cycles(graft.events) == {}


def test_no_realtime_cycle_when_they_overlap() -> None:
    graft = Graft(Random(1))
    long = graft.op("long", [("x", "l1"), ("y", "l2")])
    first, second = graft.op("p", [("x", "p1")]), graft.op("q", [("y", "q1")])
    graft.ok(first, [1])
    graft.ok(second, [0])
    graft.ok(long, [0, 1])
    assert cycles(graft.events) == {}


def test_an_operation_of_unknown_end_orders_nothing_in_real_time() -> None:
    graft = Graft(Random(1))
    long = graft.op("long", [("x", "l1"), ("y", "l2")])
    first = graft.op("p", [("x", "p1")])
    graft.end(first, "info", [["send", graft.key("x"), [1, "p1"]]])
    second = graft.op("q", [("y", "q1")])
    graft.ok(second, [0])
    graft.ok(long, [0, 1])
    assert cycles(graft.events) == {}


def test_reading_one_way_is_no_cycle() -> None:
    graft = Graft(Random(1))
    a, b = graft.op("a", [("x", "a1")], {}), graft.op("b", [("y", "b1")], {})
    graft.ok(a, [0], {"y": []})
    graft.ok(b, [0], {"x": [[0, "a1"]]})
    assert cycles(graft.events) == {}


def test_a_failed_operation_is_no_node() -> None:
    graft = Graft(Random(1))
    a, b = graft.op("a", [("x", "a1")], {}), graft.op("b", [("y", "b1")], {})
    graft.end(a, "fail", [["send", graft.key("x"), [None, "a1"]], ["poll", {graft.key("y"): [[0, "b1"]]}]])
    graft.ok(b, [0], {"x": [[0, "a1"]]})
    assert cycles(graft.events) == {}


def test_a_long_cycle_and_what_follows_it() -> None:
    """A ring of 300 operations is one finding. The thousand ordinary ones after it are none of its
    members."""
    graft = Graft(Random(1))
    ops = [graft.op(f"p{n}", [(f"k{n}", f"a{n}"), (f"k{(n + 1) % 300}", f"b{n}")]) for n in range(300)]
    for op in ops:
        graft.ok(op, [1, 0])  # p(n-1) wrote to kn before pn did
    for n in range(1000):
        graft.ok(graft.op("after", [("z", f"z{n}")]), [n])
    assert cycles(graft.events) == {"G0": (0, 1)}
