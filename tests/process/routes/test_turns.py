"""The worst request of each route makes no heartbeat late (R42)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.process.load.turns import Turns
from tests.process.load.worst_requests import STEPS, Sizes
from tests.process.rig.cluster import process_cluster

SMALL = Sizes(partitions=300, members=40, groups=50, tails=50)
SESSION_TIMEOUT_MS = 2000


def test_no_request_makes_a_heartbeat_late(tmp_path: Path) -> None:
    with process_cluster(tmp_path / "cluster") as cluster:
        outcome = asyncio.run(Turns(cluster, SMALL).run(STEPS))
    assert [figures.refused for figures in outcome.steps if figures.refused] == []
    assert outcome.fenced == 0
    assert 0 < outcome.heartbeat_age_ms < SESSION_TIMEOUT_MS
