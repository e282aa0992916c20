"""Real processes: the active controller dies or stands still, and a leader is killed in the same
second. What was acknowledged stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from minilog.server.process import DEPOSED_EXIT_CODE
from tests.process.conftest import leave_out
from tests.process.controllers.stage import Stage, ask, stage


def test_a_controller_and_a_leader_that_die_together_lose_nothing(tmp_path: Path) -> None:
    if shutil.which("etcd") is None:
        leave_out("etcd is not installed")
    with stage(tmp_path / "dev") as played:
        for nemesis in ("kill", "stop"):
            _play(played, nemesis)
        assert played.lost() == []
        moves = played.moves()
        assert [move["controller_epoch"] for move in moves] == [2, 3]
        assert moves[0]["why"] == "its port refuses connections"
        assert moves[1]["from_url"] == moves[0]["url"]
        assert 0 < int(moves[0]["absent_ms"]) < 10_000  # type: ignore[call-overload]


def _play(played: Stage, nemesis: str) -> None:
    before = played.active()
    assert before is not None
    played.dev.reap()
    seen = played.play(nemesis)
    assert seen.acknowledged > 0
    if nemesis == "stop":
        text = before.log_file.read_text(errors="replace")
        assert "is deposed and ends: the term at" in text


def test_a_controller_that_etcd_does_not_reach_is_left_by_all_brokers(tmp_path: Path) -> None:
    """R124: it hears them well, and has nothing to write."""
    if shutil.which("etcd") is None:
        leave_out("etcd is not installed")
    with stage(tmp_path / "dev") as played:
        before = played.active()
        assert before is not None
        for relay in played.dev.to_etcd[before.name]:
            relay.cut()
        played.wait(lambda: played.new_active(before), "another controller decides")
        played.wait(lambda: played.epochs() == {2}, "brokers hear the other one")
        assert ask(f"{before.url}/readyz") != "ready\n"
        assert "\nminilog_active_controller 0\n" in ask(f"{before.url}/metrics")
        played.repair()


def test_the_exit_code_says_that_another_controller_decides() -> None:
    assert DEPOSED_EXIT_CODE == 3


@pytest.mark.parametrize("count", [2])
def test_without_etcd_several_controllers_are_refused_in_a_sentence(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minilog.cli.local.cluster import DevCluster
    from minilog.cli.output import CliError

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CliError, match="keep their journal in etcd, which is not installed here"):
        DevCluster.create(tmp_path / "dev", 3, 0, 0, (), count)
