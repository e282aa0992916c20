"""What every process tells of itself: text that Prometheus reads, lateness that a scrape sees, room
on a disk that may hang."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import minilog
from minilog import machine
from minilog.server.disk_space import DiskSpace
from minilog.server.durations import Durations
from minilog.server.exposition import Exposition, labels
from minilog.server.loop_lag import WINDOW_S, LoopLag
from minilog.server.process_facts import write_build


def read(page: Exposition) -> dict[str, float]:
    return {
        f"{sample.name}{labels(**sample.labels)}": sample.value
        for family in text_string_to_metric_families(page.text().decode())
        for sample in family.samples
    }


def test_a_pause_between_two_scrapes_is_seen() -> None:
    lag = LoopLag()
    lag.observe(10.0, 100.0)
    lag.observe(0.001, 101.0)
    assert lag.recent_s(101.0 + WINDOW_S - 1.5) == 10.0
    assert lag.recent_s(100.0 + 2 * WINDOW_S - 0.1) == 10.0
    lag.observe(0.002, 100.0 + 2 * WINDOW_S)
    assert lag.recent_s(100.0 + 3 * WINDOW_S) == 0.002
    assert lag.recent_s(100.0 + 9 * WINDOW_S) == 0.0
    assert lag.worst_s == 10.0


def test_labels_that_need_it_are_escaped() -> None:
    page = Exposition()
    name = 'a"b\\c\nd'
    page.gauge("minilog_x", "doc", [(labels(group=name), 1)])
    (family,) = text_string_to_metric_families(page.text().decode())
    assert [sample.labels for sample in family.samples] == [{"group": name}]


def test_durations_are_told_as_a_histogram() -> None:
    durations, page = Durations(), Exposition()
    for seconds in (0.0005, 0.001, 0.04, 7.0):
        durations.observe(seconds)
    page.durations("minilog_turn_seconds", "doc", durations)
    found = read(page)
    assert [found[f'minilog_turn_seconds_bucket{{le="{le}"}}'] for le in ("0.001", "0.05", "2.0", "+Inf")] == [
        2,
        3,
        3,
        4,
    ]
    assert found["minilog_turn_seconds_count"] == 4
    assert found["minilog_turn_seconds_sum"] == pytest.approx(7.0415)


def test_a_process_tells_its_version_role_and_cluster() -> None:
    page = Exposition()
    write_build(page, "broker", 3, "c1")
    (family,) = text_string_to_metric_families(page.text().decode())
    (sample,) = family.samples
    told = {name: sample.labels[name] for name in ("version", "role", "node", "cluster_id")}
    assert told == {"version": minilog.__version__, "role": "broker", "node": "3", "cluster_id": "c1"}


def test_room_on_the_disk_is_told(tmp_path: Path) -> None:
    async def look(path: str) -> dict[str, float]:
        space, page = DiskSpace(path), Exposition()
        await space.look()
        space.write(page)
        return read(page)

    found = asyncio.run(look(str(tmp_path)))
    assert found["minilog_disk_bytes"] >= found["minilog_disk_free_bytes"] > 0
    assert asyncio.run(look(str(tmp_path / "missing"))) == {}


def test_a_disk_that_hangs_holds_up_no_scrape_and_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = threading.Event()

    def hang(path: str) -> machine.Space | None:
        asked.append(path)
        answer.wait(30)
        return machine.Space(4, 3, 2, 1)

    monkeypatch.setattr(machine, "space", hang)

    async def work() -> dict[str, float]:
        space = DiskSpace("/x")
        for _ in range(3):
            await space.look()
        assert asked == ["/x"]
        answer.set()
        page = Exposition()
        while not read(page):
            await space.look()
            space.write(page)
        return read(page)

    assert asyncio.run(work())["minilog_disk_free_inodes"] == 1
