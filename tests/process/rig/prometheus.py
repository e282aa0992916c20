"""A real Prometheus that scrapes a real cluster, with config/prometheus.yml as operators get it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.process.rig.cluster import ProcessCluster

ROOT = Path(__file__).parents[3]
EXAMPLE_BROKERS = '["127.0.0.1:8082", "127.0.0.1:8083", "127.0.0.1:8084"]'
EXAMPLE_CONTROLLER = '["127.0.0.1:9093"]'
SCRAPE_S = 1
STEP_S = 1
START_S = 15.0
POLL_S = 0.2
ASK_TIMEOUT_S = 5.0

ALERTING = """
alerting:
  alertmanagers:
    - static_configs:
        - targets: ["{}"]
"""

Series = dict[str, list[float]]
"""Labels as text -> values over time."""


def unavailable() -> str | None:
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not installed (Debian: apt-get install prometheus)" if missing else None


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url
        self.began_s = time.time()

    def now(self, expr: str) -> dict[str, float]:
        found = self._ask("query", query=expr)["result"]
        return {_labels(series): float(series["value"][1]) for series in found}

    def so_far(self, expr: str) -> Series:
        """Since this Prometheus started, in steps of a second."""
        found = self._ask("query_range", query=expr, start=self.began_s, end=time.time(), step=STEP_S)["result"]
        return {_labels(series): [float(value) for _, value in series["values"]] for series in found}

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def wait(self, condition: Callable[[Prometheus], object], what: str, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition(self):
            assert time.monotonic() < deadline_s, f"waited {timeout_s:.0f} s in vain for {what}"
            time.sleep(POLL_S)

    def _ask(self, endpoint: str, **query: object) -> Any:
        url = f"{self.url}/api/v1/{endpoint}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=ASK_TIMEOUT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None


def _labels(series: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(series["metric"].items()))


@contextlib.contextmanager
def prometheus(
    cluster: ProcessCluster, folder: Path, *, scrape_s: int = SCRAPE_S, alertmanager: str = ""
) -> Iterator[Prometheus]:
    """``alertmanager``: host and port of one that is to hear of alerts."""
    config = _config(cluster, scrape_s) + (ALERTING.format(alertmanager) if alertmanager else "")
    (folder / "prometheus.yml").write_text(config)
    shutil.copy(ROOT / "config" / "alerts.yml", folder / "alerts.yml")
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    found = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_ready(found.url, process)
        yield found
    finally:
        process.terminate()
        process.wait(10)


def _config(cluster: ProcessCluster, scrape_s: int) -> str:
    """The example, with this cluster's addresses and another interval."""
    text = (ROOT / "config" / "prometheus.yml").read_text()
    assert EXAMPLE_BROKERS in text
    assert EXAMPLE_CONTROLLER in text
    brokers = [member.url.removeprefix("http://") for member in cluster.dev.brokers]
    controllers = [cluster.dev.controller.url.removeprefix("http://")]
    text = text.replace(EXAMPLE_BROKERS, json.dumps(brokers)).replace(EXAMPLE_CONTROLLER, json.dumps(controllers))
    return text.replace("_interval: 5s", f"_interval: {scrape_s}s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        assert process.poll() is None, f"{url} ended by itself"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/-/ready", timeout=1).close()
            return
        assert time.monotonic() < deadline_s, f"{url} is not ready after {START_S:.0f} s"
        time.sleep(POLL_S)
