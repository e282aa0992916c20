from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.cluster import ProcessCluster, process_cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with process_cluster(tmp_path / "cluster") as running:
        yield running
