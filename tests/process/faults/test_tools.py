"""The tools of this ring do what they say: cables are cut, power is lost, cards are dealt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from minilog.wire.journal.metadata_records import BrokerFenced, PartitionChanged
from tests.process.campaign import report, soak
from tests.process.conftest import Stage, leave_out
from tests.process.load import fullload
from tests.process.rig import faulty_disk, slow_syncs
from tests.process.rig.faulty_disk import MIB, Volume
from tests.process.rig.network import CLIENT
from tests.process.rig.older_copy import restore, take_copy
from tests.process.rig.slow_link import Link


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    why_not = faulty_disk.unavailable()
    if why_not:
        leave_out(why_not)
    return Volume(tmp_path / "disk", 16 * MIB)


def test_each_direction_is_cut_alone(stage: Stage) -> None:
    if reason := stage.missing.get("network"):
        leave_out(reason)
    cluster = stage.cluster()
    network, broker = cluster.network, cluster.node(1)
    for pair in ((CLIENT, broker), (broker, CLIENT)):
        network.cut(*pair)
        assert cluster.ask(1, "/v1/metadata") is None
        assert cluster.ask(2, "/v1/metadata") is not None
        network.mend(*pair)
        assert cluster.ask(1, "/v1/metadata") is not None


def test_a_slow_link_is_slow_until_it_is_healed(stage: Stage) -> None:
    if reason := stage.missing.get("network"):
        leave_out(reason)
    cluster = stage.cluster()
    cluster.network.slow(cluster.node(1), CLIENT, Link(delay_ms=100))
    slow_s = _answer_s(stage)
    cluster.network.heal()
    assert slow_s >= 0.2, "connecting and answering are two round trips"
    assert min(_answer_s(stage) for _ in range(5)) < 0.1


def _answer_s(stage: Stage) -> float:
    began_s = time.monotonic()
    assert stage.cluster().ask(1, "/healthz-unknown") is None
    return time.monotonic() - began_s


def test_a_power_cut_takes_what_was_not_synced(volume: Volume) -> None:
    synced, unsynced = volume.folder / "synced", volume.folder / "unsynced"
    try:
        handle = os.open(synced, os.O_CREAT | os.O_WRONLY)
        os.write(handle, b"kept")
        os.fsync(handle)
        os.write(handle, b", lost")
        unsynced.write_bytes(b"lost")
        boot_id = volume.boot_id
        volume.fail()
        with pytest.raises(OSError, match="Input/output error"):
            os.fsync(handle)
        os.close(handle)
        volume.power_on()
        assert synced.read_bytes() == b"kept"
        assert not unsynced.exists()
        assert volume.boot_id != boot_id
    finally:
        volume.unmount()


def test_a_full_volume_is_full_until_it_is_emptied(volume: Volume) -> None:
    try:
        volume.fill()
        with pytest.raises(OSError, match="No space left"):
            (volume.folder / "more").write_bytes(b"x" * MIB)
        volume.empty()
        (volume.folder / "more").write_bytes(b"x" * MIB)
    finally:
        volume.unmount()


def test_syncs_take_as_long_as_they_are_told(tmp_path: Path) -> None:
    if reason := slow_syncs.unavailable():
        leave_out(reason)
    syncs = slow_syncs.SlowSyncs(tmp_path / "delay")
    syncs.set(0.3)
    code = "import os, sys, time; f = open(sys.argv[1], 'w'); began = time.monotonic(); os.fdatasync(f.fileno()); os.fsync(f.fileno()); print(time.monotonic() - began)"  # fmt: skip
    environment = os.environ | syncs.variables | {"LD_PRELOAD": str(syncs.library)}
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    assert float(subprocess.check_output(command, env=environment)) >= 0.6
    syncs.set(0)
    assert float(subprocess.check_output(command, env=environment)) < 0.3


def test_an_older_copy_takes_the_place_of_all_that_is_there(tmp_path: Path) -> None:
    data_dir, copy = tmp_path / "data", tmp_path / "copy"
    (data_dir / "t-0").mkdir(parents=True)
    (data_dir / "t-0" / "log").write_text("old")
    take_copy(data_dir, copy)
    (data_dir / "t-0" / "log").write_text("new")
    (data_dir / "t-1").mkdir()
    restore(copy, data_dir)
    assert sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*")) == ["t-0", "t-0/log"]
    assert (data_dir / "t-0" / "log").read_text() == "old"


def test_files_are_changed_as_told(tmp_path: Path) -> None:
    path, data = tmp_path / "file", Random(1).randbytes(4096)
    path.write_bytes(data)
    places = faulty_disk.flip_bits(path, 2, Random(1))
    changed = path.read_bytes()
    assert [n for n in range(4096) if changed[n] != data[n]] == places
    assert all((changed[n] ^ data[n]).bit_count() == 1 for n in places)

    path.write_bytes(data)
    source, target = faulty_disk.misplace(path, Random(1))
    sector = data[source * 512 : source * 512 + 512]
    assert path.read_bytes() == data[: target * 512] + sector + data[target * 512 + 512 :]

    path.write_bytes(data)
    cut_bytes = faulty_disk.cut_tail(path, Random(1))
    assert cut_bytes > 0
    assert path.read_bytes() == data[: 4096 - cut_bytes]


def test_a_torn_tail_is_appended_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"synced")
    added_bytes = faulty_disk.tear_tail(path, Random(1))
    assert added_bytes >= 1
    assert path.read_bytes().startswith(b"synced")
    assert path.stat().st_size == len(b"synced") + added_bytes


def test_every_fault_is_dealt_before_one_comes_again() -> None:
    names = [f"fault{n}" for n in range(9)] + ["quiet", "mixed"]
    deck = soak.Deck(names, Random(5))
    first = [deck.draw() for _ in range(9 + 3 + 4)]
    assert sorted(card for card in first if card not in ("quiet", "mixed")) == sorted(names[:9])
    assert (first.count("mixed"), first.count("quiet")) == (3, 4)
    again = soak.Deck(names, Random(5))
    assert [again.draw() for _ in first] == first


def test_faults_with_a_goal_are_dealt_more_often() -> None:
    deck = soak.Deck(["kill_leader", "wipe", "quiet"], Random(5), goal_cards=4)
    dealt = [deck.draw() for _ in range(6)]
    assert sorted(dealt) == ["kill_leader"] * 4 + ["quiet", "wipe"]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [report.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert report.percentile([7.0], 0.99) == 7


def row(nemesis: str, longest_ms: float, switch_ms: float | None = None, **more: Any) -> dict[str, Any]:
    counts = dict.fromkeys(report.COUNTS, 7)
    return (
        {"nemesis": nemesis, "longest_ms": longest_ms, "switch_ms": switch_ms, "switch": {}, "split": []}
        | counts
        | more
    )


def test_a_goal_is_missed_by_a_single_slow_run() -> None:
    rounds = [row("stop_leader", 90, 60), row("stop_leader", 300, 101), row("quiet", 50), row("wipe", 40)]
    found = report.summary(rounds)
    assert [line["fault"] for line in found] == ["stop_leader", "wipe", "quiet"]
    assert (found[0]["p50_ms"], found[0]["p99_ms"]) == (90, 300)
    assert (found[0]["met"], found[1]["met"]) == (False, None)
    assert found[0]["acknowledged"] == 14
    assert report.summary(rounds[:1])[0]["met"] is True


def test_the_phases_of_a_failover_add_up_to_it() -> None:
    told = {"detected": 20, "elected": 26, "published": 90}
    split = report.split_of(
        row("kill_leader", 95, 95, switch={"last_ack_ms": -15.0, "first_ack_ms": 80.0}, split=[told])
    )
    assert split == {"before": 15, "detect": 20, "elect": 6, "publish": 54, "client": 0}
    assert report.split_of(row("kill_leader", 95, 95, switch={"last_ack_ms": -15.0, "first_ack_ms": 80.0})) is None


def test_only_what_is_between_the_markers_is_replaced() -> None:
    text = report.replace_between_markers("a\n<!-- figures: written by tests.process.campaign.report -->\nold\n<!-- end of figures -->\nb", "figures", "new")  # fmt: skip
    assert text == "a\n<!-- figures: written by tests.process.campaign.report -->\nnew\n<!-- end of figures -->\nb"
    with pytest.raises(AssertionError, match="there must be one line"):
        report.replace_between_markers("no markers", "figures", "new")


def test_the_journal_tells_who_was_fenced_and_which_isr_shrank() -> None:
    def state(isr: list[int], leader_epoch: int = 1) -> PartitionChanged:
        return PartitionChanged("t", "id", 0, [1, 2, 3], isr[0], leader_epoch, 1, isr)

    changes = [state([1, 2, 3]), state([1, 2]), state([1, 2, 3]), BrokerFenced(1, 9), state([2, 3], leader_epoch=2)]
    counts = fullload.count_changes(iter(changes))
    assert counts == {"isr_shrinks": 2, "isr_returns": 1, "fenced": 1, "leader_changes": 1}
