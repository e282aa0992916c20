"""What keeps a credential its owner's alone, taken away: the story of each must notice."""

from __future__ import annotations

from minilog.core.access import policy, principal
from minilog.core.access.policy import Policy
from minilog.core.access.principal import Principal
from minilog.wire.message_base import Message
from minilog.wire.needs import Need, Operation, need_of
from tests.sim.removals.ablation import Ablation
from tests.sim.stories.cluster import test_access


def of_any_broker(message: Message) -> Need | None:
    need = need_of(message)
    return None if need is None else need._replace(own=False)


def of_any_process(message: Message) -> Need | None:
    need = need_of(message)
    return need._replace(operation=Operation.CLUSTER) if need and need.operation is Operation.CONTROLLER else need


def whoever_says_so(self: Policy, peer: Principal, name: str) -> Principal:
    return self.principals[name]


ACCESS_ABLATIONS = (
    Ablation(
        "R126",
        "a broker speaks for any broker",
        ((policy, "need_of", of_any_broker),),
        story=test_access.test_a_broker_is_heard_in_its_own_name_only,
    ),
    Ablation(
        "R126",
        "brokers ask what controllers ask",
        ((policy, "need_of", of_any_process),),
        story=test_access.test_what_controllers_ask_is_answered_to_controllers_only,
    ),
    Ablation(
        "R127",
        "brokers pass on with rights of their own",
        ((principal, "_OF_PEERS", frozenset(Operation)),),
        story=test_access.test_a_broker_does_nothing_with_topics_by_itself,
    ),
    Ablation(
        "R127",
        "anybody says for whom they ask",
        ((Policy, "_spoken_for", whoever_says_so),),
        story=test_access.test_only_brokers_say_for_whom_they_ask,
    ),
)
