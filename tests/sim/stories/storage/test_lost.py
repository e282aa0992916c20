"""Stories of lost records that are written again: each by one of those who keep it."""

from __future__ import annotations

from functools import partial

from minilog.errors import NotController
from minilog.wire.messages import ClaimLost, ClaimLostReply, LostRun
from tests.sim.cluster import SimCluster


def _has_more(answers: list[object], than: int) -> bool:
    return len(answers) > than


def claim(
    c: SimCluster, broker_id: int, tail: str, *runs: tuple[int, int, int], finished: bool = False
) -> ClaimLostReply:
    core = c.controller.core
    assert core is not None
    topic_id = core.image.topics["t"].topic_id
    asked = [LostRun(*run) for run in runs]
    directory_id = core.image.brokers[broker_id].directory_id
    target = "t", topic_id, 0
    while True:
        answers = c.admin.answers
        answered = len(answers)
        c.admin.request(ClaimLost(broker_id, tail, *target, asked, *target, 100 + broker_id, directory_id, finished))
        c.until(partial(_has_more, answers, answered), "an answer to the claim")
        answer = answers[-1]
        if isinstance(answer, ClaimLostReply):
            return answer
        assert isinstance(answer, NotController), answer
        c.run(50)


def test_lost_records_are_given_to_one_of_those_who_keep_them() -> None:
    """R100: brokers 1 and 2 have both cut records of epoch 0, not the same ones. The controller dies
    between their claims, and so does whoever has claimed: asked again, it is told the same."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t", 2)
    first = claim(c, 1, "a", (0, 10, 20))
    assert first.runs == [LostRun(0, 10, 20)]
    c.controller.kill()
    c.run(100)
    c.controller.start()
    c.settle("t")
    second = claim(c, 2, "b", (0, 15, 30), (1, 30, 31))
    assert second.runs == [LostRun(0, 20, 30), LostRun(1, 30, 31)]
    again = claim(c, 1, "a", (0, 10, 30))
    assert (again.runs, again.producer_id) == (first.runs, first.producer_id)


def test_what_a_broker_claimed_and_lost_with_its_disk_is_written_by_another() -> None:
    """R100: broker 1 has claimed two tails and says that one is written. Its disk is lost, and comes
    back empty. Another copy gets what broker 1 had not finished, and nothing else."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t", 2)
    claim(c, 1, "a", (0, 10, 20))
    claim(c, 1, "a", (0, 10, 20), finished=True)
    claim(c, 1, "b", (0, 20, 30))
    assert claim(c, 2, "early", (0, 10, 25)).runs == [], "broker 1 may be writing them"
    c.broker(1).wipe()
    c.broker(1).start()
    c.settle("t")
    assert claim(c, 2, "late", (0, 10, 25)).runs == [LostRun(0, 20, 25)]
    assert claim(c, 3, "later", (0, 10, 30)).runs == [LostRun(0, 25, 30)]
