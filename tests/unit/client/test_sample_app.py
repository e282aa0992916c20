"""The sample application runs, and mypy has nothing to say about it or about what it uses."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import minilog_client
from minilog_client import AsyncClient, Client
from tests.unit.client import sample_app
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.virtual_time import run

ROOT = Path(__file__).parents[3]


def test_it_runs() -> None:
    cluster = FakeCluster()
    FakeCoordinator(cluster)

    async def main() -> None:
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            totals = await sample_app.main(client, range(100))
            assert sum(totals.values()) == sum(range(100))

    run(main())
    cluster.closed = False
    cluster._wake()
    with Client(cluster.bootstrap, transport=cluster) as client:
        assert sorted(sample_app.report(client)) == list(range(100))


def test_it_uses_public_names_only() -> None:
    tree = ast.parse(Path(sample_app.__file__).read_text(encoding="utf-8"))
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minilog")
        for alias in node.names
    ]
    assert set(names) <= set(minilog_client.__all__)


def test_every_public_name_is_there() -> None:
    """ruff keeps them sorted, in its order."""
    assert all(hasattr(minilog_client, name) for name in minilog_client.__all__)
    package = Path(minilog_client.__file__).parent
    assert (package / "py.typed").exists()


def test_its_types_are_right() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", sample_app.__file__],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
