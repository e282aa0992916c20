"""The tools of this ring do what they say: cables are cut, power is lost, cards are dealt."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest

from tests.process import faulty_disk, soak
from tests.process.conftest import Stage
from tests.process.faulty_disk import MIB, Volume
from tests.process.network import CLIENT
from tests.process.slow_link import Link


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    why_not = faulty_disk.unavailable()
    if why_not:
        pytest.skip(why_not)
    return Volume(tmp_path / "disk", 16 * MIB)


def test_each_direction_is_cut_alone(stage: Stage) -> None:
    if stage.no_network:
        pytest.skip(stage.no_network)
    cluster = stage.cluster()
    network, broker = cluster.network, cluster.node(1)
    for pair in ((CLIENT, broker), (broker, CLIENT)):
        network.cut(*pair)
        assert cluster.ask(1, "/v1/metadata") is None
        assert cluster.ask(2, "/v1/metadata") is not None
        network.mend(*pair)
        assert cluster.ask(1, "/v1/metadata") is not None


def test_a_slow_link_is_slow_until_it_is_healed(stage: Stage) -> None:
    if stage.no_network:
        pytest.skip(stage.no_network)
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


def test_every_fault_is_dealt_before_one_comes_again() -> None:
    names = [f"fault{n}" for n in range(9)] + ["quiet", "mixed"]
    deck = soak.Deck(names, Random(5))
    first = [deck.draw() for _ in range(9 + 3 + 4)]
    assert sorted(card for card in first if card not in ("quiet", "mixed")) == sorted(names[:9])
    assert (first.count("mixed"), first.count("quiet")) == (3, 4)
    again = soak.Deck(names, Random(5))
    assert [again.draw() for _ in first] == first


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [soak.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert soak.percentile([7.0], 0.99) == 7
