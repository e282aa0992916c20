"""The judgement of numbered batches (R31) and what is remembered of producers (R32): tables, and a
naive second version."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilog.errors import DuplicateSequence, MinilogError, OutOfOrderSequence, ProducerFenced
from minilog.storage.log import producers
from minilog.storage.log.producers import SEQUENCE_MAX, Lasts, ProducerTable
from minilog.wire.batch import Batch, peek, stamp
from minilog.wire.records import encode_values
from tests.unit.storage.log.producer_model import DAY_MS, Model, Numbered, of_table

P = 7
NOW = 1_700_000_000_000
VERDICTS: dict[type[MinilogError], str] = {
    ProducerFenced: "fenced",
    OutOfOrderSequence: "out of order",
    DuplicateSequence: "duplicate",
}


def numbered(sequence: int, count: int = 1, epoch: int = 0, producer_id: int = P, timestamp: int = 1000) -> Batch:
    data = encode_values(
        [b"v"] * count, timestamp, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence
    )
    return peek(data)._replace(buffers=(data,))


class Log:
    """A log that is nothing but its producers."""

    def __init__(self, expiration_ms: int = DAY_MS) -> None:
        self.table = ProducerTable(expiration_ms)
        self.end_offset = 0
        self.batches: list[Batch] = []

    def take(self, *batches: Batch) -> None:
        """As replication does, unasked."""
        for batch in batches:
            placed = stamp(batch, self.end_offset, 0, 0)
            self.end_offset = placed.end_offset
            self.batches.append(placed)
            self.table.observe(placed)

    def judge(self, batch: Batch) -> str | int:
        try:
            found = self.table.find_written([batch])
        except MinilogError as error:
            return VERDICTS[type(error)]
        return "new" if not found or found[0] is None else found[0].base_offset


def log_of(*batches: Batch) -> Log:
    log = Log()
    log.take(*batches)
    return log


SEVEN = [numbered(2 * n, 2) for n in range(7)]
"""Sequences 0 to 14, two in each batch. Offsets are the same. The last five are remembered."""


@pytest.mark.parametrize(
    ("batch", "verdict"),
    [
        (numbered(14), "new"),
        (numbered(14, 100), "new"),
        (numbered(12, 2), 12),
        (numbered(4, 2), 4),
        (numbered(2, 2), "duplicate"),
        (numbered(0, 2), "duplicate"),
        (numbered(0, 4), "duplicate"),
        (numbered(0, 5), "out of order"),
        (numbered(12, 1), "out of order"),
        (numbered(13, 2), "out of order"),
        (numbered(3, 2), "out of order"),
        (numbered(15), "out of order"),
        (numbered(2**30 + 100), "out of order"),
        (numbered(SEQUENCE_MAX), "out of order"),
        (numbered(0, epoch=1), "new"),
        (numbered(0, epoch=3), "new"),
        (numbered(14, epoch=1), "out of order"),
        (numbered(12, 2, epoch=1), "out of order"),
        (numbered(99, producer_id=8), "new"),
        (numbered(99, epoch=5, producer_id=8), "new"),
        (numbered(-1, producer_id=-1), "new"),
    ],
)
def test_the_judgement_of_one_batch(batch: Batch, verdict: str | int) -> None:
    assert log_of(*SEVEN).judge(batch) == verdict


def test_a_lower_epoch_is_fenced_even_with_a_sequence_that_was_written() -> None:
    log = log_of(numbered(0), numbered(0, epoch=2))
    assert log.judge(numbered(0)) == "fenced"
    assert log.judge(numbered(1, epoch=1)) == "fenced"
    assert log.judge(numbered(0, epoch=2)) == 1


def test_errors_say_what_was_expected_and_seen_and_whether_it_may_be_written() -> None:
    log = log_of(*SEVEN)
    with pytest.raises(OutOfOrderSequence) as gap:
        log.table.find_written([numbered(20)])
    assert (gap.value.info, gap.value.definite) == ({"expected": 14, "seen": 20}, True)
    with pytest.raises(DuplicateSequence) as old:
        log.table.find_written([numbered(0, 2)])
    assert not old.value.definite
    with pytest.raises(ProducerFenced) as fenced:
        log_of(numbered(0, epoch=3)).table.find_written([numbered(0, epoch=2)])
    assert fenced.value.info == {"producer_epoch": 3}


def test_sequences_begin_at_zero_again_after_the_last_one() -> None:
    log = log_of(numbered(SEQUENCE_MAX - 2, 2))
    assert log.judge(numbered(SEQUENCE_MAX, 3)) == "new"
    log.take(numbered(SEQUENCE_MAX, 3))
    assert log.judge(numbered(2)) == "new"
    assert log.judge(numbered(SEQUENCE_MAX, 3)) == 2
    assert log.judge(numbered(SEQUENCE_MAX)) == "out of order"
    log.take(*[numbered(2 + n) for n in range(5)])
    assert log.judge(numbered(SEQUENCE_MAX, 3)) == "duplicate"


def test_what_was_before_the_first_known_batch_is_not_called_a_duplicate() -> None:
    """Nothing proves that it was written: saying so would be an acknowledgement of nothing."""
    log = log_of(*[numbered(100 + n) for n in range(8)])
    assert log.judge(numbered(100)) == "duplicate"
    assert log.judge(numbered(99)) == "out of order"
    assert log.judge(numbered(0)) == "out of order"


def test_replication_rejects_nothing_and_begins_anew_where_sequences_do_not_join() -> None:
    log = log_of(numbered(0), numbered(5), numbered(6))
    assert log.judge(numbered(7)) == "new"
    assert log.judge(numbered(0)) == "out of order"
    log.take(numbered(3, epoch=4))
    assert log.judge(numbered(6, epoch=4)) == "out of order"


REQUESTS: list[tuple[list[Batch], list[int | None] | type[MinilogError]]] = [
    ([numbered(14), numbered(15, 2)], []),
    ([numbered(12, 2), numbered(14), numbered(15)], [12, None, None]),
    ([numbered(10, 2), numbered(12, 2)], [10, 12]),
    ([numbered(-1, producer_id=-1), numbered(12, 2)], [None, 12]),
    ([numbered(12, 2), numbered(0, producer_id=8), numbered(1, producer_id=8)], [12, None, None]),
    ([numbered(14), numbered(16)], OutOfOrderSequence),
    ([numbered(14), numbered(14)], OutOfOrderSequence),
    ([numbered(14), numbered(12, 2)], OutOfOrderSequence),
    ([numbered(14), numbered(0, epoch=1)], []),
    ([numbered(14), numbered(1, epoch=1)], OutOfOrderSequence),
    ([numbered(0, epoch=1), numbered(14)], OutOfOrderSequence),
    ([numbered(0, 2), numbered(14)], DuplicateSequence),
    ([numbered(SEQUENCE_MAX, producer_id=8), numbered(0, producer_id=8)], []),
]


@pytest.mark.parametrize(("batches", "wanted"), REQUESTS)
def test_several_batches_of_one_request(batches: list[Batch], wanted: list[int | None] | type[MinilogError]) -> None:
    log = log_of(*SEVEN)
    if isinstance(wanted, list):
        assert [place and place.base_offset for place in log.table.find_written(batches)] == wanted
    else:
        with pytest.raises(wanted):
            log.table.find_written(batches)
    assert of_table(log.table) == of_table(log_of(*SEVEN).table), "asking changes nothing"


# --- forgetting -----------------------------------------------------------------------------------


@pytest.fixture
def few_witnesses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WITNESSES", 4), ("PRODUCERS_KEPT", 8), ("FORGOTTEN_AT_ONCE", 4), ("PRODUCERS_MAX", 30)):
        monkeypatch.setattr(producers, name, value)


def many(first_id: int, count: int, timestamp: int) -> list[Batch]:
    return [numbered(0, producer_id=first_id + n, timestamp=timestamp) for n in range(count)]


def ids(log: Log) -> list[int]:
    return [producer_id for producer_id, _ in log.table.items()]


@pytest.mark.usefixtures("few_witnesses")
def test_those_who_were_silent_for_longer_than_the_expiration_go_when_many_others_have_come() -> None:
    log = log_of(*many(100, 8, NOW), *many(200, 3, NOW + DAY_MS + 1))
    assert len(log.table) == 11, "too few of the later ones to tell that it is later"
    log.take(*many(300, 1, NOW + DAY_MS + 1))
    assert ids(log) == [*range(104, 108), *range(200, 203), 300]
    log.take(*many(400, 9, NOW + DAY_MS + 1))
    assert len(log.table) == 13, "and all of them, step by step: what is left is of one day"


@pytest.mark.usefixtures("few_witnesses")
def test_nobody_is_forgotten_within_the_expiration_before_there_are_too_many() -> None:
    log = log_of(*many(100, 15, NOW), *many(200, 15, NOW + DAY_MS))
    assert len(log.table) == 30
    log.take(*many(300, 1, NOW + DAY_MS))
    assert ids(log)[0] == 101


@pytest.mark.usefixtures("few_witnesses")
@pytest.mark.parametrize("time", [4_100_000_000_000, 2**63 - 1, 1_370_000_000_000, 0, -1])
def test_no_single_producer_makes_others_forgotten_whatever_times_it_gives(time: int) -> None:
    log = log_of(*many(100, 11, NOW))
    for n in range(50):
        log.take(numbered(n, producer_id=99, timestamp=time), *many(1000 + n, n % 4 == 0, NOW + n))
    assert ids(log)[:11] == list(range(100, 111))
    assert log.judge(numbered(0, producer_id=100)) == 0


@pytest.mark.usefixtures("few_witnesses")
def test_after_history_was_loaded_those_who_write_now_are_remembered() -> None:
    log = log_of(*[numbered(n, producer_id=9, timestamp=1_370_000_000_000 + n * DAY_MS) for n in range(40)])
    log.take(*many(100, 7, NOW))
    for n in range(40):
        log.take(numbered(1 + n, producer_id=106, timestamp=NOW + n))
    assert ids(log) == [9, *range(100, 107)]


@pytest.mark.usefixtures("few_witnesses")
def test_a_producer_of_records_of_long_ago_is_remembered_like_any_other() -> None:
    log = log_of(*many(100, 7, NOW), numbered(0, producer_id=9, timestamp=5), *many(200, 7, NOW))
    log.take(*many(300, 9, NOW + DAY_MS // 2))
    assert log.judge(numbered(0, producer_id=9)) == 7


def test_one_producer_too_many_pushes_out_the_longest_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "PRODUCERS_MAX", 3)
    log = log_of(*[numbered(0, producer_id=p) for p in (1, 2, 3)], numbered(1, producer_id=1))
    log.take(numbered(0, producer_id=4))
    assert [producer_id for producer_id, _ in log.table.items()] == [3, 1, 4]


def test_batches_without_a_producer_id_leave_no_trace() -> None:
    table = ProducerTable(DAY_MS)
    table.observe(numbered(-1, producer_id=-1))
    assert of_table(table) == []
    assert table.end_offset == 0


def test_compaction_is_told_the_last_batch_of_each_producer() -> None:
    log = log_of(*SEVEN, numbered(0, producer_id=8), numbered(14))
    assert log.table.last_batches(16) == Lasts(frozenset({14, 15}), frozenset())
    assert log.table.end_offset == 16


def test_a_batch_that_may_yet_be_cut_is_not_all_that_compaction_keeps_of_a_producer() -> None:
    log = log_of(*SEVEN, numbered(0, producer_id=8), numbered(14))
    assert log.table.last_batches(15) == Lasts(frozenset({14, 12}), frozenset())
    assert log.table.last_batches(1) == Lasts(frozenset(), frozenset({7, 8})), "not in the window: all of theirs count"


# --- a second version -----------------------------------------------------------------------------

NEAR_THE_WRAP = st.integers(SEQUENCE_MAX - 3, SEQUENCE_MAX)
BATCHES = st.builds(
    numbered,
    sequence=st.one_of(st.integers(0, 12), NEAR_THE_WRAP),
    count=st.integers(1, 3),
    epoch=st.sampled_from((0, 0, 0, 1)),
    producer_id=st.sampled_from((1, 1, 1, 2)),
    timestamp=st.sampled_from((-1, 0, 50, 99, 101, 250)),
)


@pytest.mark.usefixtures("few_witnesses")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from((-1, 0, 50, 99, 150, 250, 2**63 - 1))), max_size=60))
def test_who_is_forgotten_is_what_the_model_says(steps: list[tuple[int, int]]) -> None:
    log = Log(expiration_ms=100)
    for producer_id, timestamp in steps:
        known = log.table.get(producer_id)
        log.take(numbered(known.next_sequence if known else 0, producer_id=producer_id, timestamp=timestamp))
        assert of_table(log.table) == Model([Numbered.of(b) for b in log.batches], 100).known()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.one_of(st.none(), BATCHES), st.integers(0, 6), st.booleans()), max_size=25))
def test_judgement_and_state_are_those_of_the_model(steps: list[tuple[Batch | None, int, bool]]) -> None:
    """``None`` sends the next or an earlier batch of producer 1. The flag appends even what a
    leader would refuse."""
    log = Log(expiration_ms=100)
    for chosen, back, replicated in steps:
        batch = chosen if chosen is not None else _again_or_next(log, back)
        model = Model([Numbered.of(b) for b in log.batches], 100)
        verdict = log.judge(batch)
        assert verdict == model.judge(Numbered.of(batch))
        if verdict == "new" or replicated:
            log.take(batch)
    model = Model([Numbered.of(b) for b in log.batches], 100)
    assert of_table(log.table) == model.known()


def _again_or_next(log: Log, back: int) -> Batch:
    mine = [batch for batch in log.batches if batch.producer_id == 1]
    if 0 < back <= len(mine):
        return mine[-back]
    if mine:
        return numbered((mine[-1].last_sequence + 1) % 2**31, producer_id=1, epoch=mine[-1].producer_epoch)
    return numbered(0, producer_id=1)
