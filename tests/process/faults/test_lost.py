"""The story minilog was begun for, on real processes: the last seconds of writes are gone with a
leader, and are found, counted, shown and written again, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.process.faults.test_disks import Bench
from tests.process.rig.cluster import ProcessCluster, process_cluster

RECORDS = 20_000


def lose_the_last_writes(bench: Bench) -> tuple[int, int]:
    """(who led, who leads): the followers stand still, records are written with acks=1, the leader
    dies, the followers go on."""
    cluster = bench.cluster
    bench.create(min_isr=2)
    bench.write(10)
    leader = cluster.leader("t")
    followers = bench.all_but(leader)
    cluster.pause(*followers)
    values = "\n".join(f"lost {number}" for number in range(RECORDS))
    code, said = bench.minilog("topic", "produce", "t", "--acks", "1", "--url", _url(cluster, leader), stdin=values)
    assert code == 0, said
    cluster.kill(leader)
    cluster.resume(*followers)
    cluster.wait(lambda: cluster.leader("t") in followers, "a follower to lead")
    bench.write(1)
    cluster.start(leader)
    cluster.wait_in_sync("t")
    return leader, cluster.leader("t")


def values(bench: Bench) -> list[str]:
    code, printed = bench.minilog("topic", "consume", "t", "-o", "earliest", "-e", "-f", "%v\\n")
    assert code == 0
    return printed.splitlines()


def lost_list(bench: Bench) -> list[dict[str, Any]]:
    _, printed = bench.minilog("lost", "list", "-o", "json")
    found: list[dict[str, Any]] = json.loads(printed)
    return found


def test_what_acks_1_lost_is_told_counted_and_written_again_once(tmp_path: Path) -> None:
    with process_cluster(tmp_path / "cluster") as cluster:
        bench = Bench(cluster)
        old, _ = lose_the_last_writes(bench)
        (tail,) = lost_list(bench)
        assert (tail["broker_id"], tail["records"], tail["records_by_acks"]["1"]) == (old, RECORDS, RECORDS)
        code, told = bench.minilog("cluster", "events", "--level", "error")
        assert f"broker {old} cut {RECORDS} records from the end of t-0" in " ".join(told.split())
        assert code == 0
        assert f'minilog_records_lost_total{{acks="1"}} {RECORDS}' in _metrics(_url(cluster, old))
        code, exported = bench.minilog("lost", "export", tail["tail"])
        assert (code, len(exported.splitlines())) == (0, RECORDS)
        receipt = json.dumps(
            {"topic": "t", "partition": 0, "offset": 10, "end_offset": 10 + RECORDS, "leader_epoch": 0}
        )
        code, said = bench.minilog("receipt", "check", "-o", "json", stdin=receipt)
        assert (code, '"status": "lost"' in said, '"lost_from": 10' in said) == (1, True, True), said
        assert bench.minilog("lost", "replay", tail["tail"])[0] == 2, "nobody said --yes"
        for _ in range(2):
            code, said = bench.minilog("lost", "replay", tail["tail"], "--yes")
            assert code == 0, said
            assert f"{RECORDS} records of {tail['tail']} are in t-0 again" in said
        assert [value for value in values(bench) if "lost" in value] == [f"lost {n}" for n in range(RECORDS)]
        assert bench.minilog("lost", "list")[0] == 0
        assert bench.minilog("lost", "discard", tail["tail"], "--yes")[0] == 0
        assert lost_list(bench) == []


def test_a_replay_that_is_killed_again_and_again_writes_nothing_twice(tmp_path: Path) -> None:
    with process_cluster(tmp_path / "cluster") as cluster:
        bench = Bench(cluster)
        old, leader = lose_the_last_writes(bench)
        (tail,) = lost_list(bench)
        for victim in (old, leader, old):
            _ask_and_kill(bench, old, tail["tail"], victim)
        code, said = bench.minilog("lost", "replay", tail["tail"], "--yes")
        assert code == 0, said
        found = [value for value in values(bench) if "lost" in value]
        assert found == [f"lost {n}" for n in range(RECORDS)]


def _ask_and_kill(bench: Bench, keeper: int, tail: str, victim: int) -> None:
    cluster = bench.cluster
    command = [sys.executable, "-m", "minilog", "lost", "replay", tail, "--yes"]
    with subprocess.Popen(
        command, env=os.environ | {"MINILOG_URL": cluster.url}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as asking:
        cluster.wait(lambda: cluster.told(keeper, f"/v1/lost/{tail}")["replay"] is not None, "the replay to begin")
        cluster.kill(victim)
        cluster.start(victim)
        asking.wait(60)
    cluster.wait_in_sync("t")


def _metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _url(cluster: ProcessCluster, broker_id: int) -> str:
    return cluster.url.split(",")[cluster.broker_ids.index(broker_id)]
