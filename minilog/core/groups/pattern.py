"""Patterns: topic names by a regular expression, in time linear in the name whatever the
expression.

A pattern fits whole names. It may hold literals, ``.``, classes such as ``[a-z_]`` and ``[^0-9]``,
``\\d \\w \\s`` and their negations, groups ``( )`` and ``(?: )``, alternatives ``|``, and ``* + ?
{m} {m,} {m,n}``. ``^`` and ``$`` only at its ends. That is the common part of RE2 and of what
people write; back references and look-around are refused, for no automaton can do them. Why not
``re``: its backtracking takes exponential time on patterns a user can send.

A pattern becomes a nondeterministic automaton (Thompson 1968) of at most STATES_MAX states. Names
are run through the deterministic one that belongs to it, of which only what names have asked for is
made, and remembered: a character costs one look-up, whatever the pattern, and what is not known yet
costs as many steps as there are states in the set. These steps are counted. A pattern that takes
more than STEPS_MAX of them is refused, so what any pattern costs is bounded by STEPS_MAX and the
length of the names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from minilog.errors import InvalidRequest

PATTERN_CHARS_MAX: Final = 249
STATES_MAX: Final = 2000
REPEAT_MAX: Final = 100
DEPTH_MAX: Final = 20
STEPS_MAX: Final = 200_000
"""Some 50 ms worth."""
STEPS_PER_SET: Final = 10
"""What a set of states costs besides: so many bound how many are remembered, too."""

Test = Callable[[str], bool]
_CLASSES: Final[dict[str, Test]] = {
    "d": str.isdecimal,
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
    "D": lambda c: not c.isdecimal(),
    "W": lambda c: not (c.isalnum() or c == "_"),
    "S": lambda c: not c.isspace(),
}


_END: Final = -1


class _Node(NamedTuple):
    """``test`` None: what is behind ``next`` is reached without a character. With ``next`` empty it
    is the end."""

    test: Test | None
    next: list[int]


class _Part(NamedTuple):
    """A piece of automaton: where it begins, and the node at its end, whose ``next`` is still
    open."""

    first: int
    last: int


class _States:
    """A set of states, and the sets it goes over to. ``is_final``: whatever characters come, it
    stays as it is."""

    __slots__ = ("accepts", "following", "is_final", "waiting")

    def __init__(self, waiting: list[_Node], *, accepts: bool) -> None:
        self.waiting, self.accepts = waiting, accepts
        self.is_final = not waiting and not accepts
        self.following: dict[str, _States] = {}


class Pattern:
    def __init__(self, text: str) -> None:
        """Raises InvalidRequest with a sentence that names the place."""
        if not 1 <= len(text) <= PATTERN_CHARS_MAX:
            raise InvalidRequest(f"a pattern has 1 to {PATTERN_CHARS_MAX} characters, this one {len(text)}")
        self.text = text
        parser = _Parser(text)
        self._first = parser.parse()
        self._nodes = parser.nodes
        self.forget()

    def forget(self) -> None:
        """Begin anew: nothing is remembered of the names looked at, and no step is counted."""
        self.steps = 0
        self._known: dict[frozenset[int], _States] = {}
        self._start: _States | None = None

    def fits(self, name: str) -> bool:
        """Raises InvalidRequest when this and the names before it have taken too many steps."""
        if self._start is None:
            self._start = self._reach([self._first])
        states = self._start
        for character in name:
            if states.is_final:
                break
            following = states.following.get(character)
            if following is None:
                following = states.following[character] = self._move(states, character)
            states = following
        return states.accepts

    def _move(self, states: _States, character: str) -> _States:
        self._count(STEPS_PER_SET + len(states.waiting))
        tests = [(node.test, node.next) for node in states.waiting]
        following = self._reach([t for test, after in tests if test is not None and test(character) for t in after])
        if following is states:
            states.is_final = all(test is _anything for test, _ in tests)
        return following

    def _reach(self, states: list[int]) -> _States:
        """The set of everything that needs no character to get to. The same object for the same
        set."""
        seen: set[int] = set()
        stack, found, accepts = states, [], False
        while stack:
            state = stack.pop()
            if state in seen:
                continue
            seen.add(state)
            node = self._nodes[state]
            if node.test is not None:
                found.append(state)
            else:
                accepts = accepts or not node.next
                stack += node.next
                self._count(1 + len(node.next))
        key = frozenset((*found, *([_END] if accepts else [])))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _States([self._nodes[state] for state in found], accepts=accepts)
        return known

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > STEPS_MAX:
            raise InvalidRequest(
                f"the pattern {self.text!r} takes more than {STEPS_MAX} steps to tell which topics it fits; "
                "use fewer repetitions, or name the topics"
            )


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.nodes: list[_Node] = []
        self._depth = 0

    def parse(self) -> int:
        if self._peek() == "^":
            self.at += 1
        part = self._alternatives()
        if self.at < len(self.text):
            raise self._error(f"{self.text[self.at]!r} stands alone")
        return part.first

    def _error(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"the pattern {self.text!r} cannot be used: {what}, at character {self.at}")

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _node(self, test: Test | None = None) -> int:
        if len(self.nodes) >= STATES_MAX:
            raise InvalidRequest(f"the pattern {self.text!r} is too large: it takes more than {STATES_MAX} states")
        self.nodes.append(_Node(test, []))
        return len(self.nodes) - 1

    def _link(self, source: int, target: int) -> None:
        self.nodes[source].next.append(target)

    # --- grammar ----------------------------------------------------------------------------------

    def _alternatives(self) -> _Part:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error(f"groups are nested more than {DEPTH_MAX} deep")
        choices = [self._sequence()]
        while self._peek() == "|":
            self.at += 1
            choices.append(self._sequence())
        self._depth -= 1
        if len(choices) == 1:
            return choices[0]
        first, last = self._node(), self._node()
        for choice in choices:
            self._link(first, choice.first)
            self._link(choice.last, last)
        return _Part(first, last)

    def _sequence(self) -> _Part:
        first = last = self._node()
        while self._peek() not in ("", "|", ")"):
            if self.text[self.at :] == "$":
                self.at += 1
                break
            part = self._repeated()
            self._link(last, part.first)
            last = part.last
        return _Part(first, last)

    def _repeated(self) -> _Part:
        begin = self.at
        part = self._atom()
        end, bounds = self.at, self._bounds()
        if bounds is None:
            return part
        if self._peek() in ("*", "+", "?", "{") and self._peek():
            raise self._error("a repetition is repeated; use ( )")
        low, high = bounds
        copies = [part, *(self._again(begin, end) for _ in range(1, max(low, high or 0, 1)))]
        return self._chain(copies, low, high)

    def _chain(self, copies: list[_Part], low: int, high: int | None) -> _Part:
        first = last = self._node()
        end = self._node()
        for number, part in enumerate(copies):
            if number >= low:
                self._link(last, end)
            if number >= low and high == 0:
                break
            self._link(last, part.first)
            last = part.last
        if high is None:
            self._link(last, copies[-1].first)
        self._link(last, end)
        return _Part(first, end)

    def _again(self, begin: int, end: int) -> _Part:
        """The same atom once more, as new states."""
        resume, self.at = self.at, begin
        part = self._atom()
        assert self.at == end
        self.at = resume
        return part

    def _bounds(self) -> tuple[int, int | None] | None:
        """(least, most) of what follows an atom. Most None: no limit. None: nothing follows."""
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        character = self._peek()
        if character in simple:
            self.at += 1
            return simple[character]
        if character != "{":
            return None
        close = self.text.find("}", self.at)
        low, comma, high = self.text[self.at + 1 : max(close, 0)].partition(",")
        if close < 0 or not low.isdecimal() or not (high.isdecimal() or high == ""):
            raise self._error("a repetition is written {m}, {m,} or {m,n}")
        most = int(low) if not comma else (int(high) if high else None)
        if max(int(low), most or 0) > REPEAT_MAX or (most is not None and most < int(low)):
            raise self._error(f"the bounds of a repetition are ordered and at most {REPEAT_MAX}")
        self.at = close + 1
        return int(low), most

    def _atom(self) -> _Part:
        character = self._peek()
        if character == "(":
            return self._group()
        if character in ("*", "+", "?", "{", "^", "$"):
            raise self._error(f"{character!r} has nothing to stand on; write \\{character} for itself")
        self.at += 1
        if character == "[":
            test = self._class()
        elif character == ".":
            test = _anything
        elif character == "\\":
            test = self._escaped()
        else:
            test = character.__eq__
        node, last = self._node(test), self._node()
        self._link(node, last)
        return _Part(node, last)

    def _group(self) -> _Part:
        self.at += 3 if self.text.startswith("(?:", self.at) else 1
        if self._peek() == "?":
            raise self._error("only ( ) and (?: ) are groups; look-around and flags are not supported")
        part = self._alternatives()
        if self._peek() != ")":
            raise self._error("a ( is not closed")
        self.at += 1
        return part

    def _escaped(self) -> Test:
        character = self._peek()
        self.at += 1
        if character in _CLASSES:
            return _CLASSES[character]
        if not character or character.isalnum():
            raise self._error(f"\\{character} is not supported")
        return character.__eq__

    def _class(self) -> Test:
        negated = self._peek() == "^"
        self.at += negated
        tests: list[Test] = []
        while self._peek() != "]" or not tests:
            tests.append(self._class_item())
        self.at += 1
        return lambda c: any(test(c) for test in tests) != negated

    def _class_item(self) -> Test:
        low = self._peek()
        if not low:
            raise self._error("a [ is not closed")
        self.at += 1
        if low == "\\":
            if self._peek() in _CLASSES:
                return self._escaped()
            self._escaped()
            low = self.text[self.at - 1]
        after = self.text[self.at : self.at + 2]
        if len(after) == 2 and after[0] == "-" and after[1] != "]":
            self.at += 2
            if after[1] < low or after[1] == "\\":
                raise self._error(f"{low}-{after[1]} is no range")
            return lambda c: low <= c <= after[1]
        return low.__eq__


def _anything(character: str) -> bool:
    return True
