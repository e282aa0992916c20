"""What may only grow, silent truncation, and what the brokers hand in: the anomaly, and what nearly
is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.process.checker.history import AckTrace, Options, Replica, check
from tests.unit.history.story import K, Story, at

ANY = Options(ok_share_min=0.0)


# --- high watermark -------------------------------------------------------------------------------


def shown(*polls: tuple[str, int | None, str], values: str = "abcd") -> Story:
    """(process, high watermark of the reply, records from 0)."""
    story = Story()
    story.log("p", values)
    for process, hw, records in polls:
        story.assigned(process, {K: 0})
        story.polled(process, at(0, records), hw={K: hw})
    return story.final(k=values)


def test_hw_regression() -> None:
    assert shown(("c", 4, ""), ("c", 3, "")).violated() == {"hw-regression"}


def test_hw_regression_below_what_was_read() -> None:
    assert shown(("c", None, "abc"), ("c", 2, "")).violated() == {"hw-regression"}
    assert shown(("c", None, "abc"), ("c", 3, "")).violated() == set()


def test_unknown_is_no_regression() -> None:
    assert shown(("c", 4, ""), ("c", None, ""), ("c", 4, "")).violated() == set()


def test_between_processes_it_is_counted_unless_brokers_fence_themselves() -> None:
    story = shown(("c", 4, ""), ("d", 3, ""))
    assert story.violated() == set()
    assert story.tolerated() == {"hw-regression-realtime"}
    assert story.violated(replace(ANY, self_fencing=True)) == {"hw-regression-realtime"}


def test_a_request_started_before_may_show_less() -> None:
    story = Story()
    story.log("p", "ab")
    early = story.begin("c", "poll", [["poll"]])
    story.polled("d", [], hw={K: 2})
    story.end(early, "ok", [["poll", {K: []}]], hw={K: 1})
    story.final(k="ab")
    assert story.violated() == set()
    assert story.tolerated() == set()


def test_read_beyond_hw() -> None:
    assert shown(("c", 2, "abc")).violated() == {"read-beyond-hw"}
    assert shown(("c", 3, "abc")).violated() == set()


# --- epochs ---------------------------------------------------------------------------------------


def acked_in(*epochs: int, overlapping: bool = False, **fields: Any) -> Story:
    """One acknowledged send per epoch, each of another process."""
    story = Story()
    if overlapping:
        ops = [story.sending(f"p{n}", (K, "abc"[n]), **fields) for n in range(len(epochs))]
        for n, epoch in enumerate(epochs):
            story.sent_ok(ops[n], n, epoch=epoch)
    else:
        for n, epoch in enumerate(epochs):
            op = story.sending(f"p{n}", (K, "abc"[n]), **fields)
            story.sent_ok(op, n, epoch={K: epoch})
    return story.final(k="abc"[: len(epochs)])


def test_epoch_regression_of_acknowledgements() -> None:
    assert acked_in(2, 1).violated() == {"epoch-regression"}
    assert acked_in(1, 2, 2).violated() == set()
    assert acked_in(2, 1, overlapping=True).violated() == set()


def test_weak_acknowledgements_are_only_counted() -> None:
    story = acked_in(2, 1, acks=1)
    assert story.violated() == set()
    assert story.tolerated() == {"epoch-regression-realtime"}


def polled_in(*seen: tuple[str, int, str | None]) -> Story:
    """(process, epoch, node)."""
    story = Story()
    story.log("p", "a")
    for process, epoch, node in seen:
        story.polled(process, [], epoch={K: epoch}, node=node)
    return story.final(k="a")


def test_epoch_regression_of_a_client_or_a_node() -> None:
    assert polled_in(("c", 2, None), ("c", 1, None)).violated() == {"epoch-regression"}
    assert polled_in(("c", 2, "n1"), ("d", 1, "n1")).violated() == {"epoch-regression"}
    story = polled_in(("c", 2, "n1"), ("d", 1, "n2"))
    assert story.violated() == set()
    assert story.tolerated() == {"epoch-regression-realtime"}


@pytest.mark.parametrize(("node", "expected"), [("n1", {"epoch-regression"}), ("n2", set())])
def test_epoch_regression_of_observations(node: str, expected: set[str]) -> None:
    story = Story()
    story.log("p", "a")
    story.nemesis(["observe"], node="n1", epoch={"controller": 3})
    story.nemesis(["observe"], node=node, epoch={"controller": 2})
    assert story.final(k="a").violated() == expected


def records_of(*epochs: int) -> Story:
    story = Story()
    story.log("p", "abc")
    story.polled("c", [[n, "abc"[n], None, epoch] for n, epoch in enumerate(epochs)])
    return story.final(k="abc")


def test_epoch_regression_of_records() -> None:
    assert records_of(1, 3, 2).violated() == {"epoch-regression"}
    assert records_of(1, 1, 3).violated() == set()


# --- silent-truncation ----------------------------------------------------------------------------


def cut(told: bool, reads_on: bool) -> set[str]:
    """b at 1 was read, then cut off. The consumer goes on behind it."""
    story = Story()
    story.log("p", "ab")
    story.polled("c", at(0, "ab"))
    story.end(story.sending("q", (K, "x"), (K, "y")), "info")
    if told:
        story.polled("c", [], type="fail", err="LOG_TRUNCATED", truncated={K: 1})
    if reads_on:
        story.polled("c", at(2, "y"))
    return story.final(k="axy").violated(replace(ANY, unclean=True))


def test_silent_truncation() -> None:
    assert cut(told=False, reads_on=True) == {"silent-truncation"}
    assert cut(told=True, reads_on=True) == set()
    assert cut(told=False, reads_on=False) == set()


def test_being_told_of_another_key_does_not_count() -> None:
    story = Story()
    story.log("p", "ab")
    story.polled("c", at(0, "ab"))
    story.end(story.sending("q", (K, "x"), (K, "y")), "info")
    story.polled("c", [], type="fail", err="LOG_TRUNCATED", truncated={"j": 1})
    story.polled("c", at(2, "y"))
    assert story.final(k="axy").violated(replace(ANY, unclean=True)) == {"silent-truncation"}


# --- brokers --------------------------------------------------------------------------------------


def replica(records: str, high_watermark: int, start: int = 0) -> Replica:
    return Replica(high_watermark, {start + n: (1, ord(c), c.encode()) for n, c in enumerate(records)}, start)


def test_replica_divergence() -> None:
    events = Story().final().events
    options = replace(ANY, final_phase=None)

    def violated(*replicas: Replica) -> list[str]:
        return check(events, options, replicas={K: dict(enumerate(replicas))}).violated

    assert violated(replica("abc", 3), replica("axc", 3)) == ["replica-divergence"]
    assert violated(replica("abc", 3), replica("ab", 3)) == ["replica-divergence"]
    assert violated(replica("abc", 3), replica("abx", 2)) == []  # not committed there
    assert violated(replica("abc", 3), replica("bc", 3, start=1)) == []  # deleted there
    assert violated(replica("abc", 3), replica("abc", 3), replica("abx", 3)) == ["replica-divergence"]


def test_acknowledgements_of_the_brokers() -> None:
    events = Story().final().events
    options = replace(ANY, final_phase=None)
    assert check(events, options, acks=[AckTrace(K, 4, 5, 2, 2)]).violated == []
    assert check(events, options, acks=[AckTrace(K, 5, 5, 2, 2)]).violated == ["ack-beyond-hw"]
    assert check(events, options, acks=[AckTrace(K, 4, 5, 2, 3)]).violated == ["ack-from-stale-epoch"]
