"""``minilog log strays``: what a broker has put aside is listed, and goes only when told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilog.cli.main import run
from minilog.config import TopicSettings
from minilog.storage.disk import OsDisk
from minilog.storage.store import Store
from tests.unit.storage.batches import make


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A broker's, with two logs put aside."""
    store = Store(OsDisk(), str(tmp_path), 1, lambda: 0)
    store.start("boot")
    for partition in range(2):
        log = store.open("orders", "id-of-orders", partition, TopicSettings())
        log.append([make(0, records=3)])
        store.put_aside("orders", "id-of-orders", partition)
    store.close_cleanly(1)
    return tmp_path


def test_strays_are_listed_with_what_they_hold(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "strays", str(data_dir)]) == 1
    shown = capsys.readouterr()
    assert "orders" in shown.out
    assert [line.split()[3] for line in shown.out.splitlines()[1:]] == ["3", "3"]
    assert "minilog log dump --records" in shown.err


def test_a_stray_goes_only_when_told_to(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.name for path in (data_dir / "stray").iterdir())
    assert run(["log", "strays", str(data_dir), "--drop", names[0]]) == 2
    assert "say --yes" in capsys.readouterr().err
    assert run(["log", "strays", str(data_dir), "--drop", "no-such", "--yes"]) == 2
    assert run(["log", "strays", str(data_dir), "--drop", names[0], "--yes"]) == 0
    assert [path.name for path in (data_dir / "stray").iterdir()] == names[1:]


def test_without_strays_all_is_well_and_no_other_folder_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["log", "strays", str(tmp_path)]) == 2
    Store(OsDisk(), str(tmp_path), 1, lambda: 0).start("boot")
    assert run(["log", "strays", str(tmp_path)]) == 0
    assert "no strays" in "".join(capsys.readouterr())
