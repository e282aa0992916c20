"""The console in a real browser: through a failover, a loss of records and an outage of the
controller, with hostile records, by keyboard, and looked at by axe."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.process.conftest import leave_out
from tests.process.console.browser import Browser, browser, unavailable
from tests.process.faults.test_disks import Bench
from tests.process.faults.test_lost import RECORDS, lose_the_last_writes
from tests.process.rig.cluster import CONTROLLER, ProcessCluster, process_cluster

SEEN_S_MAX = 2.0
"""From a leader's death until the grid shows it, with a session of one second."""
HOSTILE = "<img src=x onerror=document.title='taken'>"
PAGES = ("overview", "topics", "topic/orders", "records/orders/0", "groups", "group/readers", "failovers", "lost", "brokers", "broker/1")  # fmt: skip
LOOKS: tuple[dict[str, Any], ...] = ({}, {"dark": True}, {"width": 360, "height": 740})


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    reason = unavailable()
    if reason is not None:
        leave_out(reason)
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    folder = tmp_path_factory.mktemp("console") / "cluster"
    with process_cluster(folder, overrides=("session_timeout_ms=1000",)) as made:
        code, said = Bench(made).minilog("topic", "create", "orders", "--partitions", "6")
        assert code == 0, said
        made.wait_in_sync("orders")
        yield made


def url_of(cluster: ProcessCluster, broker_id: int) -> str:
    return cluster.url.split(",")[cluster.broker_ids.index(broker_id)]


def tell(cluster: ProcessCluster, method: str, path: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(
        f"{url_of(cluster, 1)}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def produce(cluster: ProcessCluster, *records: dict[str, Any]) -> None:
    tell(cluster, "POST", "/v1/topics/orders/records", {"records": records})


def read_in_a_group(cluster: ProcessCluster, member: str) -> None:
    committed = {"offsets": [{"topic": "orders", "partition": 0, "offset": 0}]}
    tell(cluster, "PUT", "/v1/groups/readers/offsets", committed)
    tell(cluster, "PUT", f"/v1/groups/readers/members/{quote(member, safe='')}", {"topics": ["orders"]})


def marks(page: Browser, broker_id: int) -> str:
    """What the grid shows of a broker, partition by partition."""
    rows = f"[...document.querySelectorAll('[data-topic=orders] tbody tr')].filter(row => row.innerText.startsWith('broker {broker_id}'))"
    return str(
        page.evaluate(
            f"{rows}.flatMap(row => [...row.querySelectorAll('td')].map(td => td.textContent || '-')).join('')"
        )
    )


def test_programs_get_json_where_browsers_get_the_page(cluster: ProcessCluster) -> None:
    for name in (1, CONTROLLER):
        assert cluster.ask(name, "/")["name"].startswith("minilog")
        url = next(member.url for member in cluster.dev.members if member.name == cluster.node(name))
        request = urllib.request.Request(f"{url}/", headers={"Accept": "text/html,*/*;q=0.8"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert len(answer.read()) <= 150 * 1024


def test_what_records_and_groups_say_is_shown_as_text(cluster: ProcessCluster, chromium: Browser) -> None:
    produce(cluster, *({"key": HOSTILE, "value": {"name": HOSTILE}, "partition": 0,
                        "headers": [{"name": HOSTILE, "value": "aGk="}]} for _ in range(3)))  # fmt: skip
    read_in_a_group(cluster, HOSTILE)
    for broker_id in (1, 2):  # whoever of them does not lead it asks the leader
        chromium.open(f"{url_of(cluster, broker_id)}/#/records/orders/0?from=oldest")
        chromium.wait_text(f'{HOSTILE}\t{{"name": "{HOSTILE}"}}\t{HOSTILE}: aGk=', "tbody")
    chromium.open(f"{url_of(cluster, 1)}/#/group/readers")
    chromium.wait_text(HOSTILE)
    assert chromium.evaluate("document.querySelectorAll('img').length") == 0
    assert "taken" not in chromium.evaluate("document.title")
    assert chromium.complaints == []


def test_records_are_found_by_offset_and_key_and_as_they_come(cluster: ProcessCluster, chromium: Browser) -> None:
    produce(cluster, *({"key": f"k{number}", "value": number, "partition": 2} for number in range(130)))
    chromium.open(f"{url_of(cluster, 1)}/#/records/orders/2?from=offset&at=100")
    chromium.wait_text("k100", "tbody")
    assert chromium.evaluate("document.querySelectorAll('tbody tr').length") == 30
    chromium.press("[")
    chromium.wait_text("k50", "tbody")
    assert chromium.evaluate("document.querySelectorAll('tbody tr').length") == 50
    chromium.evaluate("location.hash = '#/records/orders/2?from=oldest&key=k12'")
    chromium.wait_text("11 records of the 130 from offset 0 to 129 have the key")
    assert f"{url_of(cluster, 1)}/v1/topics/orders/partitions/2/records?offset=0" in chromium.text("#curl")
    chromium.evaluate("location.hash = '#/records/orders/2'")
    chromium.wait_text("k129", "tbody")
    chromium.press("l")
    chromium.wait_text("Live: on")
    produce(cluster, {"key": "fresh", "value": 1, "partition": 2})
    chromium.wait_text("fresh", "tbody tr")
    assert chromium.complaints == []


def test_a_seek_is_previewed_and_not_made(cluster: ProcessCluster, chromium: Browser) -> None:
    before = cluster.ask(1, "/v1/groups/readers/offsets")
    chromium.open(f"{url_of(cluster, 1)}/#/group/readers")
    chromium.wait_text("What a seek would do")
    chromium.evaluate("document.querySelector('input[name=to]').value = 'latest'")
    chromium.evaluate("document.querySelector('form').requestSubmit()")
    chromium.wait_text("minilog group seek 'readers' --to 'latest'")
    assert cluster.ask(1, "/v1/groups/readers/offsets") == before


def test_axe_finds_nothing_on_any_page_in_any_look(cluster: ProcessCluster, chromium: Browser) -> None:
    axe = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for look in LOOKS:
        chromium.look(**look)
        chromium.open(f"{url_of(cluster, 1)}/")
        chromium.evaluate("new Promise(done => document.readyState === 'complete' ? done() : onload = done)")
        chromium.evaluate(axe)
        for page in PAGES:
            chromium.evaluate(f"location.hash = '#/{page}'")
            chromium.wait("document.querySelector('main h1') !== null", page)
            time.sleep(0.3)  # colours change gently, and axe measures them as they are
            violations = chromium.evaluate(
                "axe.run().then(found => found.violations.map(v => v.id + ': ' + v.nodes[0].html))"
            )
            if violations:
                found[f"{page} {look}"] = violations
            width = chromium.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert width <= 0, f"{page} {look}: the page itself is {width} px too wide"
    chromium.look()
    assert found == {}


def test_the_keyboard_reaches_every_page(cluster: ProcessCluster, chromium: Browser) -> None:
    chromium.open(f"{url_of(cluster, 1)}/")
    chromium.wait_text("Brokers and partitions")
    for key, heading in zip("23456", ("Topics", "Groups", "Failovers", "Lost records", "Brokers"), strict=True):
        chromium.press(key)
        chromium.wait_text(heading, "main h1")
    chromium.press("1")
    chromium.wait_text("Brokers and partitions")


def test_a_dead_leader_is_seen_at_once_and_its_failover_is_told(cluster: ProcessCluster, chromium: Browser) -> None:
    victim = 2
    chromium.open(f"{url_of(cluster, 1)}/")
    chromium.wait_text("Well:", "#verdict")
    assert marks(chromium, victim).count("L") == 2
    began = time.monotonic()
    cluster.kill(victim)
    while set(marks(chromium, victim)) != {"X"}:
        assert time.monotonic() - began < SEEN_S_MAX, marks(chromium, victim)
    chromium.wait_text("does not run, or cannot be reached.", "#verdict")
    assert "Broker 2" in chromium.text("#verdict")
    assert marks(chromium, 1).count("L") + marks(chromium, 3).count("L") == 6
    chromium.press("4")
    chromium.wait_text("orders-1, orders-4", "tbody")
    row = chromium.text("tbody tr")
    assert "broker 2" in row
    assert "its process was gone" in row
    cluster.start(victim)
    chromium.press("1")
    chromium.wait_text("Well:", "#verdict")
    assert chromium.complaints == []


def test_without_its_controller_the_page_says_how_old_it_is(cluster: ProcessCluster, chromium: Browser) -> None:
    chromium.open(f"{url_of(cluster, 1)}/")
    chromium.wait_text("Well:", "#verdict")
    cluster.kill(CONTROLLER)
    chromium.wait_text("Trouble:", "#verdict", 5)
    assert "does not answer" in chromium.text("#verdict")
    chromium.wait("/last heard [0-9.]+ s ago, and what is said of brokers and partitions is as old as that/"
                  ".test(document.getElementById('verdict').innerText)", "the age of what is shown")  # fmt: skip
    chromium.wait_text("what is shown is as old")
    cluster.start(CONTROLLER)
    chromium.wait_text("Well:", "#verdict")
    assert chromium.complaints == []


def test_without_the_broker_that_tells_it_the_page_says_so_and_goes_on_later(
    cluster: ProcessCluster, chromium: Browser
) -> None:
    chromium.open(f"{url_of(cluster, 1)}/")
    chromium.wait_text("Well:", "#verdict")
    cluster.pause(1)
    chromium.wait_text("Broker 1 has told this page nothing for", "#verdict")
    cluster.kill(1)
    cluster.start(1)
    chromium.wait_text("Well:", "#verdict")


def test_the_controller_shows_the_cluster_and_sends_on_for_records(cluster: ProcessCluster, chromium: Browser) -> None:
    produce(cluster, {"key": "sent on", "value": 1, "partition": 4})
    controller = next(member for member in cluster.dev.members if member.role == "controller")
    chromium.open(f"{controller.url}/")
    chromium.wait_text("Well:", "#verdict")
    assert marks(chromium, 1).count("L") + marks(chromium, 2).count("L") + marks(chromium, 3).count("L") == 6
    chromium.evaluate("location.hash = '#/records/orders/4'")
    chromium.wait_text("Open the same page at a broker")
    link = chromium.evaluate("document.querySelector('main li a').href")
    chromium.open(link)
    chromium.wait_text("sent on", "tbody")


def test_lost_records_are_shown_with_their_number_and_place(tmp_path: Path, chromium: Browser) -> None:
    with process_cluster(tmp_path / "cluster") as cluster:
        old, leader = lose_the_last_writes(Bench(cluster))
        chromium.open(f"{url_of(cluster, leader)}/")
        chromium.wait_text(f"! {RECORDS:,}", ".figures")
        chromium.press("5")
        chromium.wait_text(f"{RECORDS:,} with acks=1", "tbody")
        row = chromium.text("tbody tr")
        assert f"broker {old}" in row
        assert f"10 to {RECORDS + 9:,}" in row
        assert f"{RECORDS:,} not written again" in row
        chromium.evaluate("location.hash = document.querySelector('tbody th a').hash")
        chromium.wait_text(f"Broker {old} keeps them")
        chromium.open(chromium.evaluate("document.querySelector('main p a').href"))
        chromium.wait_text("lost 49", "tbody")
        chromium.press("4")
        chromium.wait_text(f"{RECORDS:,} with acks=1", "tbody")
        assert chromium.complaints == []
