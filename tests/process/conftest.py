"""One cluster for all tests, with networks and disks of its own where this machine allows it. A
test that fails leaves the next one a new cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.process.rig import equipment
from tests.process.rig.cluster import VOLUME_BYTES, ProcessCluster, process_cluster

SHORT_SESSIONS = ("session_timeout_ms=1000", "replica_lag_max_ms=2000")
"""So that faults need not last long; soaks run with the defaults."""
_failed = pytest.StashKey[bool]()


def leave_out(reason: str) -> NoReturn:
    """On a laptop a test that this machine is not equipped for is skipped. In continuous
    integration it fails."""
    if os.environ.get("CI"):
        pytest.fail(f"cannot run here: {reason}")
    pytest.skip(reason)


class Stage:
    """Lends out the cluster, and makes a new one when the old one is not to be trusted any more."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._stack = ExitStack()
        self._cluster: ProcessCluster | None = None
        self._rounds = 0
        self.missing = equipment.missing()

    def cluster(self) -> ProcessCluster:
        if self._cluster is None:
            folder: Path = self._folders.mktemp("cluster") / "cluster"
            made = process_cluster(
                folder,
                overrides=SHORT_SESSIONS,
                network="network" not in self.missing,
                volume_bytes=0 if "volumes" in self.missing else VOLUME_BYTES,
                slow_syncs="slow_syncs" not in self.missing,
            )
            self._cluster = self._stack.enter_context(made)
        return self._cluster

    def round(self) -> int:
        self._rounds += 1
        return self._rounds

    def discard(self) -> None:
        self._cluster = None
        self._stack.close()


@pytest.fixture(scope="session")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory)
    yield stage
    stage.discard()


@pytest.fixture
def stage(_stage: Stage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    yield _stage
    if request.node.stash.get(_failed, False):
        _stage.discard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    if call.excinfo is not None:
        item.stash[_failed] = True
    return report
