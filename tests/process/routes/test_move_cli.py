"""Replicas are moved from a shell: a broker is emptied and filled again, a factor changes, a move
goes back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from minilog.cli.api import Api
from tests.process.rig.cluster import ProcessCluster, process_cluster

COUNT = 2000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    """Four brokers, of which one may be frozen for a while, and a topic with records."""
    with process_cluster(tmp_path_factory.mktemp("moves") / "cluster", 4, ["session_timeout_ms=30000"]) as found:
        run(found, "topic create t -p 4 -r 3")
        run(found, "topic produce t", given="".join(f"{number}\n" for number in range(COUNT)))
        yield found


def run(cluster: ProcessCluster, command: str, expected: int = 0, given: str = "") -> str:
    environment = {**os.environ, "MINILOG_URL": cluster.url}
    arguments = [sys.executable, "-m", "minilog", *command.split()]
    ended = subprocess.run(
        arguments, env=environment, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == expected, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout + ended.stderr


def directories(cluster: ProcessCluster, broker_id: int) -> list[str]:
    return sorted(path.parent.name for path in cluster.data_dir(broker_id).glob("*-*/partition.json"))


def replicas(cluster: ProcessCluster) -> list[list[int]]:
    return [state["replicas"] for state in cluster.partitions("t")]


def test_a_broker_is_emptied_and_gets_its_share_back(cluster: ProcessCluster) -> None:
    assert "nothing was moved" in run(cluster, "broker drain 3 --dry-run")
    assert any(3 in members for members in replicas(cluster))
    assert "say --yes" in run(cluster, "broker drain 3", expected=2)
    assert "all is where it was to be" in run(cluster, "broker drain 3 --yes")
    assert not any(3 in members for members in replicas(cluster))
    cluster.wait(lambda: directories(cluster, 3) == [], "broker 3 holds nothing")
    assert "nothing has to move" in run(cluster, "broker drain 3 --yes")
    run(cluster, "broker spread --yes")
    cluster.wait(lambda: len(directories(cluster, 3)) >= 3, "broker 3 has its share")
    assert all(len(set(members)) == 3 for members in replicas(cluster))


def test_another_factor_and_back(cluster: ProcessCluster) -> None:
    run(cluster, "topic alter t --replication-factor 4 --yes")
    assert all(sorted(members) == [1, 2, 3, 4] for members in replicas(cluster))
    assert "can never be met" in run(cluster, "topic alter t --replication-factor 1 --yes", expected=1)
    run(cluster, "topic alter t -r 3 --yes")
    assert all(len(members) == 3 for members in replicas(cluster))


def test_a_move_is_shown_and_goes_back(cluster: ProcessCluster) -> None:
    before = replicas(cluster)[0]
    comes = next(broker_id for broker_id in cluster.broker_ids if broker_id not in before)
    cluster.pause(comes)
    try:
        target = ",".join(map(str, [comes, *before[1:]]))
        run(cluster, f"partition move t 0 --to {target} --yes --no-wait")
        shown = run(cluster, "partition moves")
        assert f"broker {comes} catches up" in shown
        assert "on its way to brokers" in run(cluster, f"partition move t 0 --to {before[0]},{comes} --yes", expected=1)
        assert "all is where it was to be" in run(cluster, "partition moves --cancel t 0")
    finally:
        cluster.resume(comes)
    assert replicas(cluster)[0] == before
    assert "nothing is on the move" in run(cluster, "partition moves")
    cluster.wait(lambda: "t-0" not in directories(cluster, comes), "the copy that was begun has gone")


def test_a_broker_leaves_for_good(cluster: ProcessCluster) -> None:
    """Its process is stopped when it holds nothing, and its id is free then."""
    leaves = threading.Thread(target=run, args=(cluster, "broker decommission 4 --yes"))
    leaves.start()
    cluster.wait(lambda: not any(4 in members for members in replicas(cluster)), "broker 4 holds nothing")
    cluster.wait(lambda: Api(cluster.url).list_moves().moves == [], "nothing is on the move")
    assert leaves.is_alive()
    cluster.terminate(4)
    leaves.join(timeout=30)
    assert not leaves.is_alive()
    assert [one["broker_id"] for one in cluster.ask(1, "/v1/brokers")["brokers"]] == [1, 2, 3]
    assert "there is no broker 4" in run(cluster, "broker drain 4 --yes", expected=1)
    cluster.start(4)
    assert directories(cluster, 4) == []
    run(cluster, "broker spread --yes")
    assert any(4 in members for members in replicas(cluster))


def test_nothing_was_lost_by_all_that(cluster: ProcessCluster) -> None:
    api = Api(cluster.url)
    assert sum(api.end_offset("t", partition) for partition in range(4)) == COUNT
