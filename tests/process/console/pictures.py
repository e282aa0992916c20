"""How the console looks, in light, dark and narrow, during a loss of records:

python -m tests.process.console.pictures FOLDER
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.process.console.browser import Browser, browser
from tests.process.faults.test_disks import Bench
from tests.process.faults.test_lost import lose_the_last_writes
from tests.process.rig.cluster import ProcessCluster, process_cluster
from tests.process.routes.test_group_routes import Shell

SETTLE_S = 2.5
"""Rates take two looks."""
LOOKS: dict[str, dict[str, Any]] = {"light": {}, "dark": {"dark": True}, "narrow": {"width": 360, "height": 740}}
PAGES = {
    "overview": "overview",
    "topic": "topic/orders",
    "records": "records/orders/0",
    "groups": "groups",
    "group": "group/billing",
    "failovers": "failovers",
    "lost": "lost",
    "broker": "broker/1",
}


def prepare(cluster: ProcessCluster) -> None:
    shell = Shell(cluster)
    for topic, partitions in (("orders", 24), ("payments", 60)):
        shell.ok("POST", "/v1/topics", {"topic": topic, "partitions": partitions, "replication_factor": 3})
        cluster.wait_in_sync(topic)
    records = [
        {"key": f"customer-{number % 97}", "value": {"order": 10_000 + number, "total": round(number * 3.7, 2)}}
        for number in range(2000)
    ]
    shell.ok("POST", "/v1/topics/orders/records", {"records": records})
    committed = [{"topic": "orders", "partition": number, "offset": 3 * number} for number in range(12)]
    shell.ok("PUT", "/v1/groups/billing/offsets", {"offsets": committed})
    shell.ok("PUT", "/v1/groups/billing/members/worker-1", {"topics": ["orders"]})


def take(page: Browser, url: str, folder: Path, name: str, address: str) -> None:
    for look, options in LOOKS.items():
        page.look(**options)
        page.open(f"{url}/#/{address}")
        page.wait("document.querySelector('main h1') !== null", name)
        time.sleep(SETTLE_S)
        page.picture(folder / f"{name}-{look}.png")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, process_cluster(Path(data) / "cluster") as cluster, browser() as page:
        prepare(cluster)
        old, leader = lose_the_last_writes(Bench(cluster))
        cluster.kill(next(broker for broker in cluster.broker_ids if broker not in (old, leader)))
        url = cluster.url.split(",")[cluster.broker_ids.index(leader)]
        for name, address in PAGES.items():
            take(page, url, folder, name, address)
        print(json.dumps({path.name: path.stat().st_size for path in sorted(folder.glob("*.png"))}, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
