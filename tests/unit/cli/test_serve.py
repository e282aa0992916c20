"""``minilog serve``: whose word counts for its two processes in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilog import standalone
from minilog.cli.main import main
from minilog.config import BrokerSettings, ControllerSettings

Told = tuple[BrokerSettings, ControllerSettings]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Told]:
    """What the two would have been started with."""
    seen: list[Told] = []

    def note(broker: BrokerSettings, controller: ControllerSettings, on_serving: Callable[[str], None]) -> int:
        seen.append((broker, controller))
        on_serving(f"http://{broker.host}:{broker.port}")
        return 0

    monkeypatch.setattr(standalone, "run_both", note)
    monkeypatch.chdir(tmp_path)
    return seen


def started(told: list[Told], *words: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])
    assert ended.value.code in (0, None)
    broker, controller = told[-1]
    return {
        "data": (broker.data_dir, controller.data_dir),
        "ports": (broker.port, controller.port),
        "controller_url": broker.controller_url,
    }


def test_the_defaults(told: list[Told]) -> None:
    seen = started(told)
    assert seen["data"] == ("minilog-data/broker-1", "minilog-data/controller")
    assert seen["ports"] == (8082, 9093)
    assert seen["controller_url"] == "http://127.0.0.1:9093"
    assert told[0][1].default_replication_factor == 1


SOURCES = ("file", "environment", "flag")


@pytest.mark.parametrize("strongest", range(3))
def test_flags_beat_environment_beats_file_beats_defaults(
    told: list[Told], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strongest: int
) -> None:
    words = []
    (tmp_path / "m.toml").write_text('data_dir = "file"\nport = 1001\n')
    words += ["--config", "m.toml"]
    if strongest >= 1:
        monkeypatch.setenv("MINILOG_DATA_DIR", "environment")
        monkeypatch.setenv("MINILOG_PORT", "1002")
    if strongest >= 2:
        words += ["--data", "flag", "--port", "1003"]
    seen = started(told, *words)
    folder = SOURCES[strongest]
    assert seen["data"] == (f"{folder}/broker-1", f"{folder}/controller"), "each has a folder of its own"
    assert seen["ports"] == (1001 + strongest, 9093), "a bare port is the broker's"


def test_a_prefix_names_one_of_the_two(told: list[Told], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('data_dir = "all"\n[controller]\ndata_dir = "c"\nport = 7\n[broker]\nport = 8\n')
    seen = started(told, "--config", "m.toml")
    assert seen["data"] == ("all/broker-1", "c")
    assert seen["ports"] == (8, 7)
    monkeypatch.setenv("MINILOG_BROKER__DATA_DIR", "b")
    monkeypatch.setenv("MINILOG_CONTROLLER__PORT", "9")
    seen = started(told, "--config", "m.toml")
    assert seen["data"] == ("b", "c")
    assert seen["ports"] == (8, 9)
    seen = started(told, "--config", "m.toml", "--data", "x", "--controller-port", "10")
    assert seen["data"] == ("x/broker-1", "x/controller"), "a flag beats the environment, whatever its prefix"
    assert seen["ports"] == (8, 10)
    seen = started(told, "--data", "x", "--set", "broker.data_dir=y")
    assert seen["data"] == ("y", "x/controller"), "of two flags the one that says more"


def test_what_is_said_is_what_is_done(told: list[Told], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    started(told, "--data", "x")
    assert f"data in {tmp_path}/x;" in capsys.readouterr().err
    started(told, "--set", "broker.data_dir=y")
    assert f"data in {tmp_path}/y and {tmp_path}/minilog-data/controller;" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://localhost:7", "http://[::1]:7", "http://127.0.0.1:7"])
def test_its_own_controller_may_be_named(told: list[Told], url: str) -> None:
    started(told, "--controller-port", "7", "--set", f"broker.controller_url={url}")


def test_whoever_listens_everywhere_has_any_name(told: list[Told]) -> None:
    own = ("--set", "controller.host=0.0.0.0", "--set", "broker.controller_url=http://me.example.org:9093")
    started(told, *own)


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["--port", "5", "--controller-port", "5"], {}, "cannot share port 5"),
        (["--set", "data_dir=x"], {}, "write broker.data_dir=... or controller.data_dir=..."),
        (["--port", "5", "--set", "broker.port=6"], {}, "port is given twice"),
        ([], {"MINILOG_PORT": "x"}, "environment variable MINILOG_PORT: port = 'x' is not allowed"),
        (["--set", "broker.controller_url=http://127.0.0.1:1"], {}, "controller_url = 'http://127.0.0.1:1' is not the"),
        (
            [],
            {"MINILOG_CONTROLLER_URL": "http://elsewhere:9093"},
            "environment variable MINILOG_CONTROLLER_URL: controller_url = 'http://elsewhere:9093' is not the controller",
        ),
        (["--set", "controller.data_dir=x", "--set", "broker.data_dir=./x"], {}, "are the same folder"),
        ([], {"MINILOG_DATA_DIR": ""}, "environment variable MINILOG_DATA_DIR: data_dir is empty"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    told: list[Told],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    environment: dict[str, str],
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])
    assert ended.value.code
    assert said in " ".join(capsys.readouterr().err.split())
    assert not told
