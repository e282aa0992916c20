"""Disks and journals that are not what they were, on real processes (R36, R37, R38): nothing that
was acknowledged is lost, or the partition waits until a person has decided."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.rig.cluster import ProcessCluster, process_cluster
from tests.process.routes.test_group_routes import Shell

TOPIC = "t"


class Bench:
    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster
        self.shell = Shell(cluster)

    def create(self, min_isr: int, topic: str = TOPIC) -> None:
        config = {"min.insync.replicas": str(min_isr)}
        self.shell.ok(
            "POST", "/v1/topics", {"topic": topic, "partitions": 1, "replication_factor": 3, "config": config}
        )
        self.cluster.wait_in_sync(topic)

    def write(self, count: int, topic: str = TOPIC) -> None:
        """Acknowledged by all."""
        records = [{"value": f"{number}"} for number in range(count)]
        code, _ = self.minilog("topic", "produce", topic, stdin="\n".join(record["value"] for record in records))
        assert code == 0

    def end(self, topic: str = TOPIC) -> int:
        leader = self.cluster.leader(topic)
        answer = self.cluster.ask(leader, f"/v1/topics/{topic}/partitions/0/offsets?at=latest")
        return int(answer["offset"])

    def minilog(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "minilog", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"MINILOG_URL": self.cluster.url, "COLUMNS": "120"},
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def all_but(self, broker_id: int) -> list[int]:
        return [other for other in self.cluster.broker_ids if other != broker_id]

    def wait_alone(self, broker_id: int, topic: str = TOPIC) -> None:
        self.cluster.wait(lambda: self.state(topic)["isr"] == [broker_id], f"broker {broker_id} alone in the ISR")

    def state(self, topic: str = TOPIC) -> dict[str, Any]:
        [state] = self.cluster.partitions(topic)
        return state

    def logged(self, broker_id: int, sentence: str) -> bool:
        return sentence in self.cluster.log(broker_id)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with process_cluster(tmp_path / "cluster") as cluster:
        yield Bench(cluster)


def anew(copy: Path, data_dir: Path) -> None:
    shutil.rmtree(data_dir)
    shutil.copytree(copy, data_dir)


def in_place(copy: Path, data_dir: Path) -> None:
    """Over the files that are there, as ``cp -a`` does. What came later stays."""
    subprocess.run(["cp", "-a", f"{copy}/.", str(data_dir)], check=True)


def moved_in(copy: Path, data_dir: Path) -> None:
    data_dir.rename(data_dir.with_name(f"{data_dir.name}.away"))
    shutil.copytree(copy, data_dir)


@pytest.mark.parametrize(
    ("is_stopped", "restore"),
    [(True, anew), (False, in_place), (False, moved_in)],
    ids=["copied while stopped", "copied while running, over what is there", "copied while running"],
)
def test_an_older_copy_of_a_disk_leads_nobody_who_has_more(
    bench: Bench, is_stopped: bool, restore: Callable[[Path, Path], None]
) -> None:
    """It comes back first, in the same boot, and the last leader is still away."""
    cluster = bench.cluster
    bench.create(min_isr=2)
    bench.write(10)
    old, last, third = cluster.broker_ids
    data_dir = cluster.data_dir(old)
    copy = data_dir.with_name("copy")
    if is_stopped:
        cluster.terminate(old)
        shutil.copytree(data_dir, copy)
        cluster.start(old)
        cluster.wait_in_sync(TOPIC)
    else:
        shutil.copytree(data_dir, copy)
    bench.write(20)
    cluster.kill(third)
    cluster.wait(lambda: bench.state()["isr"] == [old, last], "the third one to be fenced")
    cluster.kill(old, last)
    restore(copy, data_dir)
    cluster.launch(old)
    cluster.wait(lambda: cluster.ask(old, "/readyz") is not None, "the old disk to be ready")
    cluster.wait(lambda: bench.state()["elr"] == [last], "the old disk to be taken off")
    assert bench.state()["leader"] == -1
    cluster.start(*cluster.broker_ids)
    cluster.wait_in_sync(TOPIC)
    assert bench.end() == 30


def test_a_partition_whose_last_copy_is_gone_waits_for_a_decision_and_counts_the_loss(bench: Bench) -> None:
    cluster = bench.cluster
    bench.create(min_isr=1)
    bench.write(10)
    last = bench.state()["leader"]
    cluster.kill(*bench.all_but(last))
    bench.wait_alone(last)
    bench.write(7)
    cluster.terminate(last)
    shutil.rmtree(cluster.data_dir(last))
    cluster.start(*cluster.broker_ids)
    code, shown = bench.minilog("partition", "elect", TOPIC, "0")
    assert (code, "known to hold all of it" in shown) == (1, True), shown
    assert "at least 7 committed records are on none of them" in shown
    code, refused = bench.minilog("partition", "elect", TOPIC, "0", "--unclean")
    assert (code, "say --yes" in refused) == (2, True), refused
    code, health = bench.minilog("cluster", "health")
    assert (code, "offline" in health) == (1, True), health
    path = f"/v1/topics/{TOPIC}/partitions/0/election"
    bench.shell.refused("INVALID_REQUEST", "POST", path, {"unclean": True, "leader": 9})
    elected = bench.shell.ok("POST", path, {"unclean": True})
    assert (elected["kind"], elected["missing"], elected["leader"] != last) == ("unclean", 7, True)
    cluster.wait_in_sync(TOPIC)
    assert bench.end() == 10
    bench.write(3)
    assert bench.end() == 13


def test_the_disks_of_all_in_sync_replicas_are_replaced_and_the_loss_is_counted(bench: Bench) -> None:
    """Two whole copies, which nobody's alone were."""
    cluster = bench.cluster
    bench.create(min_isr=2)
    bench.write(10)
    leader = bench.state()["leader"]
    other, third = bench.all_but(leader)
    cluster.kill(third)
    cluster.wait(lambda: third not in bench.state()["isr"], "the third one to be fenced")
    bench.write(7)
    for broker_id in (other, leader):
        cluster.terminate(broker_id)
        shutil.rmtree(cluster.data_dir(broker_id))
    cluster.start(*cluster.broker_ids)
    code, shown = bench.minilog("partition", "elect", TOPIC, "0")
    assert (code, "at least 7 committed records are on none of them" in shown) == (1, True), shown
    elected = bench.shell.ok("POST", f"/v1/topics/{TOPIC}/partitions/0/election", {"unclean": True})
    assert (elected["leader"], elected["missing"]) == (third, 7)
    cluster.wait_in_sync(TOPIC)
    assert bench.end() == 10


def test_a_log_that_was_removed_is_not_counted_on_and_its_neighbours_are(bench: Bench) -> None:
    cluster = bench.cluster
    bench.create(min_isr=1, topic="removed")
    bench.create(min_isr=1, topic="kept")
    for topic in ("removed", "kept"):
        bench.write(10, topic)
    cluster.kill(2, 3)
    for topic in ("removed", "kept"):
        bench.wait_alone(1, topic)
        bench.write(5, topic)
    cluster.wait(lambda: "removed" in _saved_metadata(cluster, 1), "the copy of the metadata")
    cluster.kill(1)
    shutil.rmtree(cluster.data_dir(1) / "removed-0")
    cluster.start(1)
    cluster.wait(lambda: bench.state("kept")["leader"] == 1, "the other log to be led")
    assert bench.state("removed")["leader"] == -1
    assert bench.logged(1, "the log of removed-0 is not there any more")
    cluster.start(2, 3)
    code, shown = bench.minilog("partition", "elect", "removed", "0", "--unclean", "--yes")
    assert code == 0, shown
    for topic, end in (("removed", 10), ("kept", 15)):
        cluster.wait_in_sync(topic)
        assert bench.end(topic) == end


def _saved_metadata(cluster: ProcessCluster, broker_id: int) -> str:
    return (cluster.data_dir(broker_id) / "metadata").read_text()


def test_a_controller_with_an_older_journal_stops_and_one_is_made_from_the_brokers(bench: Bench) -> None:
    cluster = bench.cluster
    bench.create(min_isr=2, topic="old")
    data_dir = cluster.journal_file().parent
    backup = data_dir.with_name("backup")
    cluster.terminate("controller")
    shutil.copytree(data_dir, backup)
    cluster.start("controller")
    bench.create(min_isr=2, topic="newer")
    bench.write(10, "newer")
    cluster.kill("controller")
    shutil.rmtree(data_dir)
    shutil.copytree(backup, data_dir)
    cluster.launch("controller")
    cluster.wait(lambda: cluster.state("controller") == "dead", "the controller to stop")
    assert "The journal is an older copy, or another one" in cluster.log("controller")
    bench.write(5, "newer")
    sources = [part for broker_id in (1, 2) for part in ("--from", cluster.url.split(",")[broker_id - 1])]
    sources += ["--from", str(cluster.data_dir(3))]
    settings = ["--set", f"data_dir={data_dir}"]
    code, shown = bench.minilog("controller", "recover", *settings, *sources)
    assert (code, "say --yes" in shown) == (2, True), shown
    code, shown = bench.minilog("controller", "recover", *settings, *sources, "--yes")
    assert (code, "written" in shown) == (0, True), shown
    cluster.start("controller")
    bench.create(min_isr=2, topic="newest")
    for topic in ("old", "newer", "newest"):
        cluster.wait_in_sync(topic)
    assert bench.end("newer") == 15
