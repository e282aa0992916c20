"""Consumer groups with nothing but HTTP, as from a shell with curl: any broker, the whole life of
two members."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process.rig.cluster import ProcessCluster, process_cluster

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    with process_cluster(tmp_path_factory.mktemp("groups") / "cluster") as found:
        yield found


class Shell:
    """One request after the other, to a broker of the caller's choice."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.urls = cluster.url.split(",")

    def __call__(self, method: str, path: str, body: Any = None, broker: int = 0) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.urls[broker] + path, data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def ok(self, method: str, path: str, body: Any = None, broker: int = 0) -> Any:
        status, answer = self(method, path, body, broker)
        assert status in (200, 201), answer
        return answer

    def refused(self, code: str, method: str, path: str, body: Any = None) -> str:
        status, answer = self(method, path, body)
        assert (answer["code"], status >= 400) == (code, True), answer
        return str(answer["detail"])


def owned(answer: Any) -> list[int]:
    return [number for entry in answer["assignment"] for number in entry["partitions"]]


class Member:
    """Keeps the rules: owns only what it was told, gives back what it was not told any more."""

    def __init__(self, shell: Shell, group: str, name: str, topic: str, broker: int) -> None:
        self.shell, self.path, self.topic, self.broker = shell, f"/v1/groups/{group}/members/{name}", topic, broker
        self.epoch, self.owned = 0, list[int]()

    def beat(self) -> Any:
        holds = [{"topic": self.topic, "partitions": self.owned}] if self.owned else []
        body = {"member_epoch": self.epoch, "topics": [self.topic], "owned": holds}
        answer = self.shell.ok("PUT", self.path, body, self.broker)
        self.epoch, self.owned = answer["member_epoch"], owned(answer)
        return answer


def settle(*members: Member) -> None:
    """Heartbeats in turn until nobody waits for anything and all partitions have an owner."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        answers = [member.beat() for member in members]
        numbers = sorted(number for member in members for number in member.owned)
        assert len(numbers) == len(set(numbers)), "two members own one partition"
        if numbers == list(range(4)) and not any(answer["pending"] for answer in answers):
            return
        assert time.monotonic() < deadline_s, answers


def test_the_life_of_a_group(cluster: ProcessCluster) -> None:
    shell = Shell(cluster)
    shell.ok("POST", "/v1/topics", {"topic": "orders", "partitions": 4})
    records = {"records": [{"value": number, "key": number} for number in range(40)]}
    shell.ok("POST", "/v1/topics/orders/records", records)

    first = Member(shell, "billing", "m1", "orders", broker=0)
    settle(first)
    second = Member(shell, "billing", "m2", "orders", broker=1)
    settle(first, second)
    assert sorted(map(len, (first.owned, second.owned))) == [2, 2]

    commit = {
        "member_id": "m1",
        "member_epoch": first.epoch,
        "offsets": [{"topic": "orders", "partition": number, "offset": 1} for number in first.owned],
    }
    assert shell.ok("PUT", "/v1/groups/billing/offsets", commit, broker=2)["committed"] == 2
    foreign = {**commit, "offsets": [{"topic": "orders", "partition": second.owned[0], "offset": 1}]}
    assert "m1" in shell.refused("NOT_ASSIGNED", "PUT", "/v1/groups/billing/offsets", foreign)
    shell.refused("UNKNOWN_MEMBER", "PUT", "/v1/groups/billing/offsets", {**commit, "member_id": "m9"})
    shell.refused("GROUP_NOT_EMPTY", "PUT", "/v1/groups/billing/offsets", {"offsets": commit["offsets"]})

    described = shell.ok("GET", "/v1/groups/billing", broker=1)
    assert (described["group"]["state"], described["group"]["members"]) == ("stable", 2)
    committed = shell.ok("GET", "/v1/groups/billing/offsets", broker=1)["offsets"]
    assert {entry["partition"]: entry["offset"] for entry in committed} == dict.fromkeys(first.owned, 1)
    lag = shell.ok("GET", "/v1/groups/billing/lag", broker=2)
    assert (lag["lag"], lag["lag_seconds"]) == (None, None), "the second member has committed nothing"
    assert [row["partition"] for row in lag["partitions"] if row["committed"] is None] == second.owned
    theirs = {
        "member_id": "m2",
        "member_epoch": second.epoch,
        "offsets": [{"topic": "orders", "partition": number, "offset": 1} for number in second.owned],
    }
    shell.ok("PUT", "/v1/groups/billing/offsets", theirs)
    lag = shell.ok("GET", "/v1/groups/billing/lag", broker=2)
    assert lag["lag"] == sum(row["high_watermark"] - 1 for row in lag["partitions"]) == 36
    assert lag["lag_seconds"] > 0

    shell.ok("DELETE", "/v1/groups/billing/members/m1?member_epoch=0", broker=2)  # of an older life: nothing happens
    shell.ok("PUT", "/v1/groups/billing/offsets", {**commit, "sequence": 2})
    assert "commit 2" in shell.refused("GROUP_CHANGED", "PUT", "/v1/groups/billing/offsets", {**commit, "sequence": 1})
    shell.ok("DELETE", "/v1/groups/billing/members/m1", broker=2)
    settle(second)
    shell.refused("UNKNOWN_MEMBER", "PUT", "/v1/groups/billing/offsets", commit)
    shell.refused("GROUP_NOT_EMPTY", "DELETE", "/v1/groups/billing")
    shell.ok("DELETE", "/v1/groups/billing/members/m2")
    assert [info["group"] for info in shell.ok("GET", "/v1/groups", broker=1)["groups"]] == ["billing"]
    epoch = shell.ok("GET", "/v1/groups/billing")["group"]["group_epoch"]
    shell.refused("GROUP_CHANGED", "DELETE", f"/v1/groups/billing?group_epoch={epoch - 1}")
    shell.ok("DELETE", f"/v1/groups/billing?group_epoch={epoch}")
    shell.refused("UNKNOWN_GROUP", "GET", "/v1/groups/billing")


def test_more_partitions_reach_a_group(cluster: ProcessCluster) -> None:
    shell = Shell(cluster)
    shell.ok("POST", "/v1/topics", {"topic": "growing", "partitions": 1})
    member = Member(shell, "growers", "m1", "growing", broker=0)
    member.beat()
    shell.ok("PATCH", "/v1/topics/growing", {"partitions": 4}, broker=1)
    settle(member)


@pytest.mark.parametrize(
    ("code", "method", "path", "body"),
    [
        ("INVALID_REQUEST", "PUT", "/v1/groups/g/members/m", {"member_epoch": 0}),
        ("INVALID_REQUEST", "PUT", "/v1/groups/g/members/m", {"topics": ["a"], "pattern": "a.*"}),
        ("INVALID_REQUEST", "PUT", "/v1/groups/g/members/m", {"topics": ["a"], "assignor": "dice"}),
        ("INVALID_REQUEST", "PUT", "/v1/groups/g/members/m", {"topics": ["a"], "session_timeout_ms": 1}),
        ("INVALID_REQUEST", "PUT", "/v1/groups/g/members/m", {"topics": ["a"], "epoch": 1}),
        ("INVALID_GROUP", "PUT", "/v1/groups/a%20b/members/m", {"topics": ["a"]}),
        ("INVALID_REQUEST", "PUT", "/v1/groups/g/offsets", {"offsets": []}),
        ("UNKNOWN_TOPIC_OR_PARTITION", "PUT", "/v1/groups/g/offsets", {"offsets": [{"topic": "no", "partition": 0, "offset": 1}]}),
        ("UNKNOWN_GROUP", "GET", "/v1/groups/nobody", None),
        ("INVALID_TOPIC", "POST", "/v1/topics", {"topic": "__mine"}),
        ("INVALID_TOPIC", "DELETE", "/v1/topics/__groups", None),
    ],
)  # fmt: skip
def test_refusals(cluster: ProcessCluster, code: str, method: str, path: str, body: Any) -> None:
    assert len(Shell(cluster).refused(code, method, path, body)) > 20
