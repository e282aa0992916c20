"""What several controllers rest on, taken away: the story of each must notice."""

from __future__ import annotations

from minilog.core.controller.brokers import broker_sessions
from minilog.core.controller.shared.fence import Fence, Term
from minilog.core.controller.shared.places import Places
from minilog.core.controller.shared.sureness import Sureness
from minilog.core.controller.shared.transaction import Answer, Compare, Delete, Entry, Get, Put, Transaction
from tests.sim.nodes import shared_controller
from tests.sim.nodes.shared_controller import Landed, SharedController
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.cluster import test_controllers

Writes = tuple[Put | Delete, ...]


def _looks(fence: Fence, look: tuple[Get, ...]) -> tuple[Get, ...]:
    return (Get(fence.places.term), Get(fence.places.end), *look)


def no_term(self: Fence, then: Writes, *look: Get) -> Transaction:
    return Transaction((Compare(self.places.end, self._end_mod),), then, _looks(self, look))


def no_end(self: Fence, then: Writes, *look: Get) -> Transaction:
    return Transaction((Compare(self.places.term, self.term_mod),), then, _looks(self, look))


def lease_alone(self: Fence, then: Writes, *look: Get) -> Transaction:
    """Who has had a lease believes that he has it still."""
    return Transaction((), then, _looks(self, look))


def take_whatever_is_there(places: Places, seen: Entry | None, term: Term) -> Transaction:
    return Transaction((), (Put(places.term, term.encode()),), (Get(places.term),))


def try_again_anyhow(self: SharedController, transaction: Transaction, on_landed: Landed) -> None:
    def on_answer(answer: Answer | None) -> None:
        if answer is None:
            self.later(20, "poll", lambda: try_again_anyhow(self, transaction._replace(compares=()), on_landed))
        else:
            on_landed(answer)

    self.etcd.ask(self, transaction, on_answer)


def sure_for_ever(self: Sureness, now_ms: int) -> bool:
    return True


CONTROLLER_ABLATIONS = (
    Ablation(
        "R120",
        "no write compares the term",
        ((Fence, "_fenced", no_term),),
        story=test_controllers.test_an_append_that_was_on_its_way_when_the_term_was_taken_counts_for_nothing,
    ),
    Ablation(
        "R120",
        "the lease is the fence",
        ((Fence, "_fenced", lease_alone),),
        story=test_controllers.test_who_was_deposed_while_it_stood_still_writes_nothing,
    ),
    Ablation(
        "R121",
        "whatever term is there is taken",
        ((shared_controller, "taking", take_whatever_is_there),),
        story=test_controllers.test_a_look_that_is_out_of_date_deposes_nobody,
    ),
    Ablation(
        "R122",
        "no write compares the end",
        ((Fence, "_fenced", no_end),),
        story=test_controllers.test_a_late_copy_of_an_append_takes_the_end_nowhere,
    ),
    Ablation(
        "R123",
        "what got no answer is written again anyhow",
        ((SharedController, "_write", try_again_anyhow),),
        story=test_controllers.test_an_append_without_an_answer_is_there_once,
    ),
    Ablation(
        "R124",
        "who hears nothing of etcd goes on answering",
        ((Sureness, "is_sure", sure_for_ever),),
        story=test_controllers.test_a_controller_that_etcd_does_not_reach_keeps_no_broker,
    ),
    Ablation(
        "R124",
        "who begins to decide gives brokers no more than a session",
        ((broker_sessions, "SURE_MS", 0),),
        story=test_controllers.test_a_leader_beside_a_controller_that_was_deposed_takes_no_writes,
    ),
)
