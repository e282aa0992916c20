"""Routes x messages x who asks, against a table written by hand: who is let in where. What has no
row here fails, so a new route or message is decided before it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec
import pytest

from minilog.core.access.policy import Policy, Shown, digest_of
from minilog.core.access.principal import Principal
from minilog.errors import Forbidden, MinilogError, Unauthenticated
from minilog.security_file import parse_security
from minilog.wire.admin_messages import BalanceLeaders, ConfigureTopic, MoveReplicas, PlanReplicas, RemoveBroker
from minilog.wire.figure_messages import DescribeBroker
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffsets,
    DeleteGroup,
    DescribeGroup,
    ForwardedGroupRequest,
    GroupHeartbeat,
    LeaveGroup,
    ListGroups,
)
from minilog.wire.messages import (
    AddPartitions,
    AllocateProducerIds,
    AlterPartition,
    AnyMessage,
    ClaimLost,
    CreateTopic,
    DeleteTopic,
    DescribeCluster,
    ElectLeader,
    Fetch,
    Heartbeat,
    InitProducer,
    Message,
    Metadata,
    Offsets,
    Positions,
    Probe,
    Produce,
    Register,
    ReplicaFetch,
    StandBy,
)
from minilog.wire.needs import NEEDS, Need, Operation
from minilog.wire.routes import ROUTE_NEEDS, ROUTES

NOW_MS: Final = 1_800_000_000_000
ROLES: Final = ("admin", "metrics", "peer", "controller")
CLIENTS: Final = ("reader", "writer", "maker", "member", "looker")
ASKING: Final = ("nobody", "wrong", "expired", "withdrawn", *ROLES, *CLIENTS)
UNKNOWN: Final = {"nobody", "wrong", "expired", "withdrawn"}

FILE: Final = "\n".join(
    f'[principals.{name}]\ntokens = [{{ sha256 = "{digest_of(f"token-of-{name}").hex()}"{end} }}]\n{what}\n'
    for name, what, end in (
        ("admin", 'roles = ["admin"]', ""),
        ("metrics", 'roles = ["metrics"]', ""),
        ("peer", 'roles = ["peer:1"]', ""),
        ("controller", 'roles = ["controller"]', ""),
        ("reader", 'allow = ["read mine"]', ""),
        ("writer", 'allow = ["write mine"]', ""),
        ("maker", 'allow = ["alter mine"]', ""),
        ("member", 'allow = ["group ours"]', ""),
        ("looker", 'allow = ["describe"]', ""),
        ("expired", 'roles = ["admin"]', ", not_after = 2020-01-01T00:00:00Z"),
    )
)
POLICY: Final = parse_security(FILE, "security.toml").policy
SEES: Final = {"admin", "peer", *CLIENTS}
ALLOWED: Final[Mapping[str, set[str]]] = {
    "public": set(ASKING),
    "metrics": {"admin", "metrics"},
    "describe": SEES,
    "read topic": {"admin", "reader"},
    "write topic": {"admin", "writer"},
    "write": {"admin", "writer"},
    "alter topic": {"admin", "maker"},
    "alter": {"admin", "maker"},
    "group group": {"admin", "member"},
    "admin": {"admin"},
    "message": {"admin", "peer", "controller", *CLIENTS},
}
ROUTE_TABLE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("healthz", "readyz", "openapi"), "public"),
    **dict.fromkeys(("metrics", "metrics_kafka"), "metrics"),
    **dict.fromkeys(("produce", "fetch", "rpc"), "message"),
    **dict.fromkeys(("produce_topic", "produce_partition"), "write topic"),
    **dict.fromkeys(("alter_topic", "delete_topic"), "alter topic"),
    **dict.fromkeys(
        ("set_log_level", "metadata_copy", "elect_leader", "balance_leaders", "list_lost", "describe_lost"), "admin"
    ),
    **dict.fromkeys(
        ("read_lost", "replay_lost", "discard_lost", "move_replicas", "plan_moves", "remove_broker"), "admin"
    ),
    **dict.fromkeys(("describe_group", "delete_group", "group_heartbeat", "leave_group"), "group group"),
    **dict.fromkeys(("committed_offsets", "commit_offsets", "group_lag"), "group group"),
    "fetch_partition": "read topic",
    "fetch_topic": "read topic",
    "create_topic": "alter",
    "create_producer": "write",
    **dict.fromkeys(
        (
            *("root", "log_level", "metadata", "list_topics", "describe_topic", "offsets", "topic_offsets"),
            *("describe_election", "brokers", "cluster", "health", "failovers", "events", "live", "check_receipts"),
            *("list_groups", "list_moves"),
        ),
        "describe",
    ),
}


def of_broker(kind: type[Message], broker_id: int) -> Message:
    """A message of that broker. What else is in it decides nothing here."""
    needed = {field.name: 0 for field in msgspec.structs.fields(kind) if field.required}
    return kind(**{**needed, "broker_id": broker_id})


MINE: Final = {"topic": "mine", "group": "ours", "member": "m", "partition": 0, "tail": "x"}
OTHERS: Final = {"topic": "foreign", "group": "theirs", "member": "m", "partition": 0, "tail": "x"}
MESSAGE_TABLE: Final[list[tuple[Message, set[str]]]] = [
    (Metadata(), SEES),
    (Offsets([]), SEES),
    (DescribeCluster(), SEES),
    (ElectLeader("mine", 0, dry_run=True), SEES),
    (ElectLeader("mine", 0, unclean=True), {"admin"}),
    (BalanceLeaders(), {"admin"}),
    (MoveReplicas([]), {"admin"}),
    (PlanReplicas(), {"admin"}),
    (RemoveBroker(1), {"admin"}),
    (InitProducer(), {"admin", "writer"}),
    (CreateTopic("mine"), {"admin", "maker"}),
    (CreateTopic("foreign"), {"admin"}),
    (CreateTopic("__groups"), {"admin", "peer"}),
    (DeleteTopic("mine"), {"admin", "maker"}),
    (DeleteTopic("foreign"), {"admin"}),
    (AddPartitions("mine", 3), {"admin", "maker"}),
    (ConfigureTopic("mine", {}), {"admin", "maker"}),
    (ConfigureTopic("foreign", {}), {"admin"}),
    (of_broker(Register, 1), {"peer"}),
    (of_broker(Register, 2), set()),
    (of_broker(Heartbeat, 1), {"peer"}),
    (of_broker(Heartbeat, 2), set()),
    (of_broker(AlterPartition, 1), {"peer"}),
    (of_broker(AlterPartition, 2), set()),
    (of_broker(ReplicaFetch, 1), {"peer"}),
    (of_broker(ReplicaFetch, 2), set()),
    (of_broker(AllocateProducerIds, 1), {"peer"}),
    (of_broker(AllocateProducerIds, 2), set()),
    (of_broker(ClaimLost, 1), {"peer"}),
    (of_broker(ClaimLost, 2), set()),
    (of_broker(Positions, 1), {"controller"}),
    (of_broker(Probe, 1), {"controller"}),
    (StandBy("http://h:1", "n", 0, 1), {"controller"}),
    (DescribeBroker(), {"peer", "controller"}),
    (ForwardedGroupRequest(memoryview(b"")), {"peer"}),
    (ListGroups(), SEES),
    (DescribeGroup("ours"), {"admin", "member"}),
    (DescribeGroup("theirs"), {"admin"}),
    (CommittedOffsets("ours"), {"admin", "member"}),
    (DeleteGroup("theirs"), {"admin"}),
    (CommitOffsets("theirs", []), {"admin"}),
    (LeaveGroup("ours", "m"), {"admin", "member"}),
    (GroupHeartbeat("theirs", "m", 0), {"admin"}),
    (CreateTopic("mine", principal="maker"), {"peer"}),
    (CreateTopic("mine", principal="reader"), set()),
    (DeleteTopic("mine", principal="admin"), {"peer"}),
    (ElectLeader("mine", 0, unclean=True, principal="maker"), set()),
    (CreateTopic("mine", principal="who is that"), set()),
]


def shown(asking: str) -> Shown:
    return Shown("" if asking == "nobody" else f"token-of-{asking}")


def outcome(asking: str, ask: Any) -> str:
    try:
        ask()
    except Unauthenticated:
        return "401"
    except Forbidden:
        return "403"
    return "in"


def admitted(asking: str, need: Need, values: Mapping[str, Any]) -> str:
    return outcome(asking, lambda: POLICY.admit(shown(asking), need, values, NOW_MS))


def expected(asking: str, allowed: set[str]) -> str:
    if asking in allowed:
        return "in"
    return "401" if asking in UNKNOWN else "403"


def test_every_route_has_its_row() -> None:
    assert set(ROUTE_TABLE) == {route.name for route in ROUTES}
    print(f"{len(ROUTES)} routes x {len(ASKING)} who ask, {len(MESSAGE_TABLE)} messages x {len(ROLES + CLIENTS)}")


@pytest.mark.parametrize("asking", ASKING)
def test_each_route_lets_in_whom_the_table_says(asking: str) -> None:
    for route in ROUTES:
        need, allowed = ROUTE_NEEDS[route.name], ALLOWED[ROUTE_TABLE[route.name]]
        assert admitted(asking, need, MINE) == expected(asking, allowed), route.name
        if need.of:
            assert admitted(asking, need, OTHERS) == expected(asking, allowed & {"admin"}), route.name


@pytest.mark.parametrize("asking", [*ROLES, *CLIENTS])
@pytest.mark.parametrize(("message", "allowed"), MESSAGE_TABLE, ids=lambda value: type(value).__name__)
def test_each_message_is_taken_from_whom_the_table_says(asking: str, message: Message, allowed: set[str]) -> None:
    principal = POLICY.principals[asking]
    assert outcome(asking, lambda: POLICY.permit(principal, message)) == expected(asking, allowed)


def test_every_message_has_its_row() -> None:
    """Produce and Fetch are decided by the partition: test_partitions.py."""
    assert {type(message) for message, _ in MESSAGE_TABLE} | {Produce, Fetch} == set(NEEDS)


def test_an_answer_is_no_request() -> None:
    answers = set(get_args(AnyMessage)) - set(NEEDS)
    assert len(answers) > 20
    assert not answers & set(NEEDS)


def test_whoever_is_not_known_is_told_nothing_of_what_there_is() -> None:
    """The same sentence for a topic that exists and one that does not."""
    told = []
    for values in (MINE, OTHERS):
        with pytest.raises(MinilogError) as caught:
            POLICY.admit(Shown(), ROUTE_NEEDS["fetch_partition"], values, NOW_MS)
        told.append(caught.value.detail)
    assert told[0] == told[1]


@pytest.mark.parametrize(("rule", "name", "covers"), [
    ("read orders.*", "orders.eu", True),
    ("read orders.*", "orders", False),
    ("read *", "orders", True),
    ("read *", "__groups", False),
    ("read __*", "__groups", True),
    ("read orders", "orders.eu", False),
])  # fmt: skip
def test_a_rule_covers_what_it_says(rule: str, name: str, covers: bool) -> None:
    policy = parse_security(f'[principals.a]\nallow = ["{rule}"]', "f").policy
    assert policy.principals["a"].may(Operation.READ, name) is covers


def test_who_is_withdrawn_or_changed_or_expires_holds_no_longer() -> None:
    known = POLICY.known_by(shown("reader"), NOW_MS)
    assert known is not None
    assert POLICY.holds(known, NOW_MS)
    assert not Policy(POLICY.principals, {}).holds(known, NOW_MS)
    other = {**POLICY.principals, "reader": Principal("reader")}
    assert not Policy(other, POLICY.credentials).holds(known, NOW_MS)
    ending = POLICY.known_by(shown("expired"), 0)
    assert ending is not None
    assert POLICY.holds(ending, 0)
    assert not POLICY.holds(ending, NOW_MS)


def test_a_certificate_names_one_principal() -> None:
    assert POLICY.known_by(Shown(certificate=("reader",)), NOW_MS) is not None
    for names in (("nobody-known",), ("reader", "writer")):
        with pytest.raises(Unauthenticated):
            POLICY.known_by(Shown(certificate=names), NOW_MS)
