from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minilog import machine
from minilog.cli.dev import dev
from minilog.cli.dev.dev import topic_specs
from minilog.cli.dev.supervise import LogTail, change_sentence, is_important
from minilog.cli.local import process
from minilog.cli.local.cluster import DevCluster, default_folder, last_words, refuse_port_in_use
from minilog.cli.local.ports import free_ports
from minilog.cli.output import CliError
from minilog.settings import BadSettings


def test_a_folder_remembers_its_cluster(tmp_path: Path) -> None:
    created = DevCluster.create(tmp_path / "c", 3, overrides=["replica_lag_max_ms=9"])
    created.save()
    opened = DevCluster.open(tmp_path / "c")
    assert [member.name for member in opened.members] == ["controller", "broker 1", "broker 2", "broker 3"]
    assert opened.url == "http://127.0.0.1:8082,http://127.0.0.1:8083,http://127.0.0.1:8084"
    assert opened.controller.url == "http://127.0.0.1:9093"
    assert opened.spec.overrides == ["replica_lag_max_ms=9"]
    assert {member.state() for member in opened.members} == {"dead"}


def test_a_cluster_keeps_its_ports_and_may_grow_but_not_shrink(tmp_path: Path) -> None:
    DevCluster.create(tmp_path, 2, port=7000, controller_port=7100).save()
    assert DevCluster.create(tmp_path, 4).spec.ports == [7000, 7001, 7002, 7003]
    assert DevCluster.create(tmp_path, 2, port=7500).spec.ports == [7500, 7501]
    with pytest.raises(CliError, match="cannot shrink to 1"):
        DevCluster.create(tmp_path, 1)


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(CliError, match=r"holds thesis\.txt"):
        DevCluster.create(tmp_path, 3)
    with pytest.raises(CliError, match="is not a folder"):
        DevCluster.create(tmp_path / "thesis.txt", 3)
    with pytest.raises(CliError, match="no dev cluster in"):
        DevCluster.open(tmp_path)


def test_bad_settings_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadSettings):
        DevCluster.create(tmp_path / "c", 3, overrides=["nothing=1"])
    with pytest.raises(CliError, match="pass port 65535"):
        DevCluster.create(tmp_path / "c", 3, port=65534)
    assert not (tmp_path / "c").exists()


def test_members_are_found_by_id_or_name(tmp_path: Path) -> None:
    cluster = DevCluster.create(tmp_path, 2)
    assert cluster.member("2").id == 2
    assert cluster.member("controller").role == "controller"
    for name in ("3", "broker", "x", "-1"):
        with pytest.raises(CliError, match="from 1 to 2, or controller"):
            cluster.member(name)


def test_a_port_in_use_says_which_and_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        cluster = DevCluster.create(tmp_path, 1, port=port)
        with pytest.raises(CliError, match=f"port {port}, which the broker 1 needs, is in use.*--port"):
            refuse_port_in_use(cluster.brokers[0])


def test_free_ports_are_neighbours() -> None:
    ports = free_ports(3)
    assert ports == list(range(ports[0], ports[0] + 3))


def test_two_commands_do_not_change_a_cluster_at_once(tmp_path: Path) -> None:
    cluster = DevCluster.create(tmp_path, 1)
    with cluster.locked(), pytest.raises(CliError, match="another `minilog dev` command"), cluster.locked():
        pass


def test_a_process_is_known_by_pid_and_start_time(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        known = process.write_pid_file(tmp_path / "p.json", child.pid)
        assert process.read_pid_file(tmp_path / "p.json") == known
        assert process.state(known) == "running"
        recycled = process.PidFile(known.pid, "some other start")
        assert process.state(recycled) == "dead"
        assert not process.signal_to(recycled, signal.SIGKILL)
        assert child.poll() is None
        assert process.signal_to(known, signal.SIGKILL)
        child.wait()
        assert process.state(known) == "dead"
        assert not process.signal_to(known, signal.SIGKILL)
    finally:
        child.kill()
        child.communicate()


def test_a_broken_pid_file_means_dead(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    assert process.state(process.read_pid_file(path)) == "dead"
    path.write_text("{")
    assert process.read_pid_file(path) is None


def test_cpu_time_is_told() -> None:
    seconds = machine.cpu_seconds(os.getpid())
    assert seconds is None or seconds > 0


def test_topics_on_the_command_line() -> None:
    assert topic_specs("orders:6, clicks,x:3:1") == [("orders", 6, None), ("clicks", 1, None), ("x", 3, 1)]
    assert topic_specs("") == []
    for bad in ("orders:0", "orders:x", ":3", "a:1:2:3"):
        with pytest.raises(CliError):
            topic_specs(bad)


def test_last_words_drop_the_time_and_level(tmp_path: Path) -> None:
    cluster = DevCluster.create(tmp_path, 1)
    broker = cluster.brokers[0]
    assert last_words(broker) == "it printed nothing"
    broker.log_file.write_text("x\n2026-01-01T00:00:00.000Z ERROR minilog: the disk is full\n\n")
    assert last_words(broker) == "the disk is full"


def test_the_foreground_shows_what_matters(tmp_path: Path) -> None:
    assert is_important("2026-01-01T00:00:00.000Z WARNING minilog.x: y")
    assert is_important("Fatal Python error: ...")
    assert not is_important("2026-01-01T00:00:00.000Z INFO minilog.x: y")
    path = tmp_path / "l"
    path.write_text("before\n")
    tail = LogTail(path)
    with path.open("a") as log:
        log.write("one\ntwo\nhal")
        log.flush()
        assert list(tail.lines()) == ["one", "two"]
        log.write("f\n")
    assert list(tail.lines()) == ["half"]
    broker = DevCluster.create(tmp_path / "c", 1).brokers[0]
    assert change_sentence(broker, "dead", None, -9).startswith("broker 1 ended by signal 9; `minilog dev start 1`")
    assert change_sentence(broker, "paused", 5, None) == "broker 1 is paused, pid 5"


def test_commands_to_be_copied_survive_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my cluster; it's here"
    cluster = DevCluster.create(folder, 1)
    cluster.save()
    with pytest.raises(CliError) as refused:
        dev.kill(["1"], folder)
    command = re.findall(r"`(.*)`", refused.value.sentence)[0]
    assert shlex.split(command) == ["minilog", "dev", "start", "1", "--data", str(folder)]
    said = change_sentence(cluster.member("1"), "dead", None, -9, cluster.data_words)
    assert shlex.split(re.findall(r"`(.*)`", said)[0]) == shlex.split(command)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    usual = DevCluster.create(default_folder(), 1)
    assert usual.command("down") == "`minilog dev down`"


def test_a_cluster_does_not_grow_beyond_the_last_port(tmp_path: Path) -> None:
    DevCluster.create(tmp_path, 3, port=65532, controller_port=1).save()
    with pytest.raises(CliError, match="65535"):
        DevCluster.create(tmp_path, 5)
    assert DevCluster.create(tmp_path, 4).spec.ports == [65532, 65533, 65534, 65535]


def test_no_two_processes_of_a_cluster_get_one_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CliError, match="9093 would be the controller's and broker 3's"):
        DevCluster.create(tmp_path / "c", 3, port=9091)
    monkeypatch.setattr("minilog.cli.local.ports.random.choice", lambda numbers: numbers[4321])
    spec = DevCluster.create(tmp_path / "d", 3, port=0, controller_port=0).spec
    assert len({*spec.ports, spec.controller_port}) == 4


def test_the_foreground_goes_on_behind_a_line_that_is_very_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minilog.cli.dev.supervise.LOOK_BYTES_MAX", 10)
    path = tmp_path / "l"
    tail = LogTail(path)
    path.write_text("\n" + "x" * 35 + "\nnext\n")
    looks = [list(tail.lines()) for _ in range(9)]
    assert [line for look in looks for line in look] == ["x" * 10, "next"]
    with path.open("a") as log:
        log.write("last\n")
    assert list(tail.lines()) == ["last"]


def test_the_foreground_goes_on_when_somebody_has_emptied_the_log(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_text("before\n")
    tail = LogTail(path)
    path.write_text("")
    assert list(tail.lines()) == []
    path.write_text("one\n")
    assert list(tail.lines()) == ["one"]
