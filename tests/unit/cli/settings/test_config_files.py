"""``minilog config files``: all files, none overwritten by accident, and all of them in the
wheel."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from minilog.cli.main import run
from minilog.cli.settings.config_files import FILES, source
from minilog.settings import load_broker, load_controller

ROOT = Path(__file__).parents[4]


def test_every_file_is_written_as_the_repository_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "minilog"
    assert run(["config", "files", str(folder)]) == 0
    listed = capsys.readouterr().out
    for name in FILES:
        path = folder / name.removeprefix("config/")
        assert path.read_bytes() == (ROOT / name).read_bytes()
        assert path.name in listed
    load_broker(folder / "broker.toml")
    load_controller(folder / "controller.toml")


def test_nothing_is_overwritten_unless_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "alerts.yml").write_text("mine")
    assert run(["config", "files", str(tmp_path)]) == 1
    assert "alerts.yml is there already, so nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["alerts.yml"]
    assert run(["config", "files", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "alerts.yml").read_bytes() == (ROOT / "config/alerts.yml").read_bytes()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["config", "files", str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_wheel_carries_every_file_that_is_written() -> None:
    """setup.py packs what its patterns find."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    named = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    patterns = ast.literal_eval(named["OPERATOR_FILES"])
    assert {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)} == set(FILES)


def test_no_file_of_the_repository_is_forgotten() -> None:
    assert source() == ROOT
    folders = [ROOT / "config", ROOT / "grafana" / "dashboards", ROOT / "grafana" / "provisioning"]
    found = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert found - {"config/alerts_test.yml"} == set(FILES)
