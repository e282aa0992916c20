"""The checker against a model: clean histories are valid, and every corruption of them is found out
as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.process.checker import history_selftest
from tests.process.checker.history import check
from tests.process.checker.history_draft import Draft
from tests.process.checker.history_format import decode, encode
from tests.process.checker.history_generator import Shape, generate
from tests.process.checker.history_mutations import CORRUPTIONS, Corruption
from tests.process.checker.history_selftest import OPTIONS, TOLERATED, Workshops, detect
from tests.process.checker.verdict import CLASSES

MUTATIONS = 3
STEPS = 200

shapes = st.builds(
    Shape,
    keys=st.integers(1, 4),
    producers=st.integers(1, 4),
    weak_producers=st.integers(0, 2),
    consumers=st.integers(0, 3),
    subscribers=st.integers(0, 3),
    steps=st.integers(0, 250),
    pipeline=st.integers(1, 5),
    sends_max=st.integers(1, 6),
    info_share=st.floats(0, 0.3),
    fail_share=st.floats(0, 0.3),
)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), shape=shapes)
def test_clean_histories_have_no_violation(seed: int, shape: Shape) -> None:
    clean = generate(seed, shape)
    verdict = check(clean.events, OPTIONS, replicas=clean.replicas, acks=clean.acks)
    assert verdict.violated == [], verdict
    if any(clean.logs.values()):
        assert not [problem for problem in verdict.problems if "final" in problem], verdict


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_verdict_depends_on_the_events_alone(seed: int) -> None:
    """Neither on the order they are handed over in nor on where they were stored."""
    clean = generate(seed, Shape(steps=150))
    shuffled = decode(encode(clean.events))
    Random(seed).shuffle(shuffled)
    assert check(shuffled, OPTIONS) == check(clean.events, OPTIONS)


def test_generating_is_deterministic_and_brings_what_is_hard() -> None:
    clean = generate(7)
    assert encode(clean.events) == encode(generate(7).events)
    kinds = {(event.f, event.type) for event in clean.events}
    assert kinds >= {("send", "info"), ("send", "fail"), ("poll", "info"), ("poll", "fail"), ("subscribe", "ok")}
    assert any(event.rebalanced for event in clean.events)
    assert any(event.batch for event in clean.events)
    assert any(event.hw and None in event.hw.values() for event in clean.events)


def test_every_class_is_put_to_the_test() -> None:
    assert {name for name, _, _ in CORRUPTIONS} == set(CLASSES)
    assert set(CLASSES) >= TOLERATED


@pytest.fixture(scope="module")
def workshops() -> Iterator[Workshops]:
    found = Workshops(STEPS)
    yield found
    assert found.false_positives == []


@pytest.mark.parametrize("row", CORRUPTIONS, ids=[f"{name}, {damage}" for name, damage, _ in CORRUPTIONS])
def test_every_corruption_is_detected(row: tuple[str, str, Corruption], workshops: Workshops) -> None:
    found = detect(row, MUTATIONS, 100, workshops.fitting(row[0]))
    assert (found.mutations, found.detected, found.missed_seeds) == (MUTATIONS, MUTATIONS, [])


def test_a_draft_without_damage_is_still_valid() -> None:
    clean = generate(3)
    draft = Draft(clean)
    assert check(draft.events, OPTIONS, replicas=draft.replicas, acks=draft.acks).valid


def test_the_self_test_says_what_it_missed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A corruption that damages nothing stands for a checker that sees nothing."""

    def harmless(draft: Draft, random: Random) -> bool:
        return True

    monkeypatch.setattr(history_selftest, "CORRUPTIONS", [("lost-write", "none at all", harmless)])
    assert history_selftest.self_test(2, 1) == 1
    assert "0 of 2 mutations detected" in capsys.readouterr().out
