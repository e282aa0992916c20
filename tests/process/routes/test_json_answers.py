"""Each JSON route answers with exactly the struct that is declared for it: nothing less, and
nothing that is not documented."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from minilog.broker.http.cluster.openapi import ANSWERS
from minilog.wire.json.json_answers import plain
from minilog.wire.routes import BY_NAME, path_of
from tests.process.rig.cluster import process_cluster
from tests.process.routes.test_group_routes import Shell

NATIVE = {"produce", "fetch"}
"""Speak msgpack."""
TAGGED = {"metadata_copy"}
"""Says of each record of which type it is."""
ELSEWHERE = {"elect_leader", "describe_lost", "read_lost", "replay_lost", "discard_lost", "remove_broker"}
"""Answer when something is lost (test_disks.py, test_lost.py), or a broker is (test_move_cli.py)."""
LEAVES_OUT = {"produce_topic", "produce_partition", "fetch_partition", "live", *TAGGED}
"""Say of a record, or of an event, only what is known of it."""


class Walk:
    """Asks routes by name, and notes which were asked."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.asked: set[str] = set()

    def __call__(self, name: str, body: Any = None, query: dict[str, str] | None = None, **values: str | int) -> Any:
        answer = self.shell.ok(BY_NAME[name].method, path_of(name, query, **values), body)
        declared = msgspec.json.decode(json.dumps(answer), type=ANSWERS[name])
        seen = json.loads(msgspec.json.encode(declared if name in LEAVES_OUT else plain(declared)))
        assert seen == answer, f"{name}: declared are {seen}, served is {answer}"
        self.asked.add(name)
        return answer


def test_what_is_served_is_what_is_declared(tmp_path_factory: Any) -> None:
    with process_cluster(tmp_path_factory.mktemp("answers") / "cluster") as cluster:
        walk = Walk(Shell(cluster))
        walk("create_topic", {"topic": "t", "partitions": 1, "replication_factor": 1})
        for name in (
            "healthz",
            "readyz",
            "cluster",
            "health",
            "brokers",
            "failovers",
            "events",
            "list_lost",
            "metadata",
            "metadata_copy",
            "list_topics",
            "log_level",
            "live",
        ):
            walk(name)
        walk("set_log_level", {"level": "info"})
        walk("describe_topic", topic="t")
        walk("describe_election", topic="t", partition=0)
        walk("produce_topic", {"records": [{"value": "a"}, {"value": "b"}]}, topic="t")
        walk("produce_partition", {"records": [{"value": "c"}]}, topic="t", partition=0)
        walk("fetch_partition", query={"offset": "earliest"}, topic="t", partition=0)
        walk("offsets", query={"at": "latest"}, topic="t", partition=0)
        walk("topic_offsets", topic="t")
        receipt = {"topic": "t", "partition": 0, "offset": 0, "leader_epoch": 0}
        told = walk("check_receipts", {"receipts": [receipt, receipt | {"offset": 99}]})
        assert [one["status"] for one in told["receipts"]] == ["committed", "lost"]
        walk("create_producer")
        joined = walk("group_heartbeat", {"topics": ["t"]}, group="g", member="m")
        offsets = [{"topic": "t", "partition": 0, "offset": 1}]
        member = {"member_id": "m", "member_epoch": joined["member_epoch"]}
        walk("commit_offsets", {"offsets": offsets, **member}, group="g")
        for name in ("describe_group", "committed_offsets", "group_lag"):
            walk(name, group="g")
        walk("list_groups")
        walk("leave_group", group="g", member="m")
        walk("delete_group", group="g")
        walk("balance_leaders", {"dry_run": True})
        planned = walk("plan_moves", {"topic": "t", "replication_factor": 1})
        assert planned == {"moves": [], "problems": []}
        move = {"topic": "t", "partition": 0, "replicas": [1]}
        assert walk("move_replicas", {"moves": [move], "dry_run": True})["moves"][0]["replicas"] == [1]
        walk("list_moves")
        walk("alter_topic", {"partitions": 2}, topic="t")
        changed = walk("alter_topic", {"config": {"retention.ms": 5000, "flush.ms": None}}, topic="t")
        assert changed["config"]["retention.ms"] == "5000"
        walk("delete_topic", topic="t")
        assert walk.asked | NATIVE | ELSEWHERE == set(ANSWERS), "every documented answer was looked at"
