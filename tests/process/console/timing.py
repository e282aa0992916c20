"""What an update of the console costs with many partitions, while a broker dies and returns:

    python -m tests.process.console.timing [PARTITIONS]

Prints the longest time that the script of one update took, and what the browser spent on style and
layout meanwhile.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.process.console.browser import Browser, browser
from tests.process.rig.cluster import process_cluster
from tests.process.routes.test_group_routes import Shell

WATCH = (
    "globalThis.updates = []; new PerformanceObserver(list => updates.push(...list.getEntries().map(e => e.duration)))"
    ".observe({entryTypes: ['measure']})"
)


def spent(page: Browser) -> dict[str, float]:
    """Milliseconds since the page began."""
    metrics = {one["name"]: one["value"] for one in page.tell("Performance.getMetrics")["metrics"]}
    return {name: 1000 * metrics[name] for name in ("RecalcStyleDuration", "LayoutDuration")}


def main(partitions: int) -> None:
    with tempfile.TemporaryDirectory() as data, process_cluster(Path(data) / "cluster") as cluster, browser() as page:
        Shell(cluster).ok("POST", "/v1/topics", {"topic": "many", "partitions": partitions, "replication_factor": 3})
        cluster.wait_in_sync("many", 120)
        page.tell("Performance.enable")
        page.look()
        page.open(cluster.url.split(",")[0])
        page.wait_text("Well:", "#verdict", 60)
        page.evaluate(WATCH)
        before = spent(page)
        cluster.kill(2)
        page.wait_text("does not run", "#verdict", 60)
        cluster.start(2)
        page.wait_text("Well:", "#verdict", 120)
        time.sleep(1)
        updates = sorted(page.evaluate("updates"))
        after = spent(page)
        layout = sum(after.values()) - sum(before.values())
        print(
            f"{partitions} partitions, {len(updates)} updates: script {updates[len(updates) // 2]:.1f} ms in the middle, "
            f"{updates[-1]:.1f} ms at most; style and layout {layout / len(updates):.1f} ms an update"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
