"""The verdict as a whole: phases, shares, the final read, metrics, printing, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.process.checker.history import CLASSES, Options, check, save
from tests.process.checker.history import main as command
from tests.unit.history.story import J, K, Story, at


def problems(story: Story, options: Options | None = None) -> list[str]:
    verdict = story.judge(options or Options())
    assert verdict.violated == []
    assert verdict.valid == (not verdict.problems)
    return verdict.problems


def good() -> Story:
    story = Story()
    story.log("p", "ab")
    return story


def test_nothing_is_not_valid() -> None:
    assert not check([], Options()).valid
    assert not check([], Options(final_phase=None)).valid


def test_an_idle_phase_is_a_problem() -> None:
    story = good()
    story.phase("faults")
    assert problems(story.final(k="ab")) == ["nothing was done in phase 'faults'"]


def test_the_share_of_ok_operations_counts_by_phase() -> None:
    story = good()
    story.phase("faults")
    story.sent("p", "c", 2)
    for value in "xyz":
        story.end(story.sending("q", (K, value)), "info")
    story.final(k="abc")
    assert problems(story) == ["1 of 4 operations of phase 'faults' were ok, at least 50% must be"]
    assert problems(story, Options(ok_share_min={"faults": 0.25})) == []
    assert problems(story, Options(ok_share_min=0.2)) == []


def test_a_kind_of_operation_that_never_succeeds_is_a_problem() -> None:
    story = good()
    story.end(story.begin("c", "txn", [["poll"]]), "info")
    assert problems(story.final(k="ab")) == ["none of 1 txn operations was ok"]


def test_the_final_read_must_take_place() -> None:
    story = good()
    story.polled("c", at(0, "ab"))
    assert problems(story) == ["there is no phase 'final': without a final read nobody knows what is still there"]
    assert problems(story, Options(final_phase=None)) == []
    assert problems(story, Options(final_phase="load")) == []


def test_the_final_read_must_cover_every_key_to_its_end() -> None:
    story = good()
    story.end(story.sending("q", (J, "x")), "info")
    story.polled("c", at(0, "x"), key=J, type="info")
    assert problems(story.final(k="ab")) == ["the final read got nothing of j, whose highest known offset is 0"]


def test_before_the_first_phase_nothing_need_happen() -> None:
    story = Story()
    story.events.clear()
    story.assigned("c", {K: 0})
    story.phase("load")
    story.log("p", "a")
    assert problems(story.final(k="a")) == []


# --- metrics --------------------------------------------------------------------------------------


def lag_of(story: Story) -> Any:
    return story.judge().metrics["realtime lag by process"]["c"]


def behind(ms: int, final: bool = False) -> Story:
    """b is acknowledged while c has seen a; c polls ``ms`` later and still does not see it."""
    story = Story()
    story.assigned("c", {K: 0})
    story.sent("p", "a", 0)
    story.polled("c", at(0, "a"))
    story.sent("p", "b", 1)
    story.wait(ms)
    if final:
        story.phase("final")
    story.polled("c", [])
    return story


def test_realtime_lag() -> None:
    assert lag_of(behind(500)) == 501.0
    story = behind(500)
    story.polled("c", at(1, "b"))
    story.wait(5000)
    story.polled("c", [])
    assert lag_of(story) == 501.0, "caught up, nothing expires"


def test_realtime_lag_forgets_keys_that_are_not_read_any_more() -> None:
    story = behind(0)
    story.assigned("c", [J])
    story.wait(5000)
    story.polled("c", [], key=J)
    assert lag_of(story) == 1.0


def test_realtime_lag_of_the_final_read_is_no_lag() -> None:
    assert lag_of(behind(500)) > 500
    assert (
        "c" not in behind(500, final=True).judge().metrics["realtime lag by process"] or lag_of(behind(500, True)) == 0
    )


def test_realtime_lag_can_be_bounded() -> None:
    options = Options(final_phase=None, lag_ms_max=100.0)
    assert behind(500).judge(options).problems == ["a consumer was 501.0 ms behind, at most 100.0 are allowed"]
    assert behind(50).judge(options).problems == []


def test_consume_counts_look_at_subscribers() -> None:
    story = good()
    for consumer in ("c", "d"):
        story.assigned(consumer, [K], "subscribe")
        story.polled(consumer, at(0, "ab"[: 1 + (consumer == "d")]))
    story.polled("e", at(0, "ab"))
    counts = story.final(k="ab").judge().metrics["consume counts"]
    assert (counts["records"], counts["repeated"], counts["most"]) == (2, 1, 2)
    assert counts["examples"] == ["('k', 'a'): 2 times"]


def test_unseen_over_time_rises_and_falls() -> None:
    story = good()
    story.wait(100)
    story.polled("c", at(0, "a"))
    story.wait(100)
    story.final(k="ab")
    series = [point["unseen"].get(K, 0) for point in story.judge().metrics["unseen over time"]]
    assert max(series) == 2
    assert series[-1] == 0
    assert 1 in series


# --- face -----------------------------------------------------------------------------------------


def bad() -> Story:
    story = good()
    story.polled("c", at(0, "ab"))
    return story.final(k="a")


def test_the_verdict_can_be_read_by_a_person() -> None:
    text = str(bad().judge())
    assert text.startswith("INVALID: ")
    assert "final-missing" in text
    assert "'b' at offset 1 was read before, and is not in the final read" in text
    assert str(good().final(k="ab").judge()).startswith("VALID: ")


def test_examples_are_bounded_counts_are_not() -> None:
    story = Story()
    for n in range(50):
        story.end(story.sending("p", (K, f"v{n}")), "fail")
    story.phase("final")
    story.polled("reader", [[n, f"v{n}"] for n in range(50)])
    result = story.judge(Options(ok_share_min=0.0, examples_max=3)).classes["aborted-read"]
    assert (result.violations, len(result.examples)) == (50, 3)


def test_the_verdict_as_json_names_every_class() -> None:
    found = json.loads(json.dumps(bad().judge().as_dict()))
    assert list(found["classes"]) == list(CLASSES)
    assert found["valid"] is False


@pytest.mark.parametrize(("story", "status"), [(good().final(k="ab"), 0), (bad(), 1)])
def test_the_command_judges_a_file(story: Story, status: int, tmp_path: Path, capsys: Any) -> None:
    save(tmp_path / "history.jsonl", story.events)
    assert command([str(tmp_path / "history.jsonl")]) == status
    assert capsys.readouterr().out.startswith("INVALID" if status else "VALID")
    assert command([str(tmp_path / "history.jsonl"), "--json"]) == status
    assert json.loads(capsys.readouterr().out)["valid"] is (status == 0)
