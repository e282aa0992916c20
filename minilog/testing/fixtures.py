"""The fixtures, and the settings of pytest that say how long they live and wait."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from minilog.cli.local.broker_process import MinilogBroker
from minilog.cli.local.etcd import find_etcd
from minilog.cli.output import CliError
from minilog.testing.cluster import DEADLINE_MS, MinilogCluster, cluster

Scope = Literal["function", "class", "module", "package", "session"]
SCOPES: Final[tuple[Scope, ...]] = ("function", "class", "module", "package", "session")
Clusters = Callable[..., MinilogCluster]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "minilog_scope",
        f"how long the clusters of minilog's fixtures live: {', '.join(SCOPES)}",
        default="function",
    )
    parser.addini(
        "minilog_deadline_ms",
        f"how long what is waited for may take, in ms ({DEADLINE_MS} by default)",
        default=str(DEADLINE_MS),
    )


def _scope(fixture_name: str, config: pytest.Config) -> Scope:
    said = config.getini("minilog_scope")
    found = next((scope for scope in SCOPES if scope == said), None)
    if found is None:
        raise pytest.UsageError(f"minilog_scope is {said!r}; allowed are {', '.join(SCOPES)}")
    return found


def _deadline_ms(config: pytest.Config) -> int:
    said = config.getini("minilog_deadline_ms")
    if not said.isdecimal() or not int(said):
        raise pytest.UsageError(f"minilog_deadline_ms is {said!r}; allowed are whole numbers >= 1, in ms")
    return int(said)


def _leave_out_without_etcd() -> None:
    """A test that cannot run is left out, and says why. In continuous integration it fails, so that
    nobody takes it for one that has passed."""
    try:
        find_etcd()
    except CliError as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error.sentence}. CI is set, so the test is not left out")
        pytest.skip(error.sentence)


def cluster_fixture(
    *,
    scope: Scope | None = None,
    brokers: int = 3,
    settings: Sequence[str] = (),
    controllers: int = 1,
    secure: bool = False,
    deadline_ms: int | None = None,
) -> Any:
    """A fixture with a cluster of your own: ``shop = cluster_fixture(scope="session", brokers=2)``
    in a test module or a conftest.py. Without ``scope`` and ``deadline_ms`` the settings of pytest
    say."""

    @pytest.fixture(scope=scope or _scope)
    def made(pytestconfig: pytest.Config) -> Iterator[MinilogCluster]:
        if controllers > 1:
            _leave_out_without_etcd()
        limit_ms = _deadline_ms(pytestconfig) if deadline_ms is None else deadline_ms
        with cluster(brokers, settings, controllers, secure, limit_ms) as found:
            yield found

    return made


minilog_cluster = cluster_fixture()
"""A controller and three brokers as real processes."""
minilog_secured = cluster_fixture(secure=True)
"""A controller and three brokers that know who asks, by TLS and tokens."""


@pytest.fixture(scope=_scope)
def minilog_broker(pytestconfig: pytest.Config) -> Iterator[MinilogBroker]:
    """Controller and broker in one process."""
    with tempfile.TemporaryDirectory(prefix="minilog-test-", ignore_cleanup_errors=True) as folder:
        found = MinilogBroker(Path(folder), _deadline_ms(pytestconfig) / 1000)
        try:
            found.start()
            yield found
        finally:
            found.close()


@pytest.fixture(scope=_scope)
def minilog_clusters(pytestconfig: pytest.Config) -> Iterator[Clusters]:
    """``minilog_clusters(brokers=5, settings=["session_timeout_ms=1000"])``: as many clusters as
    the test wants."""
    with contextlib.ExitStack() as stack:

        def make(
            brokers: int = 3, settings: Sequence[str] = (), controllers: int = 1, secure: bool = False
        ) -> MinilogCluster:
            if controllers > 1:
                _leave_out_without_etcd()
            made = cluster(brokers, settings, controllers, secure, _deadline_ms(pytestconfig))
            return stack.enter_context(made)

        yield make
