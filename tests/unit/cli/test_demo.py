"""The demo's arithmetic: what it claims must be false as soon as anything is wrong."""

from __future__ import annotations

import struct
import zipfile
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.cli.bench.failover import Watch
from minilog.cli.demo.events import event_source, read_flights
from minilog.cli.demo.report import Failover, failover_lines, proof_lines
from minilog.cli.output import CliError
from minilog.cli.proof import Ledger, Proof, ReadBack, batches_below, compare_replicas, id_of, wrap
from minilog.wire.messages import FailoverInfo

SENT = [wrap(number, b"{}") for number in range(6)]
"""Ids 0, 2, 4 go to partition 0 and the others to partition 1."""


def ledger_of(acknowledged: int = 6) -> Ledger:
    ledger = Ledger()
    for value in SENT:
        ledger.on_sent(value)
    for id in range(acknowledged):
        ledger.on_acknowledged(id, id % 2, id // 2)
    return ledger


def judge(ledger: Ledger, read: list[tuple[int, int, bytes]]) -> Proof:
    reader = ReadBack(ledger)
    for partition, offset, value in read:
        reader.on_record(partition, offset, id_of(value), value)
    return reader.finish()


def whole() -> list[tuple[int, int, bytes]]:
    return [(id % 2, id // 2, value) for id, value in enumerate(SENT)]


def replicated(proof: Proof) -> Proof:
    proof.replicas_compared = 3
    return proof


def test_a_whole_log_proves_it() -> None:
    proof = replicated(judge(ledger_of(), whole()))
    assert proof.ok
    assert (proof.sent, proof.acknowledged, proof.read, proof.lost) == (6, 6, 6, 0)


def test_without_replicas_compared_nothing_is_proven() -> None:
    assert not judge(ledger_of(), whole()).ok


def test_a_missing_record_is_lost_only_if_it_was_acknowledged() -> None:
    assert judge(ledger_of(), whole()[:-1]).lost == 1
    proof = replicated(judge(ledger_of(acknowledged=5), whole()[:-1]))
    assert proof.ok
    assert proof.unacknowledged == 1


def test_a_record_elsewhere_than_its_receipt_says_is_misplaced() -> None:
    ledger = ledger_of(acknowledged=5)
    ledger.on_acknowledged(5, 1, 7)
    assert judge(ledger, whole()).misplaced == 1


def test_a_record_written_twice_is_a_duplicate_and_no_disorder() -> None:
    again = [*whole(), (1, 3, SENT[3]), (1, 4, SENT[5])]
    proof = replicated(judge(ledger_of(), again))
    assert not proof.ok
    assert (proof.duplicates, proof.out_of_order, proof.gaps) == (2, 0, 0)


def test_disorder_gaps_changes_and_strangers_are_found() -> None:
    swapped = [(0, 0, SENT[2]), (0, 1, SENT[0]), (0, 2, SENT[4])]
    assert judge(ledger_of(acknowledged=0), swapped).out_of_order == 1
    assert judge(ledger_of(), [(0, 0, SENT[0]), (0, 2, SENT[4])]).gaps == 1
    assert judge(ledger_of(), [(0, 0, wrap(0, b"{ }"))]).changed == 1
    assert judge(ledger_of(), [(0, 0, wrap(99, b"{}"))]).unknown == 1


@settings(max_examples=60)
@given(st.integers(0, 5), st.sampled_from(["drop", "swap", "change"]))
def test_any_single_damage_breaks_the_proof(index: int, damage: str) -> None:
    read = whole()
    partition, offset, value = read[index]
    if damage == "drop":
        del read[index]
    elif damage == "change":
        read[index] = (partition, offset, value.replace(b"{}", b"[]"))
    else:
        other = (index + 2) % 6
        read[index], read[other] = (partition, offset, SENT[other]), (partition, read[other][1], value)
    assert not replicated(judge(ledger_of(), read)).ok


def batch(base_offset: int, body: bytes) -> bytes:
    return struct.pack(">qi", base_offset, len(body)) + body


def test_replicas_are_compared_by_bytes_up_to_the_end_across_segments(tmp_path: Path) -> None:
    one, two = tmp_path / "broker-1" / "t-0", tmp_path / "broker-2" / "t-0"
    for folder in (one, two):
        folder.mkdir(parents=True)
    (one / "00.log").write_bytes(batch(0, b"aa") + batch(5, b"bb") + batch(9, b"uncommitted"))
    (two / "00.log").write_bytes(batch(0, b"aa"))
    (two / "05.log").write_bytes(batch(5, b"bb"))
    proof = Proof()
    compare_replicas(proof, [one.parent, two.parent], "t", {0: 9})
    assert (proof.differing, proof.replicas_compared, proof.replica_bytes) == ([], 2, 56)
    (two / "05.log").write_bytes(batch(5, b"bc"))
    compare_replicas(proof, [one.parent, two.parent], "t", {0: 9})
    assert len(proof.differing) == 1


def test_a_torn_tail_ends_the_batches(tmp_path: Path) -> None:
    path = tmp_path / "00.log"
    path.write_bytes(batch(0, b"aa") + b"\0" * 40)
    assert list(batches_below(path, 10)) == [batch(0, b"aa")]


def test_events_repeat_with_ids_that_go_on(tmp_path: Path) -> None:
    file = tmp_path / "e.ndjson"
    file.write_bytes(b'{"a":1}\n\n[2]\n')
    values = [value for _, value in islice(event_source(file).numbered(), 5)]
    assert values[:3] == [b'{"id":0,"event":{"a":1}}', b'{"id":1,"event":[2]}', b'{"id":2,"event":{"a":1}}']
    assert [id_of(value) for value in values] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"{]\n", b"\xff\n", b"[" * 100_000 + b"\n"], ids=["", "no text", "deep"])
def test_a_bad_line_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "e.ndjson"
    file.write_bytes(b"1\n" + content)
    with pytest.raises(CliError, match="line 2"):
        event_source(file)


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "e.ndjson"
    with pytest.raises(CliError, match="cannot be read"):
        event_source(file)
    file.touch()
    with pytest.raises(CliError, match="no event"):
        next(event_source(file).numbered())


def test_flights_are_read_without_their_package(tmp_path: Path) -> None:
    archive = tmp_path / "flights.csv.zip"
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("flights.csv", "origin,dest,tailnum,air_time\nEWR,IAH,N1,NA\nLGA,MIA,NA,7\n")
    assert list(read_flights(archive)) == [
        (b"EWR-IAH", b'{"origin":"EWR","dest":"IAH","tailnum":"N1","air_time":null}'),
        (b"LGA-MIA", b'{"origin":"LGA","dest":"MIA","tailnum":null,"air_time":7}'),
    ]


def test_a_pause_is_measured_from_the_old_leaders_last_acknowledgement_to_the_new_ones_first() -> None:
    watch = Watch()
    watch.on_ack(0, leader_epoch=3, now_s=1.0)
    watch.begin({0: 3, 1: 5})
    watch.on_ack(0, leader_epoch=3, now_s=2.0)
    watch.on_ack(2, leader_epoch=9, now_s=2.5)
    assert not watch.recovered()
    watch.on_ack(0, leader_epoch=4, now_s=2.25)
    watch.on_ack(0, leader_epoch=4, now_s=9.0)
    watch.on_ack(1, leader_epoch=6, now_s=9.0)
    assert watch.recovered()
    assert watch.pauses_s == {0: 0.25, 1: 0.0}


def test_the_report_says_what_is_bad() -> None:
    good = replicated(judge(ledger_of(), whole()))
    assert not any("BAD" in line for line in proof_lines(good))
    bad = replicated(judge(ledger_of(), whole()[:-1]))
    assert [line.split()[:2] for line in proof_lines(bad) if "BAD" in line] == [["BAD", "lost"]]


def test_the_timeline_counts_from_the_kill() -> None:
    told = FailoverInfo(2, 7, "refused", 990, 1010, 1011, 3, elected_ms=1020, published_ms=1025)
    seen = Failover(2, 1000.0, [0], {0: 1060.0}, {0: 75.0}, 3000.0, 4500.0, told)
    text = "\n".join(failover_lines(seen))
    for part in (
        "0  kill -9 broker 2",
        "10  the controller knows",
        "20  new leaders",
        "60  first",
        "3,500  broker 2 back",
        "75 ms",
    ):
        assert part in text
