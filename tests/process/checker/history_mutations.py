"""One random corruption of a clean history per class, to prove that the checker finds what it
claims to find.

A corruption returns True when it has damaged the draft, and None where the history offers no place
for it. Other classes may fire as well: a swapped pair of records is wrong in several ways.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

from tests.process.checker.anomalies_brokers import Replica
from tests.process.checker.history_draft import Draft, Record, Send
from tests.process.checker.history_format import Event, Key
from tests.process.checker.history_grafts import GRAFTS

Corruption = Callable[[Draft, Random], bool | None]


# --- what is in the logs --------------------------------------------------------------------------


def inconsistent_offsets(draft: Draft, random: Random) -> bool | None:
    places = [(key, records, r) for _, key, records in draft.polls("ok") for r in records if r[0] > 0]
    key, records, record = random.choice(places) if places else ("", [], [])
    if not records or not _known_elsewhere(draft, records, record):
        return None
    record[1:] = draft.clean.logs[key][random.randrange(record[0])]
    return True


def duplicate(draft: Draft, random: Random) -> bool | None:
    key = random.choice(list(draft.clean.logs))
    last = [records for _, at, records in draft.final_polls() if at == key and records]
    if not last:
        return None
    end = draft.end(key)
    last[-1].append([end, *draft.clean.logs[key][random.randrange(end)]])
    return True


def duplicate_by_ack(draft: Draft, random: Random) -> bool | None:
    """An acknowledgement names another offset than the record is at."""
    sends = draft.placed_sends()
    if not sends:
        return None
    send, offset = random.choice(sends)
    assert send.answer is not None
    send.answer[0] = random.choice([o for o in range(draft.end(send.key) + 3) if o != offset])
    return True


def lost_write(draft: Draft, random: Random) -> bool | None:
    sends = [(send, o) for send, o in draft.placed_sends() if o < draft.end(send.key) - 1]
    if not sends:
        return None
    send, _ = random.choice(sends)
    draft.drop(send.key, {send.value})
    return True


def aborted_read(draft: Draft, random: Random) -> bool | None:
    sends = draft.placed_sends()
    if not sends:
        return None
    done = random.choice(sends)[0].done
    assert done is not None
    done.type, done.value, done.err = "fail", None, "NOT_LEADER: it said"
    return True


def precommitted_read(draft: Draft, random: Random) -> bool | None:
    sends = draft.placed_sends()
    if not sends:
        return None
    send, offset = random.choice(sends)
    assert send.done is not None
    send.invoke.f = send.done.f = "txn"
    send.invoke.value.append(["poll"])
    send.done.value.append(["poll", {send.key: [[offset, *draft.clean.logs[send.key][offset]]]}])
    return True


def phantom_read(draft: Draft, random: Random) -> bool | None:
    records = [record for _, _, records in draft.polls() for record in records]
    if not records:
        return None
    random.choice(records)[1] = "a stranger"
    return True


def phantom_read_unsent(draft: Draft, random: Random) -> bool | None:
    """The whole operation that wrote a record is taken out."""
    sends = draft.placed_sends()
    if not sends:
        return None
    send = random.choice(sends)[0]
    draft.events = [event for event in draft.events if event not in (send.invoke, send.done)]
    return True


def bit_exactness(draft: Draft, random: Random) -> bool | None:
    records = [record for _, _, records in draft.polls() for record in records]
    if not records:
        return None
    record = random.choice(records)
    record[2] = record[2][:-1] + ("0" if record[2][-1] != "0" else "1")
    return True


def unseen(draft: Draft, random: Random) -> bool | None:
    """The end of a log is gone, and with it something acknowledged."""
    sends = draft.placed_sends()
    if not sends:
        return None
    send, offset = random.choice(sends)
    draft.drop(send.key, {stored.value for stored in draft.clean.logs[send.key][offset:]})
    return True


def final_missing(draft: Draft, random: Random) -> bool | None:
    sends = draft.placed_sends()
    if not sends:
        return None
    send, offset = random.choice(sends)
    tail = random.random() < 0.5
    gone = draft.clean.logs[send.key][offset : None if tail else offset + 1]
    draft.drop(send.key, {stored.value for stored in gone}, final_only=True)
    return True


def offset_gap(draft: Draft, random: Random) -> bool | None:
    """From some offset on everything is one higher, for everybody."""
    key = random.choice(list(draft.clean.logs))
    if draft.end(key) < 2:
        return None
    hole = random.randrange(1, draft.end(key))
    for _, at, records in draft.polls():
        for record in records if at == key else ():
            record[0] += record[0] >= hole
    for send in draft.sends():
        if send.key == key and send.answer is not None and send.answer[0] is not None:
            send.answer[0] += send.answer[0] >= hole
    return True


# --- order ----------------------------------------------------------------------------------------


def _assigned(draft: Draft, *types: str) -> list[tuple[Event, Key, list[Record]]]:
    return [p for p in draft.polls(*types) if not str(p[0].process).startswith("member")]


def int_poll_skip(draft: Draft, random: Random) -> bool | None:
    polls = [records for _, _, records in _assigned(draft) if len(records) > 2]
    records = random.choice(polls) if polls else []
    inner = [n for n in range(1, len(records) - 1) if _known_elsewhere(draft, records, records[n])]
    if not inner:
        return None
    del records[random.choice(inner)]
    return True


def _known_elsewhere(draft: Draft, here: list[Record], record: Record) -> bool:
    shown = any(record in records for _, _, records in draft.polls() if records is not here)
    return shown or any(send.value == record[1] for send, _ in draft.placed_sends())


def int_nonmonotonic_poll(draft: Draft, random: Random) -> bool | None:
    polls = [records for event, _, records in draft.polls() if len(records) > 1 and not event.rebalanced]
    if not polls:
        return None
    records = random.choice(polls)
    one, two = random.sample(range(len(records)), 2)
    if random.random() < 0.5:
        records[one], records[two] = records[two], records[one]
    else:
        records.insert(one, records[one])
    return True


def poll_skip(draft: Draft, random: Random) -> bool | None:
    polls = [records for _, _, records in _assigned(draft, "ok") if len(records) > 1]
    records = random.choice(polls) if polls else []
    if not records or not _known_elsewhere(draft, records, records[0]):
        return None
    del records[0]
    return True


def nonmonotonic_poll(draft: Draft, random: Random) -> bool | None:
    polls = [(key, records) for _, key, records in _assigned(draft) if records and records[0][0] > 0]
    if not polls:
        return None
    key, records = random.choice(polls)
    before = random.randrange(records[0][0])
    records[:0] = [[o, *draft.clean.logs[key][o]] for o in range(before, records[0][0])]
    return True


def _swap_sends(draft: Draft, random: Random, fits: Callable[[Send, Send], bool]) -> bool | None:
    """Two promised sends to one key change places. ``fits(earlier, later)`` by offset."""
    sends = draft.placed_sends()
    pairs = [
        (one[0].key, one[1], two[1])
        for one in sends
        for two in sends
        if one[0].key == two[0].key and one[1] < two[1] and fits(one[0], two[0])
    ]
    if not pairs:
        return None
    draft.swap(*random.choice(pairs))
    return True


def int_nonmonotonic_send(draft: Draft, random: Random) -> bool | None:
    return _swap_sends(draft, random, lambda a, b: a.invoke is b.invoke)


def nonmonotonic_send(draft: Draft, random: Random) -> bool | None:
    """The last record of one operation and the first of a later one, by one process."""

    def fits(a: Send, b: Send) -> bool:
        last = [value for _, key, value, *_ in a.invoke.value if key == a.key][-1]
        first = next(value for _, key, value, *_ in b.invoke.value if key == b.key)
        same = a.invoke.process == b.invoke.process and a.invoke is not b.invoke
        return same and a.value == last and b.value == first

    return _swap_sends(draft, random, fits)


def realtime_send(draft: Draft, random: Random) -> bool | None:
    def fits(a: Send, b: Send) -> bool:
        assert a.done is not None
        return a.invoke.process != b.invoke.process and a.done.i < b.invoke.i

    return _swap_sends(draft, random, fits)


def _split(draft: Draft, random: Random, batch: bool) -> bool | None:
    """The last record of an operation changes places with the next, foreign one."""
    sends = draft.placed_sends()
    places = []
    for (one, at), (two, after) in pairwise(sends):
        together = one.invoke is two.invoke and one.key == two.key and one.invoke.batch == batch and after == at + 1
        last = [value for _, key, value, *_ in two.invoke.value if key == two.key][-1] == two.value
        if together and last and after + 1 < draft.end(one.key):
            foreign = draft.clean.logs[one.key][after + 1].value
            if all(foreign != value for _, _, value, *_ in one.invoke.value):
                places.append((one.key, after, after + 1))
    if not places:
        return None
    draft.swap(*random.choice(places))
    return True


def int_send_skip(draft: Draft, random: Random) -> bool | None:
    return _split(draft, random, batch=False)


def batch_split(draft: Draft, random: Random) -> bool | None:
    return _split(draft, random, batch=True)


# --- what may only grow ---------------------------------------------------------------------------


def hw_regression(draft: Draft, random: Random) -> bool | None:
    shown: dict[tuple[str | int, Key], int] = {}
    places = []
    for event, key, records in draft.polls("ok"):
        before = shown.get((event.process, key), 0)
        if event.hw is not None and before > 0:
            places.append((event.hw, key, before))
        hw = (event.hw or {}).get(key) or 0
        shown[event.process, key] = max(before, hw, records[-1][0] + 1 if records else 0)
    if not places:
        return None
    hws, key, before = random.choice(places)
    hws[key] = random.randrange(before)
    return True


def read_beyond_hw(draft: Draft, random: Random) -> bool | None:
    polls = [(event.hw, key, records) for event, key, records in draft.polls("ok") if event.hw is not None and records]
    if not polls:
        return None
    hws, key, records = random.choice(polls)
    hws[key] = random.choice(records)[0]
    return True


def _strange_poll(draft: Draft, random: Random, **fields: Any) -> bool | None:
    """A process nobody saw before polls nothing, somewhere in the final phase, and is shown
    ``fields``."""
    final = next(e.i for e in draft.events if e.value == ["phase", "final"])
    at = random.randint(final + 3, draft.events[-1].i + 1)
    begin = Event(0, 0, "stranger", "invoke", "poll", [["poll"]])
    draft.insert(at, [begin, Event(1, 0, "stranger", "ok", "poll", [["poll", {}]], op=0, **fields)])
    return True


def hw_regression_realtime(draft: Draft, random: Random) -> bool | None:
    key = random.choice([key for key in draft.clean.logs if draft.end(key)])
    return _strange_poll(draft, random, hw={key: 0})


def epoch_regression(draft: Draft, random: Random) -> bool | None:
    """An acknowledgement of an older leader than one that acknowledged before it was asked."""
    done = [(send.key, send.invoke, send.done) for send, _ in draft.placed_sends() if send.done is not None]
    pairs = [(key, a, b) for key, _, a in done for other, begin, b in done if other == key and a.i < begin.i]
    if not pairs:
        return None
    key, one, two = random.choice(pairs)
    assert isinstance(one.epoch, dict)
    assert isinstance(two.epoch, dict)
    two.epoch[key] = one.epoch[key] - 1
    return True


def epoch_regression_of_node(draft: Draft, random: Random) -> bool | None:
    seen = [event for event in draft.events if event.f == "nemesis" and event.epoch is not None]
    if not seen:
        return None
    event = random.choice(seen)
    assert isinstance(event.epoch, dict)
    extra = Event(0, 0, "nemesis", "info", "nemesis", ["observe"], node=event.node, epoch={"controller": 0})
    draft.insert(random.randint(event.i + 1, draft.events[-1].i + 1), [extra])
    return True


def epoch_regression_of_records(draft: Draft, random: Random) -> bool | None:
    polls = [records for event, _, records in draft.polls() if len(records) > 1 and not event.rebalanced]
    if not polls:
        return None
    records = random.choice(polls)
    n = random.randrange(1, len(records))
    records[n][3] = records[n - 1][3] - 1
    return True


def epoch_regression_realtime(draft: Draft, random: Random) -> bool | None:
    key = random.choice([key for key in draft.clean.logs if draft.end(key)])
    return _strange_poll(draft, random, epoch={key: 0})


def silent_truncation(draft: Draft, random: Random) -> bool | None:
    """A consumer saw a record that was cut off, and read on above it as if nothing had happened."""
    final = next(e.i for e in draft.events if e.value == ["phase", "final"])
    polls = [(key, records) for e, key, records in _assigned(draft, "ok") if e.i < final and len(records) > 1]
    if not polls:
        return None
    _, records = random.choice(polls)
    records[random.randrange(len(records) - 1)][1:] = ["cut off", None, None]
    return True


def replica_divergence(draft: Draft, random: Random) -> bool | None:
    key = random.choice(list(draft.replicas))
    node = random.choice(list(draft.replicas[key]))
    replica = draft.replicas[key][node]
    end = min(r.high_watermark for r in draft.replicas[key].values())
    if not end:
        return None
    records = dict(replica.records)
    offset = random.randrange(end)
    if random.random() < 0.5:
        records[offset] = (records[offset][0], "damaged")
    else:
        del records[offset]
    draft.replicas[key][node] = Replica(replica.high_watermark, records)
    return True


def ack_beyond_hw(draft: Draft, random: Random) -> bool | None:
    at = random.randrange(len(draft.acks))
    draft.acks[at] = draft.acks[at]._replace(high_watermark=draft.acks[at].offset)
    return True


def ack_from_stale_epoch(draft: Draft, random: Random) -> bool | None:
    at = random.randrange(len(draft.acks))
    draft.acks[at] = draft.acks[at]._replace(epoch_at_ack=draft.acks[at].epoch_at_append + 2)
    return True


def _graft(build: Callable[[Random], list[Event]]) -> Corruption:
    def corrupt(draft: Draft, random: Random) -> bool | None:
        final = next(e.i for e in draft.events if e.value == ["phase", "final"])
        draft.insert(random.randrange(1, final), build(random))
        return True

    return corrupt


CORRUPTIONS: list[tuple[str, str, Corruption]] = [
    ("inconsistent-offsets", "another record at a polled offset", inconsistent_offsets),
    ("duplicate", "a record once more at the end", duplicate),
    ("duplicate", "an acknowledged offset rewritten", duplicate_by_ack),
    ("lost-write", "an acknowledged record gone from all polls", lost_write),
    ("aborted-read", "ok turned into fail", aborted_read),
    ("precommitted-read", "an operation reads what it sends", precommitted_read),
    ("phantom-read", "a polled value replaced", phantom_read),
    ("phantom-read", "the sending operation removed", phantom_read_unsent),
    ("bit-exactness", "a digit of a digest changed", bit_exactness),
    ("unseen", "the end of a log gone from all polls", unseen),
    ("final-missing", "records gone from the final read only", final_missing),
    ("offset-gap", "a hole in the offsets", offset_gap),
    ("int-poll-skip", "a record in the middle of a poll gone", int_poll_skip),
    ("int-nonmonotonic-poll", "two records of a poll swapped, or one repeated", int_nonmonotonic_poll),
    ("poll-skip", "the first record of a poll gone", poll_skip),
    ("nonmonotonic-poll", "earlier records at the head of a poll", nonmonotonic_poll),
    ("int-send-skip", "a foreign record inside an operation", int_send_skip),
    ("int-send-skip", "a foreign record inside a batch", batch_split),
    ("int-nonmonotonic-send", "two records of an operation swapped", int_nonmonotonic_send),
    ("nonmonotonic-send", "records of two operations swapped", nonmonotonic_send),
    ("realtime-send", "records of two processes swapped", realtime_send),
    *((name, "an operation graph with this cycle", _graft(build)) for name, build in GRAFTS.items()),
    ("silent-truncation", "a record that was cut off later", silent_truncation),
    ("hw-regression", "a lower high watermark", hw_regression),
    ("hw-regression-realtime", "a lower high watermark for somebody else", hw_regression_realtime),
    ("read-beyond-hw", "a high watermark below what was read", read_beyond_hw),
    ("epoch-regression", "an older epoch in an acknowledgement", epoch_regression),
    ("epoch-regression", "an older epoch reported by a node", epoch_regression_of_node),
    ("epoch-regression", "an older epoch in a polled record", epoch_regression_of_records),
    ("epoch-regression-realtime", "an older epoch shown to somebody else", epoch_regression_realtime),
    ("replica-divergence", "a record of a replica changed or gone", replica_divergence),
    ("ack-beyond-hw", "acknowledged at its own high watermark", ack_beyond_hw),
    ("ack-from-stale-epoch", "acknowledged in a later epoch", ack_from_stale_epoch),
]
"""Class, what is done to the history, and how. Every class of ``verdict.CLASSES`` is there
(tested)."""
