"""Events, the recorder, files; and what is not a history."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from minilog.errors import NotLeader, TimedOut
from tests.process.checker.history import Event, MalformedHistory, Options, Recorder, check, digest, load, save
from tests.process.checker.history_format import decode, encode
from tests.unit.history.story import K, Story, at


def recorded() -> Recorder:
    recorder = Recorder()
    recorder.phase("load")
    producer = recorder.process("producer")
    recorder.assign("c", {K: 0})
    op = recorder.invoke_send(producer, K, "a", digest(b"a"))
    recorder.ok_send(op, 0, epoch=1, node=2)
    recorder.error(recorder.invoke_send(producer, K, "b"), NotLeader("ask broker 2"))
    recorder.error(recorder.invoke_send(producer, K, "c"), TimedOut("no answer"))
    poll = recorder.invoke_poll("c")
    recorder.ok_poll(poll, {K: [[0, "a", digest(b"a"), 1]]}, hw={K: 1})
    recorder.observe(2, {"controller": 3})
    recorder.phase("final")
    recorder.ok_poll(recorder.invoke_poll("reader"), {K: [(0, "a")]})
    return recorder


def test_a_recorded_history_is_judged_from_memory_and_from_a_file(tmp_path: Path) -> None:
    recorder = recorded()
    recorder.save(tmp_path / "history.jsonl")
    assert load(tmp_path / "history.jsonl") == recorder.events()
    for events in (recorder.events(), load(tmp_path / "history.jsonl")):
        verdict = check(events, Options(ok_share_min=0.3))
        assert verdict.valid, verdict
        assert verdict.counts["sent"] == 3


def test_a_file_has_one_event_a_line_without_what_is_not_known(tmp_path: Path) -> None:
    save(tmp_path / "one.jsonl", [Event(0, 7, "p", "invoke", "send", [["send", "k", "a"]])])
    text = (tmp_path / "one.jsonl").read_text()
    assert text == '{"i":0,"t_ns":7,"process":"p","type":"invoke","f":"send","value":[["send","k","a"]]}\n'


def test_definite_errors_fail_all_others_are_unknown() -> None:
    kinds = {event.err.split(":")[0]: event.type for event in recorded().events() if event.err is not None}
    assert kinds == {"NOT_LEADER": "fail", "REQUEST_TIMED_OUT": "info"}
    recorder = Recorder()
    recorder.error(recorder.invoke_poll("c"), ConnectionResetError("reset"))
    assert recorder.events()[-1].type == "info"


def test_process_names_are_new() -> None:
    recorder = Recorder()
    assert len({recorder.process("p") for _ in range(5)}) == 5


def test_threads_record_without_losing_anything() -> None:
    recorder = Recorder()

    def work(name: str) -> None:
        for n in range(500):
            recorder.ok_send(recorder.invoke_send(name, name, f"{name}:{n}"), n)

    threads = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = recorder.events()
    assert [event.i for event in events] == list(range(4000))
    counts = check(events, Options(final_phase=None)).counts
    assert (counts["sent"], counts["acknowledged"]) == (2000, 2000)


@pytest.mark.parametrize(
    "line", ["{", '{"i":0}', '{"i":"x","t_ns":0,"process":"p","type":"ok","f":"send"}',
             '{"i":0,"t_ns":0,"process":"p","type":"maybe","f":"send"}',
             '{"i":0,"t_ns":0,"process":"p","type":"ok","f":"send","ofset":1}'],
)  # fmt: skip
def test_lines_that_are_no_events(line: str) -> None:
    with pytest.raises(MalformedHistory, match="not a history"):
        decode(line.encode())


def test_encoding_round_trip() -> None:
    events = recorded().events()
    assert decode(encode(events)) == events


# --- histories that break their own rules ---------------------------------------------------------


def twice_sent(story: Story) -> None:
    story.log("p", "a")
    story.log("q", "a")


def completed_twice(story: Story) -> None:
    op = story.sending("p", (K, "a"))
    story.sent_ok(op, 0)
    story.sent_ok(op, 0)


def completed_by_another(story: Story) -> None:
    op = story.sending("p", (K, "a"))
    story.events.append(Event(len(story.events), 0, "q", "ok", "send", [["send", K, [0, "a"]]], op=op))


def completed_as_another_kind(story: Story) -> None:
    story.events.append(Event(len(story.events) + 1, 0, "p", "ok", "poll", [["poll", {}]], op=story.sending("p")))


def ambiguous(story: Story) -> None:
    story.sending("p", (K, "a"))
    story.sending("p", (K, "b"))
    story.events.append(Event(len(story.events), 0, "p", "info", "send"))


def same_i(story: Story) -> None:
    story.events.append(story.events[-1])


def other_value(story: Story) -> None:
    story.end(story.sending("p", (K, "a")), "ok", [["send", K, [0, "b"]]])


def fewer_answers(story: Story) -> None:
    story.end(story.sending("p", (K, "a"), (K, "b")), "ok", [["send", K, [0, "a"]]])


def negative_offset(story: Story) -> None:
    story.sent("p", "a", -1)


def offset_in_words(story: Story) -> None:
    story.polled("c", [["0", "a"]])


def poll_without_value(story: Story) -> None:
    story.polled("c", [[0]])


def unknown_micro_op(story: Story) -> None:
    story.end(story.begin("p", "send", [["write", K, "a"]]), "ok", [["write", K, "a"]])


def no_micro_ops(story: Story) -> None:
    story.end(story.begin("p", "send", 5), "ok", [["send", K, [0, "a"]]])


def phase_twice(story: Story) -> None:
    story.phase("load")


@pytest.mark.parametrize("damage", [
    twice_sent, completed_twice, completed_by_another, completed_as_another_kind, ambiguous, same_i, other_value,
    fewer_answers, negative_offset, offset_in_words, poll_without_value, unknown_micro_op, no_micro_ops, phase_twice,
])  # fmt: skip
def test_malformed_histories_are_not_judged(damage: Any) -> None:
    story = Story()
    damage(story)
    with pytest.raises(MalformedHistory):
        story.judge()


def test_without_op_a_completion_belongs_to_the_only_operation_in_flight() -> None:
    story = Story()
    story.sending("p", (K, "a"))
    story.events.append(Event(len(story.events), 0, "p", "ok", "send", [["send", K, [0, "a"]]]))
    story.polled("c", at(0, "a"))
    assert story.final(k="a").judge().valid
