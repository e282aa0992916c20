"""What is said of lost records is true of the copy, the topic and the records that it is said of."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.cli.lost.lost import outcome
from minilog.cli.lost.search import Found, copies
from minilog.cli.output import CliError
from minilog.wire.json.json_answers import LostReplay, LostTailInfo

NAME = "t-0:1-10-20"
TAIL = LostTailInfo(
    NAME, 1, "t", "id", 0, "a test", 5, 10, 20, 1, 1, 500, 10, {"unknown": 0, "0": 0, "1": 10, "many": 0}, 0, 1, 2,
    LostReplay("t", 0, "id", claimed=4, written=4, skipped=0, first_offset=30, end_offset=34, finished=True), "",
)  # fmt: skip
DONE = LostReplay("t", 0, "id", claimed=6, written=6, skipped=0, first_offset=40, end_offset=46, finished=True)


def found(*tails: LostTailInfo) -> Found:
    return Found(list(tails), {tail.broker_id: f"http://b{tail.broker_id}" for tail in tails}, [])


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "of which no broker that answered keeps one: `minilog lost export t-0:1-10-20`"),
        ([replace(TAIL, broker_id=2, replay=DONE)], "left to other copies, which are written"),
        ([replace(TAIL, broker_id=2, tail="t-0:1-9-20", replay=None)], "`minilog lost replay t-0:1-9-20 --broker 2`"),
        ([replace(TAIL, broker_id=2, replay=replace(DONE, finished=False))], "not all written yet"),
        ([replace(TAIL, broker_id=2, topic_id="other", replay=DONE)], "no broker that answered"),
        ([replace(TAIL, broker_id=2, partition=1, replay=DONE)], "no broker that answered"),
        ([replace(TAIL, broker_id=2, base_offset=20, end_offset=30, replay=DONE)], "no broker that answered"),
    ],
)
def test_what_was_left_to_others_is_said_with_where_it_is(others: list[LostTailInfo], said: str) -> None:
    sentence = outcome(TAIL, found(TAIL, *others))
    assert "; 6 were left to other copies" in sentence
    assert said in sentence


def test_what_cannot_be_read_was_left_to_nobody() -> None:
    assert TAIL.replay is not None
    made = replace(TAIL.replay, claimed=10, written=7, skipped=3)
    sentence = outcome(replace(TAIL, replay=made), found(TAIL))
    assert "left to" not in sentence
    assert "3 cannot be read" in sentence


def test_a_name_that_means_records_of_two_topics_wants_a_broker() -> None:
    later = replace(TAIL, broker_id=2, topic_id="later")
    with pytest.raises(CliError) as refused:
        copies(found(TAIL, later), NAME, None)
    assert "--broker" in refused.value.sentence
    assert copies(found(TAIL, later), NAME, 2) == [later]
    assert len(copies(found(TAIL, replace(TAIL, broker_id=2, topic_id="")), NAME, None)) == 2
